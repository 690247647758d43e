//! Access tokens by OAuth 2 client credentials.

use std::time::Duration;

use oauth2::basic::{BasicClient, BasicTokenType};
use oauth2::{
    AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    RequestTokenError, Scope, TokenResponse, TokenUrl,
};
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Error;
use super::check::address;
use super::client::{Client, bearer, failed, read, retry_after};
use super::options::{Auth, ClientAuth};

/// A token is replaced this long before it expires, or in the middle of its life if that comes later.
const MARGIN: Duration = Duration::from_secs(60);
/// Most bytes of the answer that holds a token.
const MAX_ANSWER: usize = 64 << 10;

type TokenClient = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// Gets tokens and keeps the last one while it is good.
#[derive(Debug)]
pub(super) struct Tokens {
    client: TokenClient,
    http: reqwest::Client,
    what: String,
    scopes: Vec<Scope>,
    audience: String,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    bearer: HeaderValue,
    until: Option<Instant>,
}

impl Tokens {
    /// `http` must not send anything on its own account.
    pub(super) fn new(auth: &Auth, http: reqwest::Client) -> Result<Self, Error> {
        let unfit = |fault| Error::Options(vec![format!("auth.token_url: {fault}")]);
        let mut url = address(&auth.token_url).map_err(unfit)?;
        let endpoint = TokenUrl::from_url(url.clone());
        url.set_query(None);
        let secret = auth.client_secret.as_ref().map_or("", |secret| secret.expose());
        let client = BasicClient::new(ClientId::new(auth.client_id.clone()))
            .set_client_secret(ClientSecret::new(secret.to_owned()))
            .set_auth_type(match auth.client_auth {
                ClientAuth::Basic => AuthType::BasicAuth,
                ClientAuth::Body => AuthType::RequestBody,
            })
            .set_token_uri(endpoint);
        Ok(Self {
            client,
            http,
            what: format!("a token from {url}"),
            scopes: auth.scopes.iter().cloned().map(Scope::new).collect(),
            audience: auth.audience.clone(),
            held: Mutex::new(None),
        })
    }

    /// The header for a token that is good now. `words` keeps secrets out of errors.
    pub(super) async fn bearer(&self, words: &Client) -> Result<HeaderValue, Error> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.until.is_none_or(|until| Instant::now() < until))
        {
            return Ok(held.bearer.clone());
        }
        let fresh = self.fetch(words).await?;
        Ok(held.insert(fresh).bearer.clone())
    }

    /// Gives `refused` up, unless it has been replaced meanwhile.
    pub(super) async fn forget(&self, refused: Option<&HeaderValue>) {
        let mut held = self.held.lock().await;
        if held.as_ref().map(|held| &held.bearer) == refused {
            *held = None;
        }
    }

    async fn fetch(&self, words: &Client) -> Result<Held, Error> {
        let asked = Instant::now();
        let mut request = self.client.exchange_client_credentials().add_scopes(self.scopes.iter().cloned());
        if !self.audience.is_empty() {
            request = request.add_extra_param("audience", self.audience.as_str());
        }
        // It owns what it needs: a future that borrows through the closure is not known to be `Send`.
        let post = |request| post(self.http.clone(), self.what.clone(), request);
        let unfit = |fault: &str| Error::Token { what: self.what.clone(), fault: fault.to_owned() };
        let answer = request.request_async(&post).await.map_err(|error| match error {
            RequestTokenError::Request(error) => error,
            RequestTokenError::ServerResponse(said) => unfit(&words.excerpt(&said.to_string(), None)),
            RequestTokenError::Parse(..) => unfit("the answer holds no token"),
            RequestTokenError::Other(_) => unfit("the answer is empty"),
        })?;
        if *answer.token_type() != BasicTokenType::Bearer {
            return Err(unfit("the token is not a bearer token"));
        }
        let bearer =
            bearer(answer.access_token().secret()).ok_or_else(|| unfit("the token fits no header"))?;
        let until = answer.expires_in().map(|life| asked + life.saturating_sub(MARGIN).max(life / 2));
        Ok(Held { bearer, until })
    }
}

async fn post(http: reqwest::Client, what: String, request: HttpRequest) -> Result<HttpResponse, Error> {
    let request = reqwest::Request::try_from(request).map_err(|source| failed(&what, source))?;
    let mut response = http.execute(request).await.map_err(|source| failed(&what, source))?;
    let status = response.status();
    // A refusal in OAuth's own words has one of these; anything else did not come from it.
    if !matches!(status, StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
        let retry_after = retry_after(response.headers());
        return Err(Error::Status { what, status: status.as_u16(), excerpt: String::new(), retry_after });
    }
    let body = read(&what, &mut response, MAX_ANSWER).await?;
    let mut answer = HttpResponse::new(body);
    *answer.status_mut() = status;
    Ok(answer)
}
