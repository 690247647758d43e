//! Which connections are let in, and which have to go: when there are too many, the one that is missed least makes room;
//! and whoever asks and does not take the answers is ended.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::progress::{Progress, Seen};

/// Most connections that are looked at for one that makes room, per newcomer.
const LOOKS: usize = 64;

/// How long a connection on which something is under way must have neither asked nor taken anything before it makes room.
const PAUSE: Duration = Duration::from_secs(1);
/// The same where it is for the client to go on: an answer waits for it, or nothing is under way.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// How long a newcomer has for its first request: who was let in must not be the first to go.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Bytes of answers that wait to be written, of all connections together, from which on clients have [`BRIEF`] to begin to
/// take them at the rate that is asked of them.
const MUCH: usize = 16 << 20;
const BRIEF: Duration = Duration::from_secs(1);

/// The connections of each port of this process, which share its file handles.
static PORTS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// Counts open connections up to a limit, and knows how they get on.
#[derive(Debug, Clone)]
pub(in super::super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    open: AtomicUsize,
    /// In the order in which they came or were last looked at.
    known: Mutex<VecDeque<Known>>,
}

#[derive(Debug)]
struct Known {
    state: Weak<State>,
    seen: Seen,
}

#[derive(Debug)]
struct State {
    connections: Connections,
    progress: Progress,
    ended: CancellationToken,
}

/// Which connections make room first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Nothing was asked on it since it came.
    Unused(Instant),
    /// Nothing is under way since then or longer.
    Idle(Instant),
    /// Something is, and its client has neither asked nor taken anything since then, although something waits for it.
    Waiting(Instant),
    /// The same while nothing does.
    Pausing(Instant),
}

/// One counted connection, until dropped.
#[derive(Debug, Clone)]
pub(in super::super) struct Slot(Arc<State>);

/// A request in flight, until dropped.
#[derive(Debug)]
pub(in super::super) struct InFlight(Slot);

/// A request, which is in flight from when all of it has arrived.
#[derive(Debug, Clone)]
pub(in super::super) struct Flight {
    slot: Slot,
    begun: Arc<OnceLock<InFlight>>,
}

impl Flight {
    pub(in super::super) fn new(slot: Slot) -> Self {
        Self { slot, begun: Arc::default() }
    }

    /// A piece of its body has come.
    pub(super) fn arrive(&self) {
        self.slot.progress().arrive();
    }

    /// All of it is there.
    pub(super) fn begin(&self) {
        self.begun.get_or_init(|| self.slot.begin());
    }

    /// It is answered, whatever came of it; what is in flight now is the answer.
    pub(in super::super) fn answered(&self) -> InFlight {
        self.slot.begin()
    }
}

impl Connections {
    pub(in super::super) fn new(limit: usize) -> Self {
        let inner = Arc::new(Inner { limit, open: AtomicUsize::new(0), known: Mutex::default() });
        let mut ports = lock(&PORTS);
        ports.retain(|port| port.strong_count() > 0);
        ports.push(Arc::downgrade(&inner));
        Self(inner)
    }

    pub(in super::super) fn open(&self) -> usize {
        self.0.open.load(Relaxed)
    }

    /// Lets a connection in; none if all that are open are in use.
    pub(in super::super) fn take(&self) -> Option<Slot> {
        self.take_at(Instant::now())
    }

    /// Lets a connection in if there is a place; nobody makes room for it.
    pub(super) fn take_free(&self) -> Option<Slot> {
        (self.open() < self.0.limit).then(|| self.take()).flatten()
    }

    fn take_at(&self, now: Instant) -> Option<Slot> {
        // A state counts itself out again if it was one too many.
        let before = self.0.open.fetch_add(1, Relaxed);
        let (progress, ended) = (Progress::default(), CancellationToken::new());
        let slot = Slot(Arc::new(State { connections: self.clone(), progress, ended }));
        if before >= self.0.limit && !self.make_room(now) {
            return None;
        }
        let mut known = lock(&self.0.known);
        if known.len() > 2 * self.0.limit {
            known.retain(|known| known.state.strong_count() > 0);
        }
        known.push_back(Known { state: Arc::downgrade(&slot.0), seen: Seen::new(now) });
        Some(slot)
    }

    /// Ends the connections whose clients neither take all that waits within `within`, nor at least 64 KiB of it; sooner,
    /// at the same rate, where much waits.
    pub(super) fn end_stalled(&self, within: Duration) {
        self.end_stalled_at(Instant::now(), within);
    }

