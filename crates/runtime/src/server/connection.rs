//! What both servers do with a connection: count it, bound its silence, drain it.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper_util::server::graceful::GracefulConnection;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

/// Pause after the operating system refused a connection, so that a lack of file handles does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that a listener may have promised: bounds the work of closing it.
const MAX_BACKLOG: usize = 4096;

/// Counts open connections up to a limit.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    open: Arc<AtomicUsize>,
    limit: usize,
}

/// One counted connection, until dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<AtomicUsize>);

impl Connections {
    pub(super) fn new(limit: usize) -> Self {
        Self { open: Arc::new(AtomicUsize::new(0)), limit }
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> Option<Slot> {
        let slot = Slot(Arc::clone(&self.open));
        // The slot counts itself out again if it was one too many.
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        (before < self.limit).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that was let in.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) slot: Slot,
}

/// The next connection. Waits out errors of the listener and closes connections beyond the limit.
pub(super) async fn accept(listener: &TcpListener, connections: &Connections) -> Accepted {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(accepted) = admit(stream, peer, connections) {
                    return accepted;
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Closes the listener; returns the connections that the kernel has promised already and would otherwise reset.
pub(super) fn close(listener: TcpListener, connections: &Connections) -> Vec<Accepted> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let mut accepted = Vec::new();
    while accepted.len() < MAX_BACKLOG
        && let Ok((stream, peer)) = listener.accept()
    {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).ok();
        accepted.extend(stream.and_then(|stream| admit(stream, peer, connections)));
    }
    accepted
}

fn admit(stream: TcpStream, peer: SocketAddr, connections: &Connections) -> Option<Accepted> {
    let Some(slot) = connections.take() else {
        tracing::debug!(client.address = %peer, "connection refused, too many are open");
        return None;
    };
    match stream.set_nodelay(true) {
        Ok(()) => Some(Accepted { stream, peer, slot }),
        Err(error) => {
            tracing::debug!(error = %error, client.address = %peer, "connection lost before its first byte");
            None
        }
    }
}

/// Tells connections to drain. Costs a served connection one relaxed load per poll, where polling a shared token
/// would take its lock.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    begun: Arc<AtomicBool>,
    wake: CancellationToken,
}

impl Drain {
    pub(super) fn new() -> Self {
        Self { begun: Arc::new(AtomicBool::new(false)), wake: CancellationToken::new() }
    }

    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.wake.cancel();
    }

    /// Runs a connection to its end; once the drain begins it takes no new calls. Must be polled by one task only, as
    /// it leaves its waker behind at the first poll alone.
    pub(super) async fn run<C: GracefulConnection>(&self, connection: C) -> Result<(), C::Error> {
        let mut connection = pin!(connection);
        let mut wake = pin!(self.wake.cancelled());
        let mut registered = false;
        let finished = poll_fn(|cx| {
            let begun = if registered {
                self.begun.load(Ordering::Acquire)
            } else {
                registered = true;
                wake.as_mut().poll(cx).is_ready()
            };
            if begun { Poll::Ready(None) } else { connection.as_mut().poll(cx).map(Some) }
        })
        .await;
        match finished {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }
}

/// A stream whose first bytes must arrive in time and before the drain begins: a client that connects and says nothing
/// would hold a slot for ever, and hyper waits for its preface even when asked to shut down.
#[derive(Debug)]
pub(super) struct FirstBytes<S> {
    stream: S,
    missing: usize,
    /// None once enough has arrived.
    waiting: Option<(Pin<Box<Sleep>>, Drain)>,
}

impl<S> FirstBytes<S> {
    pub(super) fn new(stream: S, count: usize, within: Duration, drain: Drain) -> Self {
        Self { stream, missing: count, waiting: Some((Box::pin(sleep(within)), drain)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some((deadline, drain)) = &mut this.waiting else {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        };
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            this.missing = this.missing.saturating_sub(buf.filled().len() - before);
            if this.missing == 0 {
                this.waiting = None;
            }
            return Poll::Ready(result);
        }
        // The drain wakes this task through `Drain::run`.
        if drain.begun.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "no request before the drain",
            )));
        }
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request on a new connection")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
