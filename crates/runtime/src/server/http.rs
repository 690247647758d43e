//! HTTP/1.1 and HTTP/2 on one port, on the caller's runtime: admin endpoints, REST, and gRPC of the control plane
//! (`tonic::service::Routes::into_axum_router`).

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{
    Extensions, HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
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
use tonic::Status;
use tower::ServiceExt;

use super::{
    Budget, Counting, Pages, Purpose, Requests, STREAM_WINDOW, Sent, UnderWay, check_room,
    connection::{Accepted, Answer, Arriving, Bounded, Bounds, Connections, Door, Drain, Flight, Slot},
};
use crate::{
    access,
    config::{Faults, Validate},
    tls,
};

/// What a client is told whose body is too much now, in the form of every error of the API.
const OVER_BUDGET: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","reason":"RATE_LIMITED","message":"too many bytes of requests are under way; retry later","metadata":{}}}"#;

/// Bytes of an answer that wait for the client's window, at most.
const SEND_BUFFER: usize = 64 << 10;

/// What one client, or all of them together, may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections; beyond them one makes room on which nothing is under way, a request whose body is still to come
    /// included; else one whose client leaves an answer waiting, else one that asked and took nothing for a second. While there is
    /// none, newcomers wait, and are closed after a second.
    pub max_connections: usize,
    /// HTTP/2 calls in flight on one connection.
    pub max_concurrent_streams: u32,
    /// Requests under way, of all connections together, until the last of their answers was handed to
    /// their connections, which hold it until it is taken; checks of health do not count.
    /// What is more is refused.
    pub max_requests: usize,
    /// Size of all headers of one request in bytes.
    pub max_header_bytes: u32,
    /// Bytes that an HTTP/2 connection may send before what it sent is read.
    pub connection_window_bytes: u32,
    /// Bytes of bodies that have come and are not answered, of all connections together; one may hold a quarter of them.
    /// What is more is refused, unless bodies that come too slowly can make room. A byte costs up to 2.7 of memory: what reads
    /// a message has a copy of it that grows.
    pub body_budget_bytes: usize,
    /// For a TLS handshake, for the first bytes after it, and for the headers of an HTTP/1.1 request.
    #[serde(with = "crate::config::duration")]
    pub header_timeout: Duration,
    /// For the body of a request, from when it is waited for.
    #[serde(with = "crate::config::duration")]
    pub body_timeout: Duration,
    /// For a client to take all that waits of its answers, or 64 KiB of it; where more than 16 MiB wait at the port, it must
    /// take them at that rate after a second. And for any byte of what the connection has no room for.
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
            max_requests: 16_384,
            max_header_bytes: 32 << 10,
            connection_window_bytes: 64 << 10,
            body_budget_bytes: 64 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(20),
            keepalive: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// Notes a fault of these limits, those of the section `section`, unless a body of `bytes` fits that `allowed_by` lets
    /// a client send.
    pub fn check_body(&self, faults: &mut Faults, section: &str, bytes: usize, allowed_by: &str) {
        let key = format!("{section}.body_budget_bytes");
        super::check_body(faults, &key, self.body_budget_bytes, bytes, allowed_by);
    }
}

impl Validate for Limits {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.max_connections > 0, "max_connections", "must be at least 1");
        faults.check(self.max_requests > 0, "max_requests", "must be at least 1");
        faults.check(self.max_concurrent_streams > 0, "max_concurrent_streams", "must be at least 1");
        // hyper's smallest buffer for HTTP/1.1.
        faults.check(self.max_header_bytes >= 8192, "max_header_bytes", "must be at least 8192");
        check_room(faults, self.connection_window_bytes, self.body_budget_bytes);
        faults.check(!self.header_timeout.is_zero(), "header_timeout", "must be longer than nothing");
        faults.check(!self.body_timeout.is_zero(), "body_timeout", "must be longer than nothing");
        faults.check(!self.write_timeout.is_zero(), "write_timeout", "must be longer than nothing");
        faults.check(!self.keepalive.is_zero(), "keepalive", "must be longer than nothing");
    }
}

/// Who sent a request that a [`Server`] received.
#[must_use]
pub fn client_of(extensions: &Extensions) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(peer)| peer.ip())
}

/// Bound and listening, not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    limits: Limits,
    pages: Option<Pages>,
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
        self.pages = Pages::of(access, self.local_addr);
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
        let mut door = Door::new(self.listener, connections, self.limits.write_timeout);
        let bounds = Bounds { first: self.limits.header_timeout, write: self.limits.write_timeout };
        let (builder, body_within, pages) = (builder(&self.limits), self.limits.body_timeout, self.pages);
        let budget = Budget::new(self.limits.body_budget_bytes);
        let (health, open) = (Budget::open(), Budget::open());
        let requests = Requests::new(self.limits.max_requests);
        let shared = Shared { builder, tls, bounds, body_within, budget, health, open, requests, pages };
        let shared = Arc::new(shared);
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
                    () = slot.ended() => {
                        tracing::debug!(client.address = %peer, "connection ended: others need the room, or answers not taken");
                    }
                }
            });
        };
        loop {
            tokio::select! {
                accepted = door.next() => start(accepted),
                () = draining.cancelled() => break,
            }
        }
        door.close().into_iter().for_each(start);
        drain.begin();
        tasks.close();
        let drained = timeout(grace, tasks.wait()).await.is_ok();
        drop(cut_off_guard);
        tasks.wait().await;
        drained
    }
}

