//! What both servers do with a connection: admit it, bound its silence, drain it.

mod admission;
mod arriving;
mod bounded;
mod dealer;

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use hyper_util::server::graceful::GracefulConnection;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

pub(super) use self::{
    admission::{Connections, Counted, Flight, InFlight, Slot},
    arriving::Arriving,
    bounded::{Bounded, Bounds},
    dealer::{Dealer, Hand},
};

/// Pause after the operating system refused a connection, so that a lack of file handles does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that a listener may have promised: bounds the work of closing it.
const MAX_BACKLOG: usize = 4096;

/// A connection that was let in.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) slot: Slot,
}

/// The next connection. Waits out errors of the listener and closes connections that there is no room for.
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
        tracing::debug!(client.address = %peer, "connection refused, too many are busy");
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
