//! Asks an instance itself whether it is there, where a registry's word alone is not believed.
//!
//! A probe connects, at most sends one request for a header, and is over: it follows no redirect, reads no body and
//! honours no proxy.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate};
use http::header::{HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderName, Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Most addresses of one host name that are tried.
const MAX_ADDRESSES: usize = 8;
/// Most bytes of a response's head.
const MAX_HEAD: usize = 16 * 1024;
/// Longest version that is taken from a header, in bytes.
const MAX_VERSION: usize = 64;

/// How instances are probed.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What counts as an answer.
    pub mode: Mode,
    /// What is asked for over HTTP.
    pub path: String,
    /// For one probe as a whole: looking up the name, connecting, and the answer.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Probes under way at the same time.
    pub concurrency: usize,
    /// How often an instance in question is probed.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// The header in which an instance tells its version over HTTP; none: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_header: Option<String>,
}

/// What counts as an answer of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A connection.
    Tcp,
    /// A response to a GET request that is no error.
    Http,
    /// Nothing: instances are not probed.
    None,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Tcp,
            path: "/health".to_owned(),
            timeout: Duration::from_secs(1),
            concurrency: 64,
            interval: Duration::from_secs(2),
            version_header: None,
        }
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        faults.check(path_of(&self.path).is_some(), "path", "must be a path such as /health");
        for (key, value) in [("timeout", self.timeout), ("interval", self.interval)] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
        faults.check((1..=1024).contains(&self.concurrency), "concurrency", "must be between 1 and 1024");
        if let Some(name) = &self.version_header {
            faults.check(
                name.parse::<HeaderName>().is_ok(),
                "version_header",
                "must be the name of a header",
            );
            faults.check(self.mode == Mode::Http, "version_header", "needs mode = \"http\"");
        }
    }
}

fn path_of(text: &str) -> Option<PathAndQuery> {
    text.starts_with('/').then(|| text.parse().ok()).flatten()
}

/// What a probe found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It answered.
    Alive {
        /// The version that it told.
        version: Option<String>,
    },
    /// Its host says that nothing listens there.
    Refused,
    /// Neither: no answer in time, an error, a network or a name that does not lead there.
    Unknown,
}

/// Probes instances; clones share the bound on probes under way.
#[derive(Debug, Clone)]
pub struct Prober {
    mode: Mode,
    path: Option<PathAndQuery>,
    timeout: Duration,
    version_header: Option<HeaderName>,
    permits: Arc<Semaphore>,
}

impl Prober {
    /// Probes as `options` say, which are taken as valid: a path or header that is not is never answered.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            mode: options.mode,
            path: path_of(&options.path),
            timeout: options.timeout,
            version_header: options.version_header.as_ref().and_then(|name| name.parse().ok()),
            permits: Arc::new(Semaphore::new(options.concurrency)),
        }
    }

    /// Probes the instance at `address`, a `host:port`. Waits for its turn, then for at most the configured timeout.
    pub async fn probe(&self, address: &str) -> Verdict {
        if self.mode == Mode::None {
            return Verdict::Unknown;
        }
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        timeout(self.timeout, self.ask(address)).await.unwrap_or(Verdict::Unknown)
    }

    async fn ask(&self, address: &str) -> Verdict {
        match (connect(address).await, self.mode) {
            (Connected::Refused, _) => Verdict::Refused,
            (Connected::Failed, _) | (_, Mode::None) => Verdict::Unknown,
            (Connected::To(_), Mode::Tcp) => Verdict::Alive { version: None },
            (Connected::To(stream), Mode::Http) => {
                self.request(stream, address).await.unwrap_or(Verdict::Unknown)
            }
        }
    }

    /// Nothing if no response came.
    async fn request(&self, stream: TcpStream, address: &str) -> Option<Verdict> {
        let request = Request::get(self.path.clone()?.as_str())
            .header(HOST, address)
            .header(USER_AGENT, concat!("grey-registry-sync/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .ok()?;
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.ok()?;
        let mut answer = pin!(sender.send_request(request));
        // The connection is dropped with the response: what else comes stays unread.
        let response = tokio::select! {
            response = &mut answer => response,
            // It may have ended with the response.
            _ = connection => answer.await,
        }
        .ok()?;
        let status = response.status();
        let alive = status.is_success() || status.is_redirection();
        Some(if alive { Verdict::Alive { version: self.version(&response) } } else { Verdict::Unknown })
    }

    fn version(&self, response: &Response<Incoming>) -> Option<String> {
        let text = response.headers().get(self.version_header.as_ref()?)?.to_str().ok()?.trim();
        (!text.is_empty() && text.len() <= MAX_VERSION).then(|| text.to_owned())
    }
}

enum Connected {
    To(TcpStream),
    Refused,
    Failed,
}

/// A host with several addresses refuses only if every one of them does.
async fn connect(address: &str) -> Connected {
    let Ok(found) = lookup_host(address).await else { return Connected::Failed };
    let addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
    let mut refused = 0;
    for address in &addresses {
        match TcpStream::connect(address).await {
            // A free port of this host may be given to the connecting side itself, which then meets itself.
            Ok(stream) if stream.local_addr().is_ok_and(|own| own == *address) => refused += 1,
            Ok(stream) => return Connected::To(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused += 1,
            Err(_) => {}
        }
    }
    if refused > 0 && refused == addresses.len() { Connected::Refused } else { Connected::Failed }
}
