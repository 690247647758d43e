//! The data-plane server: per core one single-threaded runtime, plain hyper HTTP/2.
//!
//! No work stealing, no layer of its own around a call: one thread accepts and deals each connection to the thread that
//! serves the fewest, and a call stays on the thread that read it.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use futures::TryFutureExt as _;
use http::{Request, Response};
use hyper::{
    body::{Body, Bytes, Incoming},
    server::conn::http2,
    service::{Service, service_fn},
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
    Options, STREAM_WINDOW,
    connection::{Accepted, Answer, Bounded, Bounds, Connections, Dealer, Door, Drain, Hand, Slot},
};
use crate::shutdown::panic_message;

/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: i32 = 4096;

/// Why the body of an answer broke off.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Bound and listening, not yet serving.
#[derive(Debug)]
pub struct PerCore {
    listener: TcpListener,
    threads: usize,
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
    /// Opens the port, to be served by `threads`; 0: one per available core.
    ///
    /// # Errors
    /// The address is taken or not ours to use.
    pub fn bind(addr: SocketAddr, threads: usize) -> io::Result<Self> {
        let threads = match threads {
            0 => thread::available_parallelism()?.get(),
            threads => threads,
        };
        let listener = listen(addr)?;
        let local_addr = listener.local_addr()?;
        Ok(Self { listener, threads, local_addr })
    }

    /// The address that clients can reach, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How many threads will serve.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Starts the threads; each calls `make_thread` with its number, inside its runtime, and what that returns with each
    /// client's address, for the service of its connection. When `draining` is cancelled the server drains; a thread that
    /// panics cancels it.
    ///
    /// # Errors
    /// A thread or its runtime cannot be started; those already started drain.
    pub fn serve<F, C, S, B>(
        self,
        options: Options,
        make_thread: F,
        draining: CancellationToken,
    ) -> io::Result<PerCoreHandle>
    where
        F: Fn(usize) -> C + Send + Sync + 'static,
        C: Fn(SocketAddr) -> S + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Fault>,
    {
        let (connections, within) = (Connections::new(options.max_connections), options.write_timeout);
        let (options, make_thread) = (Arc::new(options), Arc::new(make_thread));
        let mut threads = Vec::with_capacity(self.threads + 1);
        let (token, abandon) = (draining.clone(), draining.drop_guard());
        let (dealer, hands) = Dealer::new(self.threads);
        for (number, mut hand) in hands.into_iter().enumerate() {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .event_interval(options.event_interval)
                .global_queue_interval(options.global_queue_interval)
                .build()?;
            let worker = Worker { options: Arc::clone(&options) };
            let make_thread = Arc::clone(&make_thread);
            let work = async move || Ok(worker.run(&mut hand, make_thread(number)).await);
            threads.push(spawn(format!("data-{number}"), runtime, work, token.clone())?);
        }
        // Last, so that nothing is accepted unless everyone is there to serve.
        let acceptor = Acceptor { listener: self.listener, connections: connections.clone(), within, dealer };
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let until = token.clone();
        threads.push(spawn(
            "data-accept".to_owned(),
            runtime,
            async move || acceptor.run(until).await,
            token,
        )?);
        abandon.disarm();
        Ok(PerCoreHandle { threads, connections, local_addr: self.local_addr })
    }
}

/// Starts a thread that does `work` on its runtime, and tells whether it drained. However it ends, the others drain.
fn spawn<W>(
    name: String,
    runtime: runtime::Runtime,
    work: W,
    draining: CancellationToken,
) -> io::Result<oneshot::Receiver<bool>>
where
    W: AsyncFnOnce() -> io::Result<bool> + Send + 'static,
{
    let (ended, thread_ended) = oneshot::channel();
    let thread_name = name.clone();
    let run = move || {
        let served = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work())));
        let drained = served.unwrap_or_else(|panic| {
            tracing::error!(
                thread.name = thread_name,
                panic.message = panic_message(&*panic),
                "server thread panicked, draining"
            );
            Ok(false)
        });
        let drained = drained.unwrap_or_else(|error| {
            tracing::error!(thread.name = thread_name, error = %error, "server thread cannot listen, draining");
            false
        });
        // Calls that outlived the grace end here, with their runtime.
        drop(runtime);
        draining.cancel();
        // Fails only if nobody waits.
        ended.send(drained).ok();
    };
    thread::Builder::new().name(name).spawn(run)?;
    Ok(thread_ended)
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

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Lets connections in and deals them out.
struct Acceptor {
    listener: TcpListener,
    connections: Connections,
    /// For clients to take their answers.
    within: Duration,
    dealer: Dealer,
}

impl Acceptor {
    /// Until the drain begins; the threads then learn of it by the end of what is dealt, and serve that first.
    async fn run(self, draining: CancellationToken) -> io::Result<bool> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let mut door = Door::new(listener, self.connections, self.within);
        loop {
            tokio::select! {
                accepted = door.next() => self.dealer.deal(accepted),
                () = draining.cancelled() => break,
            }
        }
        door.close().into_iter().for_each(|accepted| self.dealer.deal(accepted));
        Ok(true)
    }
}

/// One thread's part of the server.
struct Worker {
    options: Arc<Options>,
}

impl Worker {
    async fn run<C, S, B>(&self, hand: &mut Hand, connect: C) -> bool
    where
        C: Fn(SocketAddr) -> S,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Fault>,
    {
        let (http2, drain, tasks) = (builder(&self.options), Drain::new(), TaskTracker::new());
        while let Some((Accepted { stream, slot, peer }, dealt)) = hand.next().await {
            let connection =
                Connection { options: Arc::clone(&self.options), drain: drain.clone(), slot: slot.clone() };
            let served = connection.serve(stream, http2.clone(), connect(peer));
            tasks.spawn(async move {
                tokio::select! {
                    () = served => {}
                    () = slot.ended() => {
                        tracing::debug!(client.address = %peer, "connection ended: others need the room, or answers not taken");
                    }
                }
                drop(dealt);
            });
        }
        drain.begin();
        tasks.close();
        timeout(self.options.drain_grace, tasks.wait()).await.is_ok()
    }
}

fn builder(options: &Options) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(options.connection_window_bytes)
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
        B: Body<Data = Bytes> + Send + Unpin + 'static,
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
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Fault>,
    {
        let bounds = Bounds { first: self.options.handshake_timeout, write: self.options.write_timeout };
        match Bounded::greeted(stream, bounds, &self.drain).await {
            // Apart, so that who has not said anything yet costs little.
            Ok(stream) => Box::pin(self.serve_greeted(stream, http2, service)).await,
            Err(error) => tracing::debug!(error = %error, "connection ended before its first request"),
        }
    }

    async fn serve_greeted<S, B, I>(
        &self,
        stream: Bounded<I>,
        http2: &http2::Builder<TokioExecutor>,
        service: S,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Fault>,
    {
        let slot = self.slot.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let in_flight = slot.begin();
            let answer = service.call(request);
            answer.map_ok(move |answer| answer.map(|body| Answer::new(body, in_flight)))
        });
        let connection = http2.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = self.drain.run(connection).await {
            tracing::debug!(error = %error, "connection ended with an error");
        }
    }
}
