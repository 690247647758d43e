//! Which connections are let in, and which have to go: when there are too many, the one that has been idle longest makes
//! room; and whoever asks and does not take the answers is ended.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// Most connections that are looked at for an idle one, per newcomer.
const LOOKS: usize = 64;

/// Answers that wait to be taken, of all connections together, from which on a connection is ended that takes none for
/// [`BRIEF`]: each may hold a page of some list.
const MANY: usize = 256;
const BRIEF: Duration = Duration::from_secs(1);

/// Counts open connections up to a limit, and knows which of them are idle.
#[derive(Debug, Clone)]
pub(in super::super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    origin: Instant,
    open: AtomicUsize,
    /// Answers that wait to be taken.
    untaken: AtomicUsize,
    /// Those that may make room, in the order in which they came or were last found busy.
    known: Mutex<VecDeque<Weak<State>>>,
}

#[derive(Debug)]
struct State {
    connections: Connections,
    in_flight: AtomicUsize,
    /// Answers that wait to be taken, and when some of one was taken last, in milliseconds after the origin.
    untaken: AtomicUsize,
    taken_ms: AtomicU64,
    evicted: CancellationToken,
}

/// One counted connection, until dropped.
#[derive(Debug, Clone)]
pub(in super::super) struct Slot(Arc<State>);

/// A request in flight, until dropped.
#[derive(Debug)]
pub(in super::super) struct InFlight(Arc<State>);

/// A request, which is in flight from when all of it has arrived until all of its answer was taken.
#[derive(Debug, Clone)]
pub(in super::super) struct Flight {
    slot: Slot,
    begun: Arc<OnceLock<InFlight>>,
}

impl Flight {
    pub(in super::super) fn new(slot: Slot) -> Self {
        Self { slot, begun: Arc::default() }
    }

