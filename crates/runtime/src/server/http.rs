//! HTTP/1.1 and HTTP/2 on one port, on the caller's runtime: admin endpoints, REST, and gRPC of the control plane
//! (`tonic::service::Routes::into_axum_router`).

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    CONNECTION_WINDOW, STREAM_WINDOW, browser,
    connection::{
        Accepted, Arriving, Bounded, Bounds, Connections, Counted, Drain, Flight, Slot, accept, close,
    },
};
use crate::{
    access,
    config::{Faults, Validate},
    tls,
};

/// What one client, or all of them together, may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections; beyond them the oldest one makes room on which nothing is under way, a request whose body is
    /// still to come included, and while there is none, newcomers are closed at once.
    pub max_connections: usize,
    /// HTTP/2 calls in flight on one connection.
    pub max_concurrent_streams: u32,
    /// Size of all headers of one request in bytes.
    pub max_header_bytes: u32,
    /// For a TLS handshake, for the first bytes after it, and for the headers of an HTTP/1.1 request.
    #[serde(with = "crate::config::duration")]
    pub header_timeout: Duration,
    /// For the body of a request, from when it is waited for.
    #[serde(with = "crate::config::duration")]
    pub body_timeout: Duration,
    /// For a client to take some of what it is sent.
    #[serde(with = "crate::config::duration")]
    pub write_timeout: Duration,
    /// Silence after which an HTTP/2 client is asked whether it is still there, and how long it has to answer.
    #[serde(with = "crate::config::duration")]
    pub keepalive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_concurrent_streams: 256,
            max_header_bytes: 32 << 10,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(20),
            keepalive: Duration::from_secs(20),
        }
    }
}

impl Validate for Limits {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.max_connections > 0, "max_connections", "must be at least 1");
        faults.check(self.max_concurrent_streams > 0, "max_concurrent_streams", "must be at least 1");
        // hyper's smallest buffer for HTTP/1.1.
        faults.check(self.max_header_bytes >= 8192, "max_header_bytes", "must be at least 8192");
        faults.check(!self.header_timeout.is_zero(), "header_timeout", "must be longer than nothing");
        faults.check(!self.body_timeout.is_zero(), "body_timeout", "must be longer than nothing");
        faults.check(!self.write_timeout.is_zero(), "write_timeout", "must be longer than nothing");
        faults.check(!self.keepalive.is_zero(), "keepalive", "must be longer than nothing");
    }
}

/// Bound and listening, not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    limits: Limits,
    pages: Option<Pages>,
}

/// Browsers are not trusted to be their users.
#[derive(Debug, Clone, Copy)]
struct Pages {
    /// Whether the port can be reached on this machine alone.
    is_local: bool,
}

impl Server {
    /// Opens the port.
    ///
    /// # Errors
    /// The address is taken or not ours to use.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        Ok(Self { listener, local_addr, limits: Limits::default(), pages: None })
    }

    /// Replaces the default limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Refuses what pages of others make browsers send, if callers need no token.
    #[must_use]
    pub fn with_access(mut self, access: &access::Options) -> Self {
        let is_local = self.local_addr.ip().is_loopback();
        self.pages = access.serves_anonymous(self.local_addr).then_some(Pages { is_local });
        self
    }

    /// The address that clients can reach, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `draining` is cancelled and then until the last request has ended, at most for `grace`. True if
    /// all requests ended in time; the others are cut off.
    ///
    /// Handlers find the client's address in `ConnectInfo<SocketAddr>`. `tls` is loaded for
    /// [`Alpn::H2AndHttp1`](tls::Alpn::H2AndHttp1).
    pub async fn serve(
        self,
        router: Router,
        tls: Option<tls::Acceptor>,
        draining: CancellationToken,
        grace: Duration,
    ) -> bool {
        let connections = Connections::new(self.limits.max_connections);
        let bounds = Bounds { first: self.limits.header_timeout, write: self.limits.write_timeout };
        let (builder, body_within, pages) = (builder(&self.limits), self.limits.body_timeout, self.pages);
        let shared = Arc::new(Shared { builder, tls, bounds, body_within, pages });
        let (drain, tasks, cut_off) = (Drain::new(), TaskTracker::new(), CancellationToken::new());
        // Also when this future is dropped: connections must not outlive their server.
        let cut_off_guard = cut_off.clone().drop_guard();
        let start = |accepted: Accepted| {
            let Accepted { stream, peer, slot } = accepted;
            let connection =
                Connection { shared: Arc::clone(&shared), drain: drain.clone(), peer, slot: slot.clone() };
            let served = Box::pin(connection.serve(stream, router.clone()));
            let cut_off = cut_off.clone();
            tasks.spawn(async move {
                tokio::select! {
                    // Whether it was cut off shows in the result of the whole.
                    _ = cut_off.run_until_cancelled(served) => {}
                    () = slot.evicted() => {
                        tracing::debug!(client.address = %peer, "idle connection made room for another");
                    }
                }
            });
        };
        loop {
            tokio::select! {
                accepted = accept(&self.listener, &connections) => start(accepted),
                () = draining.cancelled() => break,
            }
        }
        close(self.listener, &connections).into_iter().for_each(start);
        drain.begin();
        tasks.close();
        let drained = timeout(grace, tasks.wait()).await.is_ok();
        drop(cut_off_guard);
        tasks.wait().await;
        drained
    }
}

fn refuse(request: &Request<Incoming>, pages: Pages) -> Option<Response<Body>> {
    let refused = browser::check(request.uri(), request.headers(), pages.is_local).err()?;
    tracing::warn!(request.path = request.uri().path(), why = ?refused, "refused a request of a page of another origin");
    let mut response = Response::new(Body::from(refused.body()));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(response)
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let max_header_bytes = usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(max_header_bytes)
        .http2()
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_bytes)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.keepalive);
    builder
}

/// What all connections of a server have in common.
struct Shared {
    builder: auto::Builder<TokioExecutor>,
    tls: Option<tls::Acceptor>,
    bounds: Bounds,
    body_within: Duration,
    pages: Option<Pages>,
}

struct Connection {
    shared: Arc<Shared>,
    drain: Drain,
    peer: SocketAddr,
    slot: Slot,
}

impl Connection {
    async fn serve(self, stream: TcpStream, router: Router) {
        let Some(acceptor) = &self.shared.tls else { return self.serve_http(stream, router).await };
        match timeout(self.shared.bounds.first, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream, router).await,
            Ok(Err(error)) => {
                tracing::debug!(error = %error, client.address = %self.peer, "TLS handshake failed");
            }
            Err(_) => tracing::debug!(client.address = %self.peer, "TLS handshake timed out"),
        }
    }

    async fn serve_http<I>(&self, stream: I, router: Router)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(Bounded::new(stream, self.shared.bounds, self.drain.clone()));
        let (peer, slot) = (self.peer, self.slot.clone());
        let (pages, body_within) = (self.shared.pages, self.shared.body_within);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let refused = pages.and_then(|pages| refuse(&request, pages));
            let (flight, router) = (Flight::new(slot.clone()), router.clone());
            let request = request.map(|body| Arriving::new(body, flight.clone(), body_within));
            async move {
                let answer: Response<Body> = match refused {
                    Some(refused) => refused,
                    None => router.oneshot(request).await?,
                };
                Ok::<_, Infallible>(answer.map(|body| Counted::new(body, flight)))
            }
        });
        let connection = self.shared.builder.serve_connection_with_upgrades(stream, service).into_owned();
        if let Err(error) = self.drain.run(connection).await {
            tracing::debug!(error = &*error, client.address = %peer, "connection ended with an error");
        }
    }
}
