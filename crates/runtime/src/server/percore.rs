//! The data-plane server: per core one listener, one single-threaded runtime, plain hyper HTTP/2.
//!
//! No work stealing, no layer of its own around a call: the kernel spreads connections over the listeners of one shared
//! port, and a call stays on the thread that read it.

use std::{
    cell::OnceCell,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use http::{Request, Response};
use hyper::{
    body::{Body, Bytes, Incoming},
    server::conn::http2,
    service::Service,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime,
    sync::oneshot,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CONNECTION_WINDOW, Options, STREAM_WINDOW,
    connection::{Accepted, Bounded, Bounds, Connections, Drain, InFlight, Slot, accept, close},
};
use crate::shutdown::panic_message;

/// Connections that wait to be accepted, per thread; the kernel may allow fewer.
const BACKLOG: i32 = 4096;

/// Why the body of an answer broke off.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Bound and listening, not yet serving.
#[derive(Debug)]
pub struct PerCore {
    listeners: Vec<TcpListener>,
    local_addr: SocketAddr,
}

/// A serving [`PerCore`].
#[derive(Debug)]
pub struct PerCoreHandle {
    threads: Vec<oneshot::Receiver<bool>>,
    connections: Connections,
    local_addr: SocketAddr,
}

impl PerCore {
    /// Opens one listener per thread on one port, also if `addr` asks for any free port; 0 threads: one per available
    /// core.
    ///
    /// # Errors
    /// The address is taken, also by another process that shares its port in the same way, or not ours to use.
    pub fn bind(addr: SocketAddr, threads: usize) -> io::Result<Self> {
        let threads = match threads {
            0 => thread::available_parallelism()?.get(),
            threads => threads,
        };
        // A shared port would silently be shared with another process of this user as well, so try it alone first.
        let probe = socket(addr)?;
        probe.bind(&addr.into())?;
        drop(probe);
        let first = listen(addr)?;
        let local_addr = first.local_addr()?;
        let mut listeners = vec![first];
        for _ in 1..threads {
            listeners.push(listen(local_addr)?);
        }
        Ok(Self { listeners, local_addr })
    }

    /// The address that clients can reach, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How many threads will serve.
    pub fn threads(&self) -> usize {
        self.listeners.len()
    }

    /// Starts the threads; each calls `make_service` with its number, inside its runtime, and clones the result for each
    /// connection. When `draining` is cancelled the server drains; a thread that panics cancels it.
    ///
    /// # Errors
    /// A thread or its runtime cannot be started; those already started drain.
    pub fn serve<S, F, B>(
        self,
        options: Options,
        make_service: F,
        draining: CancellationToken,
    ) -> io::Result<PerCoreHandle>
    where
        F: Fn(usize) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Fault>,
    {
        let connections = Connections::new(options.max_connections);
        let (options, make_service) = (Arc::new(options), Arc::new(make_service));
        let mut threads = Vec::with_capacity(self.listeners.len());
        let (token, abandon) = (draining.clone(), draining.drop_guard());
        for (number, listener) in self.listeners.into_iter().enumerate() {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .event_interval(options.event_interval)
                .global_queue_interval(options.global_queue_interval)
                .build()?;
            let worker = Worker {
                options: Arc::clone(&options),
                connections: connections.clone(),
                draining: token.clone(),
            };
            let make_service = Arc::clone(&make_service);
            let (ended, thread_ended) = oneshot::channel();
            let work = move || {
                let served = catch_unwind(AssertUnwindSafe(|| {
                    runtime.block_on(async { worker.run(listener, make_service(number)).await })
                }));
                let drained = served.unwrap_or_else(|panic| {
                    tracing::error!(
                        thread.number = number,
                        panic.message = panic_message(&*panic),
                        "server thread panicked, draining"
                    );
                    Ok(false)
                });
                let drained = drained.unwrap_or_else(|error| {
                    tracing::error!(thread.number = number, error = %error, "server thread cannot listen, draining");
                    false
                });
                // Calls that outlived the grace end here, with their runtime.
                drop(runtime);
                worker.draining.cancel();
                // Fails only if nobody waits.
                ended.send(drained).ok();
            };
            thread::Builder::new().name(format!("data-{number}")).spawn(work)?;
            threads.push(thread_ended);
        }
        abandon.disarm();
        Ok(PerCoreHandle { threads, connections, local_addr: self.local_addr })
    }
}

impl PerCoreHandle {
    /// The address that clients can reach.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections open now, over all threads.
    pub fn connections(&self) -> usize {
        self.connections.open()
    }

    /// Waits until all threads have ended: true if every call finished within the grace.
    pub async fn wait(self) -> bool {
        let mut drained = true;
        for thread in self.threads {
            drained &= thread.await.unwrap_or(false);
        }
        drained
    }
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One thread's part of the server.
struct Worker {
    options: Arc<Options>,
    connections: Connections,
    draining: CancellationToken,
}

impl Worker {
    async fn run<S, B>(&self, listener: TcpListener, service: S) -> io::Result<bool>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Fault>,
    {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (http2, drain, tasks) = (builder(&self.options), Drain::new(), TaskTracker::new());
        let start = |accepted: Accepted| {
            let Accepted { stream, slot, peer } = accepted;
            let connection =
                Connection { options: Arc::clone(&self.options), drain: drain.clone(), slot: slot.clone() };
            let served = connection.serve(stream, http2.clone(), service.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = served => {}
                    () = slot.evicted() => {
                        tracing::debug!(client.address = %peer, "connection without a call made room for another");
                    }
                }
            });
        };
        loop {
            tokio::select! {
                accepted = accept(&listener, &self.connections) => start(accepted),
                () = self.draining.cancelled() => break,
            }
        }
        close(listener, &self.connections).into_iter().for_each(start);
        drain.begin();
        tasks.close();
        Ok(timeout(self.options.drain_grace, tasks.wait()).await.is_ok())
    }
}

fn builder(options: &Options) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_header_list_size(options.max_header_list_bytes)
        .max_send_buf_size(options.max_send_buffer_bytes)
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        // gRPC has no use for it.
        .auto_date_header(false);
    http2
}

struct Connection {
    options: Arc<Options>,
    drain: Drain,
    slot: Slot,
}

impl Connection {
    async fn serve<S, B>(self, stream: TcpStream, http2: http2::Builder<TokioExecutor>, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Fault>,
    {
        let Some(acceptor) = &self.options.tls else {
            return self.serve_http2(stream, &http2, service).await;
        };
        match timeout(self.options.handshake_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http2(stream, &http2, service).await,
            Ok(Err(error)) => tracing::debug!(error = %error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake timed out"),
        }
    }

    async fn serve_http2<S, B, I>(&self, stream: I, http2: &http2::Builder<TokioExecutor>, service: S)
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Fault>,
    {
        let bounds = Bounds { first: self.options.handshake_timeout, write: self.options.write_timeout };
        let stream = TokioIo::new(Bounded::new(stream, bounds, self.drain.clone()));
        let service = InUse { service, slot: self.slot.clone(), in_use: OnceCell::new() };
        let connection = http2.serve_connection(stream, service);
        if let Err(error) = self.drain.run(connection).await {
            tracing::debug!(error = %error, "connection ended with an error");
        }
    }
}

/// A service whose connection makes no room for others once it was called: clients keep idle connections for long.
struct InUse<S> {
    service: S,
    slot: Slot,
    in_use: OnceCell<InFlight>,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for InUse<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> S::Future {
        self.in_use.get_or_init(|| self.slot.begin());
        self.service.call(request)
    }
}
