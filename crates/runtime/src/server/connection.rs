//! What both servers do with a connection: admit it, see that it gets on, drain it.

mod admission;
mod answer;
mod arriving;
mod bounded;
mod dealer;
mod door;
mod progress;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use hyper_util::server::graceful::GracefulConnection;
use tokio_util::sync::CancellationToken;

pub(super) use self::{
    admission::{Connections, Flight, InFlight, Slot},
    answer::Answer,
    arriving::Arriving,
    bounded::{Bounded, Bounds},
    dealer::{Dealer, Hand},
    door::{Accepted, Door},
};

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

    /// Waits until it begins.
    async fn begins(&self) {
        self.wake.cancelled().await;
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
