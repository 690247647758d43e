//! How a service calls another one of ours over gRPC: the mirror image of the ports.
//!
//! A [`Client`] connects when it is first used, sends the token with every call, gives each call a deadline, and tells in
//! our words why there is no answer and which setting would change that. The typed clients of the contracts are made from
//! its [`Client::transport`]; their calls go through [`Client::call`].

mod advice;

use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::status::{ApiError, from_status};
use grey_runtime::config::duration;
use grey_runtime::{Faults, Secret, Validate, tls};
use serde::{Deserialize, Serialize};
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

/// Largest answer that clients of ours should read: a full page of the largest entries, or one upgrade with every step.
pub const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Between two probes of a connection in use, and for the answer to one.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How a service is reached, as an operator sets it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where its gRPC is.
    pub url: String,
    /// A bearer token; empty: none is sent.
    pub token: Secret,
    /// Whom to trust and what to show, for an `https` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ClientOptions>,
    /// For a connection.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// For one call, its connection included.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Options {
    /// The URL's parts, if it can be called.
    fn uri(&self) -> Result<Uri, &'static str> {
        let uri: Uri = self.url.parse().map_err(|_| "is not a URL")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("must begin with http:// or https://");
        }
        let credentials = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if credentials { Err("must not hold credentials; there is `token` for them") } else { Ok(uri) }
    }

    /// Whether the token would travel in clear to another machine.
    fn exposes_token(&self, uri: &Uri) -> bool {
        !self.token.expose().is_empty() && uri.scheme_str() == Some("http") && !is_loopback(uri)
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        if let Err(why) = self.uri() {
            faults.add("url", why);
        }
        match (&self.tls, self.url.starts_with("https://")) {
            (Some(tls), true) => faults.section("tls", tls),
            (Some(_), false) => faults.add("tls", "needs an https:// url"),
            (None, true) => faults.add("tls", "must say whom to trust (ca_file), for an https:// url"),
            (None, false) => {}
        }
        let ascii = self.token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        faults.check(ascii, "token", "must be visible ASCII");
        for (key, value) in [("connect_timeout", self.connect_timeout), ("timeout", self.timeout)] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
    }
}

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// As people call it, such as `control plane`.
    pub name: &'static str,
    /// Where its [`Options`] are in the caller's configuration, such as `control`.
    pub section: &'static str,
}

/// Why a service cannot be called as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error("use the url: it {why}")]
    Url {
        /// What is wrong.
        why: &'static str,
    },
    /// The token has bytes that no header may have.
    #[error("send the token with calls of {url}: it must be visible ASCII")]
    Token {
        /// As configured.
        url: String,
    },
    /// An encrypted connection is wanted, and nobody is trusted.
    #[error("call {url}: tls must say whom to trust (ca_file)")]
    Untrusting {
        /// As configured.
        url: String,
    },
    /// The certificates cannot be read.
    #[error("read the certificates for calls of {url}")]
    Certificates {
        /// As configured.
        url: String,
        /// What is wrong.
        source: tls::Error,
    },
    /// The certificates can be read and not used.
    #[error("use the certificates for calls of {url}")]
    Tls {
        /// As configured.
        url: String,
        /// What is wrong.
        source: tonic::transport::Error,
    },
}

/// Where calls go: what connections are made with, but not yet made.
///
/// # Errors
/// The address or the certificates cannot be used.
pub fn endpoint(options: &Options) -> Result<Endpoint, Error> {
    let url = || options.url.clone();
    let uri = options.uri().map_err(|why| Error::Url { why })?;
    let encrypted = uri.scheme_str() == Some("https");
    let endpoint = Endpoint::from(uri)
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .tcp_nodelay(true);
    match &options.tls {
        Some(tls) => {
            let config = tls.tonic().map_err(|source| Error::Certificates { url: url(), source })?;
            let config = config.timeout(options.connect_timeout);
            endpoint.tls_config(config).map_err(|source| Error::Tls { url: url(), source })
        }
        None if encrypted => Err(Error::Untrusting { url: url() }),
        None => Ok(endpoint),
    }
}