    fn end_stalled_at(&self, now: Instant, within: Duration) {
        let mut waiting = 0;
        let mut known = lock(&self.0.known);
        known.retain_mut(|known| {
            let Some(state) = known.state.upgrade() else { return false };
            known.seen.look(&state.progress, now);
            waiting += state.progress.waiting();
            true
        });
        let grace = if waiting > MUCH { BRIEF.min(within) } else { within };
        for stalled in known.iter().filter(|known| known.seen.is_stalled(now, grace, within)) {
            if let Some(state) = stalled.state.upgrade() {
                state.ended.cancel();
            }
        }
    }

    /// Ends one connection; false if those that were looked at are all in use.
    fn make_room(&self, now: Instant) -> bool {
        let mut known = lock(&self.0.known);
        let mut found: Option<(Rank, Arc<State>)> = None;
        let mut looks = 0;
        while looks < LOOKS
            && let Some(mut first) = known.pop_front()
        {
            let Some(state) = first.state.upgrade().filter(|state| !state.ended.is_cancelled()) else {
                continue;
            };
            looks += 1;
            let rank = first.rank(&state.progress, now);
            known.push_back(first);
            if let Some(rank) = rank
                && found.as_ref().is_none_or(|(least, _)| rank < *least)
            {
                found = Some((rank, state));
            }
            if matches!(rank, Some(Rank::Unused(_))) {
                break;
            }
        }
        if let Some((_, state)) = &found {
            state.ended.cancel();
        }
        found.is_some()
    }
}

/// Makes room where the process has no file handle for a newcomer: at the port with the most connections that has one to
/// spare. False if there is none.
pub(super) fn make_room_anywhere(now: Instant) -> bool {
    let mut ports: Vec<Connections> =
        lock(&PORTS).iter().filter_map(Weak::upgrade).map(Connections).collect();
    ports.sort_unstable_by_key(|port| Reverse(port.open()));
    ports.iter().any(|port| port.make_room(now))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held cannot have left anything half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    /// How soon the connection makes room; never while its client asks and takes, or has just come.
    fn rank(&mut self, progress: &Progress, now: Instant) -> Option<Rank> {
        self.seen.look(progress, now);
        let (rank, pause): (fn(Instant) -> Rank, _) = if progress.is_unused() {
            (Rank::Unused, FIRST_PAUSE)
        } else if progress.is_idle() {
            (Rank::Idle, SHORT_PAUSE)
        } else if progress.waiting() > 0 {
            (Rank::Waiting, SHORT_PAUSE)
        } else {
            (Rank::Pausing, PAUSE)
        };
        let moved = self.seen.moved();
        (now.saturating_duration_since(moved) >= pause).then(|| rank(moved))
    }
}

impl Slot {
    /// Counts a request in.
    pub(in super::super) fn begin(&self) -> InFlight {
        self.progress().begin();
        InFlight(self.clone())
    }

    /// Waits until the connection has to go.
    pub(in super::super) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.0.progress
    }
}