    /// From now on the connection makes no room.
    pub(in super::super) fn begin(&self) {
        self.begun.get_or_init(|| self.slot.begin());
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(in super::super) struct Counted {
    body: Body,
    flight: Flight,
    /// There is more of it, and the client is to take it.
    waits: bool,
}

impl Counted {
    pub(in super::super) fn new(body: Body, flight: Flight) -> Self {
        flight.begin();
        // Nothing of it is asked for before the client has room for it.
        let waits = !body.is_end_stream();
        if waits {
            flight.slot.0.wait();
        }
        Self { body, flight, waits }
    }

    fn set_waits(&mut self, waits: bool) {
        let state = &self.flight.slot.0;
        if self.waits {
            state.taken();
        }
        if waits {
            state.wait();
        }
        self.waits = waits;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set_waits(false);
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let is_given = matches!(&frame, Poll::Ready(Some(Ok(_))));
        let waits = is_given && !self.body.is_end_stream();
        self.set_waits(waits);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Connections {
    pub(in super::super) fn new(limit: usize) -> Self {
        let (open, untaken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Inner { limit, origin: Instant::now(), open, untaken, known: Mutex::default() }))
    }

    pub(in super::super) fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Lets a connection in; none if all that are open are busy.
    pub(in super::super) fn take(&self) -> Option<Slot> {
        // A state counts itself out again if it was one too many.
        let before = self.0.open.fetch_add(1, Ordering::Relaxed);
        let state = State {
            connections: self.clone(),
            in_flight: AtomicUsize::new(0),
            untaken: AtomicUsize::new(0),
            taken_ms: AtomicU64::new(0),
            evicted: CancellationToken::new(),
        };
        let slot = Slot(Arc::new(state));
        if before >= self.0.limit && !self.evict() {
            return None;
        }
        let mut known = self.known();
        if known.len() > 2 * self.0.limit {
            known.retain(|state| state.strong_count() > 0);
        }
        known.push_back(Arc::downgrade(&slot.0));
        Some(slot)
    }

    /// Ends the connections whose clients have taken nothing of any answer for `patience`, sooner where many answers wait.
    pub(in super::super) fn end_stalled(&self, patience: Duration) {
        let untaken = self.0.untaken.load(Ordering::Relaxed);
        if untaken == 0 {
            return;
        }
        let patience = if untaken > MANY { BRIEF.min(patience) } else { patience };
        let (now, patience) = (self.0.now_ms(), milliseconds(patience));
        for state in self.known().iter().filter_map(Weak::upgrade) {
            let stalls = state.untaken.load(Ordering::Relaxed) > 0;
            if stalls && now.saturating_sub(state.taken_ms.load(Ordering::Relaxed)) >= patience {
                state.evicted.cancel();
            }
        }
    }

    /// Ends the connection that has been idle longest; false if none is found.
    fn evict(&self) -> bool {
        let mut known = self.known();
        let mut looks = 0;
        while let Some(first) = known.pop_front() {
            let Some(state) = first.upgrade() else { continue };
            if state.in_flight.load(Ordering::Relaxed) == 0 {
                state.evicted.cancel();
                return true;
            }
            known.push_back(first);
            looks += 1;
            if looks == LOOKS {
                break;
            }
        }
        false
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Weak<State>>> {
        // A panic while it was held cannot have left anything half done.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        milliseconds(self.origin.elapsed())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl State {
    /// An answer waits to be taken.
    fn wait(&self) {
        let all = &self.connections.0;
        all.untaken.fetch_add(1, Ordering::Relaxed);
        if self.untaken.fetch_add(1, Ordering::Relaxed) == 0 {
            self.taken_ms.store(all.now_ms(), Ordering::Relaxed);
        }
    }

    /// Some of an answer that waited was taken, or it waits no more.
    fn taken(&self) {
        let all = &self.connections.0;
        all.untaken.fetch_sub(1, Ordering::Relaxed);
        self.untaken.fetch_sub(1, Ordering::Relaxed);
        self.taken_ms.store(all.now_ms(), Ordering::Relaxed);
    }
}

impl Slot {
    /// Counts a request in: as long as there is one, the connection does not make room.
    pub(in super::super) fn begin(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.0))
    }

    /// Waits until the connection has to make room.
    pub(in super::super) async fn evicted(&self) {
        self.0.evicted.cancelled().await;
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.connections.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    fn is_evicted(slot: &Slot) -> bool {
        slot.0.evicted.is_cancelled()
    }

    #[test]
    fn the_one_that_is_idle_longest_makes_room() {
        let connections = Connections::new(3);
        let [a, b, c] = [(); 3].map(|()| connections.take().unwrap());
        let request = a.begin();
        let d = connections.take().unwrap();
        assert_eq!([&a, &b, &c, &d].map(is_evicted), [false, true, false, false]);
        drop(b);
        assert_eq!(connections.open(), 3);
        drop(request);
        let busy = [&c, &d].map(|slot| slot.begin());
        let _e = connections.take().unwrap();
        assert!(is_evicted(&a), "its request has ended");
        drop((a, busy));
        assert_eq!(connections.open(), 3);
    }

    #[test]
    fn nobody_is_let_in_while_all_are_busy() {
        let connections = Connections::new(2);
        let slots = [(); 2].map(|()| connections.take().unwrap());
        let requests = slots.each_ref().map(Slot::begin);
        assert!(connections.take().is_none());
        assert_eq!(connections.open(), 2);
        drop(requests);
        assert!(connections.take().is_some());
    }

    #[test]
    fn who_takes_nothing_of_its_answers_is_ended_and_sooner_where_many_wait() {
        let connections = Connections::new(9);
        let [reading, stalled, idle] = [(); 3].map(|()| connections.take().unwrap());
        let answer = |slot: &Slot| Counted::new(Body::from("page"), Flight::new(slot.clone()));
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut taken = answer(&reading);
        assert!(Pin::new(&mut taken).poll_frame(cx).is_ready());
        let waiting: Vec<Counted> = (0..MANY).map(|_| answer(&stalled)).collect();
        connections.end_stalled(Duration::from_secs(3_600));
        assert_eq!([&reading, &stalled, &idle].map(is_evicted), [false; 3], "in time");
        connections.end_stalled(Duration::ZERO);
        assert_eq!([&reading, &stalled, &idle].map(is_evicted), [false, true, false]);
        drop((waiting, taken));
        assert_eq!(connections.0.untaken.load(Ordering::Relaxed), 0);

        let pending = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let mut watching = Counted::new(pending, Flight::new(idle.clone()));
        assert!(Pin::new(&mut watching).poll_frame(cx).is_pending());
        connections.end_stalled(Duration::ZERO);
        assert!(!is_evicted(&idle), "it is the answer that waits, not the client");
    }

    #[test]
    fn what_is_remembered_of_ended_connections_is_bounded() {
        let connections = Connections::new(4);
        for _ in 0..1_000 {
            drop(connections.take().unwrap());
        }
        assert!(connections.known().len() <= 10);
    }
}