/// Sends a token with every call.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// The token of `options`; an empty one is not sent.
    ///
    /// # Errors
    /// [`Error::Token`].
    pub fn new(options: &Options) -> Result<Self, Error> {
        let token = options.token.expose();
        if token.is_empty() {
            return Ok(Self(None));
        }
        let value = MetadataValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| Error::Token { url: options.url.clone() })?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// What typed clients are made from.
pub type Transport = InterceptedService<Channel, Bearer>;

/// A connection to another service, made when it is first used and again when it is lost. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    peer: Peer,
    transport: Transport,
    timeout: Duration,
}

impl Client {
    /// A client of `peer`. A token that would travel in clear to another machine is warned of, once.
    ///
    /// # Errors
    /// The address, the token or the certificates cannot be used.
    pub fn new(peer: Peer, options: &Options) -> Result<Self, Error> {
        let endpoint = endpoint(options)?;
        if options.exposes_token(endpoint.uri()) {
            let setting = format!("{}.url", peer.section);
            tracing::warn!(peer.name = peer.name, peer.url = options.url, setting, "{EXPOSED}");
        }
        let transport = InterceptedService::new(endpoint.connect_lazy(), Bearer::new(options)?);
        Ok(Self { peer, transport, timeout: options.timeout })
    }

    /// What typed clients are made from.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport.clone()
    }

    /// Waits for the answer to a call, but not for ever. Of a stream the deadline is for its beginning; what comes of its
    /// messages, [`Client::failure`] tells.
    ///
    /// # Errors
    /// What the peer says, or [`Reason::Unavailable`] if it does not answer.
    pub async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(self.silent(&format!("no answer within {:?}; {BEGUN}", self.timeout))),
        }
    }

    /// What the peer said; or why it could not be heard, and what to do about that.
    #[must_use]
    pub fn failure(&self, status: &Status) -> ApiError {
        match std::error::Error::source(status) {
            Some(fault) => self.silent(&advice::explain(fault, self.peer.section)),
            None => from_status(status),
        }
    }

    /// A failure as the callers of this service may see it, who are not callers of the peer: what it holds against this
    /// service is not their doing, and its faults are not ours. What it holds against the caller's own role is told.
    #[must_use]
    pub fn for_callers(&self, error: ApiError) -> ApiError {
        let Peer { name, section } = self.peer;
        let reason = error.reason;
        match reason {
            Reason::Denied if error.get("principal").is_some() => error,
            Reason::Unauthenticated | Reason::Denied => {
                let setting = format!("{section}.token");
                tracing::error!(error = %error, reason = reason.as_str(), peer.name = name, setting, "this service is refused by another");
                let message =
                    format!("the {name} refuses this service's token; this service's log has the details");
                ApiError::new(Reason::Unavailable, message)
            }
            Reason::Internal => {
                tracing::warn!(error = %error, peer.name = name, "another service failed");
                ApiError::new(Reason::Unavailable, format!("the {name} failed; its log has the details"))
            }
            _ => error,
        }
    }

    fn silent(&self, why: &str) -> ApiError {
        ApiError::new(Reason::Unavailable, format!("the {} does not answer: {why}", self.peer.name))
    }
}

/// Said of tokens that anyone on the way can read.
const EXPOSED: &str = "token is sent unencrypted to another machine; use an https:// url and tls.ca_file";
/// Said where the peer may have heard the call.
const BEGUN: &str = "what was asked for may have been done";

/// Whether the same call may succeed later. A write may have been carried out all the same.
#[must_use]
pub fn is_transient(error: &ApiError) -> bool {
    matches!(error.reason, Reason::Unavailable | Reason::RateLimited | Reason::Internal)
}

