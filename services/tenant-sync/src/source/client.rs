//! One exchange with the tenant API.

use std::fs;
use std::path::Path;
use std::time::Duration;

use grey_runtime::Secret;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Identity, Response, StatusCode, Url, redirect};
use tokio::time;

use super::Error;
use super::options::{AuthKind, Options};
use super::token::Tokens;
use crate::mapping::cut;

/// Most redirections of one request.
const MAX_REDIRECTS: usize = 5;
/// Most characters told of an answer that is no document.
const MAX_EXCERPT: usize = 200;
/// Most bytes read of one.
const MAX_REFUSAL: usize = 4096;
/// Most characters told of the beginning of a document, and of what the server calls it.
const MAX_BEGINNING: usize = 100;
/// What a gzip stream begins with.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Sends requests with the service's credentials.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    credentials: Credentials,
    secrets: Vec<Secret>,
    timeout: Duration,
    max_bytes: usize,
}

/// What the service identifies itself by.
#[derive(Debug)]
enum Credentials {
    None,
    Bearer(HeaderValue),
    OAuth2(Box<Tokens>),
}

/// A complete body.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) body: Vec<u8>,
    /// What the server calls it and how it begins, without secrets: for whoever finds that it is no JSON.
    pub(super) looks: String,
    /// Every `Link` header.
    pub(super) links: Vec<String>,
    /// Where it came from in the end.
    pub(super) url: Url,
}

impl Client {
    /// `headers` go with every page.
    pub(super) fn new(options: &Options, headers: HeaderMap) -> Result<Self, Error> {
        let auth = &options.auth;
        let bearer = auth.token.as_ref().and_then(|token| bearer(token.expose()));
        let credentials = match (auth.kind, bearer) {
            (AuthKind::None, _) => Credentials::None,
            (AuthKind::Bearer, Some(bearer)) => Credentials::Bearer(bearer),
            (AuthKind::Bearer, None) => return Err(Error::Options(vec!["auth.token: is empty".to_owned()])),
            (AuthKind::OAuth2, _) => {
                let http = transport(options)?.build().map_err(Error::Client)?;
                Credentials::OAuth2(Box::new(Tokens::new(auth, http)?))
            }
        };
        let secrets = options.headers.values().chain(&auth.token).chain(&auth.client_secret);
        Ok(Self {
            http: transport(options)?.default_headers(headers).build().map_err(Error::Client)?,
            credentials,
            secrets: secrets.cloned().collect(),
            timeout: options.timeout,
            max_bytes: options.max_page_bytes,
        })
    }

    /// Asks for a page once. `what` names the page in errors.
    pub(super) async fn get(&self, what: &str, url: &Url) -> Result<Document, Error> {
        let late = || Error::Timeout { what: what.to_owned(), after: self.timeout };
        time::timeout(self.timeout, self.exchange(what, url)).await.map_err(|_| late())?
    }

    async fn exchange(&self, what: &str, url: &Url) -> Result<Document, Error> {
        let mut authorization = match &self.credentials {
            Credentials::None => None,
            Credentials::Bearer(value) => Some(value.clone()),
            Credentials::OAuth2(tokens) => Some(tokens.bearer(self).await?),
        };
        let mut response = self.send(what, url, authorization.as_ref()).await?;
        // A token may be withdrawn before its time; a fresh one tells that from a lack of rights.
        if let (StatusCode::UNAUTHORIZED, Credentials::OAuth2(tokens)) =
            (response.status(), &self.credentials)
        {
            tokens.forget(authorization.as_ref()).await;
            authorization = Some(tokens.bearer(self).await?);
            response = self.send(what, url, authorization.as_ref()).await?;
        }
        match response.status() {
            StatusCode::OK => self.document(what, response, authorization.as_ref()).await,
            _ => Err(self.refusal(what, response, authorization.as_ref()).await),
        }
    }