impl InFlight {
    pub(super) fn slot(&self) -> Slot {
        self.0.clone()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.connections.0.open.fetch_sub(1, Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.progress().end();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    fn is_ended(slot: &Slot) -> bool {
        slot.0.ended.is_cancelled()
    }

    /// After a look at the present, and long enough for any pause.
    fn later(connections: &Connections) -> Instant {
        connections.end_stalled_at(Instant::now(), Duration::MAX);
        Instant::now() + 2 * PAUSE
    }

    #[test]
    fn unused_connections_make_room_first_and_then_those_idle_longest() {
        let connections = Connections::new(3);
        let [used, unused, unused_too] = [(); 3].map(|()| connections.take().unwrap());
        drop(used.begin());
        let now = later(&connections);
        let next = connections.take_at(now).unwrap();
        assert_eq!([&used, &unused, &unused_too, &next].map(is_ended), [false, true, false, false]);
        drop(unused);
        assert_eq!(connections.open(), 3);
        let busy = [&unused_too, &next].map(Slot::begin);
        let _late = connections.take_at(now).unwrap();
        assert!(is_ended(&used), "nothing is under way on it");
        drop((used, busy));
        assert_eq!(connections.open(), 3);
    }

    #[test]
    fn who_was_just_let_in_or_answered_does_not_make_room() {
        let connections = Connections::new(2);
        let now = Instant::now();
        let [fresh, answered] = [(); 2].map(|()| connections.take_at(now).unwrap());
        connections.end_stalled_at(now, Duration::MAX);
        drop(answered.begin());
        assert!(connections.take_at(now).is_none());
        assert!(connections.take_at(now + SHORT_PAUSE / 2).is_none());
        assert!(connections.take_at(now + SHORT_PAUSE).is_some());
        assert_eq!([&fresh, &answered].map(is_ended), [false, true]);
        drop(answered);
        let _other = connections.take_at(now + SHORT_PAUSE).unwrap();
        assert!(connections.take_at(now + FIRST_PAUSE - SHORT_PAUSE).is_none());
        assert!(connections.take_at(now + FIRST_PAUSE).is_some());
        assert!(is_ended(&fresh));
    }

    #[test]
    fn nobody_is_let_in_while_all_ask_or_take() {
        let connections = Connections::new(2);
        let slots = [(); 2].map(|()| connections.take().unwrap());
        let requests = slots.each_ref().map(Slot::begin);
        assert!(connections.take().is_none());
        assert_eq!(connections.open(), 2);
        drop(requests);
        assert!(connections.take_at(later(&connections)).is_some());
    }

    #[test]
    fn where_all_are_in_use_the_one_makes_room_that_moved_least_recently() {
        let connections = Connections::new(3);
        let slots = [(); 3].map(|()| connections.take().unwrap());
        let requests = slots.each_ref().map(Slot::begin);
        let now = later(&connections);
        // The second asks and the third takes something meanwhile.
        slots[1].progress().begin();
        slots[2].progress().hand(1);
        slots[2].progress().take(1);
        assert!(connections.make_room(now));
        assert_eq!(slots.each_ref().map(is_ended), [true, false, false]);
        assert!(!connections.make_room(now + PAUSE / 2), "the others have just moved");
        assert!(connections.make_room(now + PAUSE));
        assert!(connections.make_room(now + PAUSE));
        assert_eq!(slots.each_ref().map(is_ended), [true; 3]);
        drop(requests);
    }

    #[test]
    fn who_leaves_an_answer_waiting_makes_room_before_those_that_wait_for_one() {
        let connections = Connections::new(2);
        let [computing, leaving] = [(); 2].map(|()| connections.take().unwrap());
        let requests = [&computing, &leaving].map(Slot::begin);
        leaving.progress().hand(1);
        let now = Instant::now();
        connections.end_stalled_at(now, Duration::MAX);
        assert!(!connections.make_room(now + SHORT_PAUSE / 2), "both have just moved");
        assert!(connections.make_room(now + SHORT_PAUSE));
        assert_eq!([&computing, &leaving].map(is_ended), [false, true]);
        assert!(!connections.make_room(now + PAUSE / 2), "it is waited for");
        drop(requests);
    }

    #[test]
    fn idle_connections_make_room_before_any_in_use() {
        let connections = Connections::new(2);
        let slots = [(); 2].map(|()| connections.take().unwrap());
        let request = slots[0].begin();
        drop(slots[1].begin());
        assert!(connections.make_room(later(&connections)));
        assert_eq!(slots.each_ref().map(is_ended), [false, true]);
        drop(request);
    }

    #[test]
    fn who_does_not_take_its_answers_is_ended_and_sooner_where_much_waits() {
        let (connections, within) = (Connections::new(9), Duration::from_secs(20));
        let [reading, stalled, computing] = [(); 3].map(|()| connections.take().unwrap());
        let requests = [&reading, &stalled, &computing].map(Slot::begin);
        reading.progress().hand(2 * MUCH);
        stalled.progress().hand(7);
        let begin = Instant::now();
        connections.end_stalled_at(begin, within);
        connections.end_stalled_at(begin + BRIEF / 2, within);
        reading.progress().take(MUCH / 2);
        let ended = || [&reading, &stalled, &computing].map(is_ended);
        assert_eq!(ended(), [false; 3], "in time");
        connections.end_stalled_at(begin + BRIEF, within);
        assert_eq!(ended(), [false, true, false]);
        reading.progress().take(MUCH);
        for look in 1..40 {
            connections.end_stalled_at(begin + look * BRIEF, Duration::from_secs(30));
            assert_eq!(ended(), [look >= 31, true, false], "{look}: little waits now");
        }
        drop(requests);
    }

    #[test]
    fn a_process_without_file_handles_makes_room_at_the_port_that_has_most() {
        let (few, many) = (Connections::new(9), Connections::new(9_999));
        let kept = few.take().unwrap();
        // More than any other test has at once.
        let slots: Vec<Slot> = (0..5_000).map(|_| many.take().unwrap()).collect();
        assert!(make_room_anywhere(later(&many)));
        assert_eq!(slots.iter().filter(|slot| is_ended(slot)).count(), 1);
        assert!(!is_ended(&kept));
    }

    #[test]
    fn what_is_remembered_of_ended_connections_is_bounded() {
        let connections = Connections::new(4);
        for _ in 0..1_000 {
            drop(connections.take().unwrap());
        }
        assert!(lock(&connections.0.known).len() <= 10);
    }
}