fn refuse(request: &Request<Incoming>, pages: Pages) -> Option<Response<Body>> {
    let refused = pages.check(request.uri(), request.headers()).err()?;
    Some(match is_grpc(request.headers()) {
        true => Status::permission_denied(refused.to_string()).into_http(),
        false => refusal(StatusCode::FORBIDDEN, refused.body()),
    })
}

/// What a request is answered for which there is no room.
fn no_room(why: &dyn std::error::Error, is_grpc: bool) -> Response<Body> {
    if is_grpc {
        return Status::resource_exhausted(why.to_string()).into_http();
    }
    let body = format!(
        r#"{{"error":{{"code":503,"status":"UNAVAILABLE","reason":"UNAVAILABLE","message":"{why}","metadata":{{}}}}}}"#
    );
    later(refusal(StatusCode::SERVICE_UNAVAILABLE, body))
}

/// What a request is answered that was too much. What gRPC makes of its broken body says so itself.
fn over_budget(answer: Response<Body>) -> Response<Body> {
    if is_grpc(answer.headers()) {
        return answer;
    }
    later(refusal(StatusCode::TOO_MANY_REQUESTS, OVER_BUDGET))
}

fn later(mut refused: Response<Body>) -> Response<Body> {
    refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    refused
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn refusal(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
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
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_bytes)
        .max_send_buf_size(SEND_BUFFER)
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
    budget: Budget,
    /// What checks of health may hold.
    health: Budget,
    /// What other requests may hold that nobody known need have sent.
    open: Budget,
    requests: Requests,
    pages: Option<Pages>,
}

/// A request that was let in.
struct Begun {
    counting: Counting,
    /// None if it does not count.
    under_way: Option<UnderWay>,
}

impl Shared {
    /// Lets in a request of a connection that may hold `budget`, or answers it.
    fn begin(&self, request: &Request<Incoming>, budget: &Budget) -> Result<Begun, Response<Body>> {
        if let Some(refused) = self.pages.and_then(|pages| refuse(request, pages)) {
            return Err(refused);
        }
        let (is_grpc, purpose) = (is_grpc(request.headers()), Purpose::of(request.uri().path()));
        let share = match purpose {
            Purpose::Health => self.health.share(),
            Purpose::Open => self.open.share(),
            Purpose::Service => budget.share(),
        };
        if purpose != Purpose::Service {
            share.count_open().map_err(|over| no_room(&over, is_grpc))?;
        }
        let under_way = match purpose {
            Purpose::Health => None,
            _ => Some(self.requests.begin().map_err(|many| no_room(&many, is_grpc))?),
        };
        Ok(Begun { counting: Counting::new(share, is_grpc), under_way })
    }
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
        match Bounded::greeted(stream, self.shared.bounds, &self.drain).await {
            // Apart, so that who has not said anything yet costs little.
            Ok(stream) => Box::pin(self.serve_greeted(stream, router)).await,
            Err(error) => {
                tracing::debug!(error = %error, client.address = %self.peer, "connection ended before its first request");
            }
        }
    }

    async fn serve_greeted<I>(&self, stream: Bounded<I>, router: Router)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (peer, slot) = (self.peer, self.slot.clone());
        let (shared, budget) = (Arc::clone(&self.shared), self.shared.budget.part());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let (flight, router) = (Flight::new(slot.clone()), router.clone());
            let (begun, body_within) = (shared.begin(&request, &budget), shared.body_within);
            async move {
                let Begun { counting, under_way } = match begun {
                    Ok(begun) => begun,
                    Err(refused) => {
                        return Ok(refused.map(|body| Answer::new(Sent::new(body, None), flight.answered())));
                    }
                };
                let share = counting.share();
                let request = request.map(|body| Arriving::new(body, flight.clone(), counting, body_within));
                let answer = router.oneshot(request).await?;
                share.answered();
                let answer = if share.is_refused() { over_budget(answer) } else { answer };
                let answered = |body| Answer::new(Sent::new(body, under_way), flight.answered());
                Ok::<_, Infallible>(answer.map(answered))
            }
        });
        let connection =
            self.shared.builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        if let Err(error) = self.drain.run(connection).await {
            tracing::debug!(error = &*error, client.address = %peer, "connection ended with an error");
        }
    }
}