    async fn send(
        &self,
        what: &str,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Error> {
        let mut request = self.http.get(url.clone()).header(ACCEPT, "application/json");
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(|source| failed(what, source))
    }

    async fn document(
        &self,
        what: &str,
        mut response: Response,
        authorization: Option<&HeaderValue>,
    ) -> Result<Document, Error> {
        let body = read(what, &mut response, self.max_bytes).await?;
        let called = response.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or("none");
        let beginning = body.get(..MAX_REFUSAL).unwrap_or(&body);
        let begins = if beginning.starts_with(GZIP) {
            "it is compressed once more than its content-encoding says".to_owned()
        } else {
            let text = self.excerpt(&String::from_utf8_lossy(beginning), authorization);
            format!("it begins `{}`", cut(&text, MAX_BEGINNING))
        };
        let looks = format!("content-type {}, {begins}", cut(called, MAX_BEGINNING));
        let links = response.headers().get_all("link").iter();
        Ok(Document {
            body,
            looks,
            links: links.filter_map(|link| link.to_str().ok().map(str::to_owned)).collect(),
            url: response.url().clone(),
        })
    }

    /// The error that an answer without a document amounts to.
    async fn refusal(
        &self,
        what: &str,
        mut response: Response,
        authorization: Option<&HeaderValue>,
    ) -> Error {
        let retry_after = retry_after(response.headers());
        let mut said = Vec::new();
        // Whatever can be read of it will do.
        while said.len() < MAX_REFUSAL
            && let Ok(Some(chunk)) = response.chunk().await
        {
            said.extend_from_slice(&chunk);
        }
        said.truncate(MAX_REFUSAL);
        Error::Status {
            what: what.to_owned(),
            status: response.status().as_u16(),
            excerpt: self.excerpt(&String::from_utf8_lossy(&said), authorization),
            retry_after,
        }
    }

    /// The beginning of `text` on one line, without any secret that the service knows.
    pub(super) fn excerpt(&self, text: &str, authorization: Option<&HeaderValue>) -> String {
        let mut text = text.to_owned();
        let sent = authorization.and_then(|value| value.to_str().ok());
        let sent = sent.and_then(|value| value.strip_prefix("Bearer "));
        for secret in self.secrets.iter().map(Secret::expose).chain(sent).filter(|secret| !secret.is_empty())
        {
            text = text.replace(secret, "***");
        }
        let words: Vec<&str> = text
            .split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty())
            .collect();
        cut(&words.join(" "), MAX_EXCERPT).to_owned()
    }
}

/// The header that a token is sent in.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    if token.is_empty() { None } else { super::check::secret_value(&format!("Bearer {token}")) }
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(what: &str, response: &mut Response, limit: usize) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { what: what.to_owned(), limit };
    if response.content_length().is_some_and(|told| told > limit as u64) {
        return Err(too_large());
    }
    let told = response.content_length().and_then(|told| usize::try_from(told).ok());
    let mut body = Vec::with_capacity(told.unwrap_or_default());
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Err(too_large()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(source) => {
                let source = Some(source.without_url());
                return Err(Error::Truncated { what: what.to_owned(), received: body.len(), source });
            }
        }
    }
}

/// The error that a request without answer amounts to.
pub(super) fn failed(what: &str, source: reqwest::Error) -> Error {
    let what = what.to_owned();
    if source.is_redirect() {
        return Error::Redirect { what };
    }
    Error::Transport { what, source: source.without_url() }
}

/// When the server wants to be asked again: seconds, or a date relative to the server's own clock.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(asked).ok()?;
    let now = httpdate::parse_http_date(text(DATE)?).ok()?;
    then.duration_since(now).ok()
}

fn transport(options: &Options) -> Result<reqwest::ClientBuilder, Error> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("grey-tenant-sync/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        .redirect(redirect::Policy::custom(same_origin));
    let Some(tls) = &options.tls else {
        // Without a need for them, the operating system's authorities may be absent.
        let plain = [&options.url, &options.auth.token_url].iter().all(|url| !url.starts_with("https:"));
        return Ok(if plain { builder.tls_certs_only([]) } else { builder });
    };
    let authorities = pem_file(&tls.ca_file)?;
    let authorities = Certificate::from_pem_bundle(&authorities).map_err(Error::Client)?;
    if authorities.is_empty() {
        return Err(Error::Options(vec![format!(
            "tls.ca_file: no certificate in {}",
            tls.ca_file.display()
        )]));
    }
    let builder = builder.tls_certs_only(authorities);
    let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) else { return Ok(builder) };
    let identity = [pem_file(key)?, pem_file(cert)?].join(&b'\n');
    Ok(builder.identity(Identity::from_pem(&identity).map_err(Error::Client)?))
}

fn pem_file(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Certificates { path: path.to_owned(), source })
}

/// Follows redirections to the origin that was asked only: headers would go along.
fn same_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let home = attempt.previous().first().is_none_or(|first| first.origin() == attempt.url().origin());
    if home && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.error("redirected to another origin, or too often")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    #[test]
    fn a_date_to_wait_for_is_read_by_the_clock_of_the_server() {
        let date = "Mon, 23 Nov 2026 18:00:00 GMT";
        for (asked, date, wait) in [
            ("17", None, Some(17)),
            ("Mon, 23 Nov 2026 18:00:40 GMT", Some(date), Some(40)),
            ("Mon, 23 Nov 2026 17:00:00 GMT", Some(date), None),
            ("Mon, 23 Nov 2026 18:00:40 GMT", None, None),
            ("soon", Some(date), None),
        ] {
            let mut headers = HeaderMap::from_iter([(RETRY_AFTER, asked.parse().unwrap())]);
            headers.extend(date.map(|date| (DATE, date.parse().unwrap())));
            assert_eq!(retry_after(&headers), wait.map(Duration::from_secs), "{asked}");
        }
    }
}