/// Whether nobody listens where the call went: its machine answered, and refused the connection.
#[must_use]
pub fn was_refused(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(next) = cause {
        let refused = std::io::ErrorKind::ConnectionRefused;
        if next.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == refused) {
            return true;
        }
        cause = next.source();
    }
    false
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    fn options(url: &str) -> Options {
        let second = Duration::from_secs(1);
        let (url, token) = (url.to_owned(), Secret::new(""));
        Options { url, token, tls: None, connect_timeout: second, timeout: second }
    }

    fn tls(ca_file: &str) -> Option<tls::ClientOptions> {
        Some(tls::ClientOptions { ca_file: ca_file.into(), cert_file: None, key_file: None, domain: None })
    }

    fn faults(options: &Options) -> Vec<String> {
        let mut faults = Faults::default();
        faults.section("control", options);
        faults.found().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_unusable_setting_is_named() {
        for good in ["http://plane:7410", "http://127.0.0.1:1", "http://[::1]:1"] {
            assert!(faults(&options(good)).is_empty(), "{good}");
        }
        let encrypted = Options { tls: tls("ca.crt"), ..options("https://plane:7410") };
        assert!(faults(&encrypted).is_empty());
        for (bad, expected) in [
            (options(""), "control.url: "),
            (options("plane:7410"), "control.url: must begin with http:// or https://"),
            (options("ftp://plane"), "control.url: must begin with http:// or https://"),
            (options("http://me:secret@plane"), "control.url: must not hold credentials"),
            (options("https://plane"), "control.tls: must say whom to trust"),
            (Options { tls: tls("ca.crt"), ..options("http://plane") }, "control.tls: needs an https:// url"),
            (Options { token: Secret::new("a b"), ..options("http://plane") }, "control.token: "),
            (Options { timeout: Duration::ZERO, ..options("http://plane") }, "control.timeout: "),
            (
                Options { connect_timeout: Duration::ZERO, ..options("http://plane") },
                "control.connect_timeout: ",
            ),
        ] {
            let found = faults(&bad);
            assert!(matches!(found.as_slice(), [fault] if fault.starts_with(expected)), "{found:?}");
        }
    }

    #[test]
    fn what_cannot_be_called_is_refused_before_any_call() {
        let refused = |options: &Options| endpoint(options).unwrap_err();
        assert!(matches!(refused(&options("https://plane")), Error::Untrusting { .. }));
        assert!(matches!(refused(&options("plane")), Error::Url { .. }));
        let absent = Options { tls: tls("/nowhere/ca.crt"), ..options("https://plane") };
        assert!(matches!(refused(&absent), Error::Certificates { .. }));
        let bad = Options { token: Secret::new("a\nb"), ..options("http://plane") };
        let error = Bearer::new(&bad).unwrap_err();
        assert!(!error.to_string().contains("a\nb"), "{error}");
    }

    #[test]
    fn only_tokens_to_other_machines_in_clear_are_exposed() {
        let exposed = |url: &str, token: &str| {
            let options = Options { token: Secret::new(token), ..options(url) };
            options.exposes_token(&options.uri().unwrap())
        };
        assert!(exposed("http://plane:7410", "t") && exposed("http://10.0.0.1", "t"));
        assert!(exposed("http://localhost.example", "t") && exposed("http://[2001:db8::1]", "t"));
        for safe in ["https://plane", "http://localhost:1", "http://127.0.0.2:1", "http://[::1]:1"] {
            assert!(!exposed(safe, "t"), "{safe}");
        }
        assert!(!exposed("http://plane:7410", ""));
    }

    #[test]
    fn refusals_are_final_and_absences_are_not() {
        let again = |reason| is_transient(&ApiError::new(reason, ""));
        assert!(again(Reason::Unavailable) && again(Reason::RateLimited) && again(Reason::Internal));
        assert!(!again(Reason::Denied) && !again(Reason::RevisionMismatch) && !again(Reason::UnknownTenant));
    }
}
