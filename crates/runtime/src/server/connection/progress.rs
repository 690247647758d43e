//! How a connection gets on: what it asks, and what its client takes of the answers.
//!
//! An answer counts as taken when it is written, and not when the HTTP library has put it by to wait for the client's
//! window, which is all that the end of its body says.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Bytes that a client must take within the time for writing, unless it takes all that waits.
const LEAST: u64 = 64 << 10;

/// Counts as a connection is served.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Requests that are there, and those of them that were answered.
    begun: AtomicU64,
    ended: AtomicU64,
    /// Pieces of requests' bodies.
    arrived: AtomicU64,
    /// Bytes of answers that the HTTP library holds.
    waiting: AtomicUsize,
    /// Bytes of answers that were written.
    taken: AtomicU64,
    /// Whether all that waited has gone since somebody last looked.
    emptied: AtomicBool,
}

impl Progress {
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    /// A piece of a request's body has come.
    pub(super) fn arrive(&self) {
        self.arrived.fetch_add(1, Relaxed);
    }

    /// Bytes of an answer now wait to be written.
    pub(super) fn hand(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Relaxed);
    }

    /// Bytes that waited are written.
    pub(super) fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Relaxed);
        self.forget(bytes);
    }

    /// Bytes that waited wait no more.
    pub(super) fn forget(&self, bytes: usize) {
        if self.waiting.fetch_sub(bytes, Relaxed) == bytes {
            self.emptied.store(true, Relaxed);
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Whether no request has come, nor a piece of one's body.
    pub(super) fn is_unused(&self) -> bool {
        self.asked() == 0
    }

    /// Whether everything was answered, and the answers were taken.
    pub(super) fn is_idle(&self) -> bool {
        self.begun.load(Relaxed) == self.ended.load(Relaxed) && self.waiting() == 0
    }

    fn asked(&self) -> u64 {
        self.begun.load(Relaxed).wrapping_add(self.arrived.load(Relaxed))
    }
}

/// What was seen of a connection when somebody last looked: so serving it needs no clock.
#[derive(Debug)]
pub(super) struct Seen {
    asked: u64,
    taken: u64,
    /// When it was first seen to have come so far.
    moved: Instant,
    stretch: Option<Stretch>,
}

/// Something waits all the while, and less than [`LEAST`] of it was taken.
#[derive(Debug)]
struct Stretch {
    since: Instant,
    /// What had been taken before.
    taken: u64,
}

impl Seen {
    pub(super) fn new(now: Instant) -> Self {
        Self { asked: 0, taken: 0, moved: now, stretch: None }
    }

    /// Looks again.
    pub(super) fn look(&mut self, progress: &Progress, now: Instant) {
        let (asked, taken) = (progress.asked(), progress.taken.load(Relaxed));
        if (asked, taken) != (self.asked, self.taken) {
            (self.asked, self.taken, self.moved) = (asked, taken, now);
        }
        let emptied = progress.emptied.swap(false, Relaxed);
        let goes_on = |stretch: &Stretch| !emptied && taken.wrapping_sub(stretch.taken) < LEAST;
        if progress.waiting() == 0 {
            self.stretch = None;
        } else if !self.stretch.as_ref().is_some_and(goes_on) {
            self.stretch = Some(Stretch { since: now, taken });
        }
    }

    /// When the client was last seen to have asked or taken something.
    pub(super) fn moved(&self) -> Instant {
        self.moved
    }

    /// Whether the client has left something waiting for `grace`, and does not take [`LEAST`] per `within` either.
    pub(super) fn is_stalled(&self, now: Instant, grace: Duration, within: Duration) -> bool {
        self.stretch.as_ref().is_some_and(|stretch| {
            let elapsed = now.saturating_duration_since(stretch.since);
            let taken = u128::from(self.taken.wrapping_sub(stretch.taken));
            elapsed >= grace && taken * within.as_nanos() < u128::from(LEAST) * elapsed.as_nanos()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(20);

    /// A client that is looked at every half second, and takes so many bytes in between.
    struct Client {
        progress: Progress,
        seen: Seen,
        now: Instant,
    }

    impl Client {
        fn with_waiting(bytes: usize) -> Self {
            let (progress, now) = (Progress::default(), Instant::now());
            progress.begin();
            progress.hand(bytes);
            Self { progress, seen: Seen::new(now), now }
        }

        fn look(&mut self) {
            self.now += Duration::from_millis(500);
            self.seen.look(&self.progress, self.now);
        }

        fn is_stalled(&self, grace: Duration) -> bool {
            self.seen.is_stalled(self.now, grace, WITHIN)
        }

        /// How many looks it takes until the client counts as stalled, a thousand at most.
        fn stalls_after(&mut self, grace: Duration, each: impl Fn(&Progress)) -> usize {
            (0..1_000)
                .take_while(|_| {
                    each(&self.progress);
                    self.look();
                    !self.is_stalled(grace)
                })
                .count()
        }
    }

    #[test]
    fn who_takes_nothing_stalls_whatever_else_it_asks() {
        assert_eq!(Client::with_waiting(1).stalls_after(WITHIN, |_| ()), 40);
        let asks = |progress: &Progress| {
            progress.begin();
            progress.arrive();
            progress.hand(1);
        };
        assert_eq!(Client::with_waiting(1).stalls_after(WITHIN, asks), 40);
    }

    #[test]
    fn who_takes_too_little_stalls_and_who_takes_enough_does_not() {
        let takes = |bytes| move |progress: &Progress| progress.take(bytes);
        assert_eq!(Client::with_waiting(1 << 30).stalls_after(WITHIN, takes(1_000)), 40);
        assert_eq!(Client::with_waiting(1 << 30).stalls_after(WITHIN, takes(1_700)), 1_000);
        let second = Duration::from_secs(1);
        assert_eq!(Client::with_waiting(1 << 30).stalls_after(second, takes(1_000)), 2);
        assert_eq!(Client::with_waiting(1 << 30).stalls_after(second, takes(1_700)), 1_000);
    }

    #[test]
    fn who_took_some_and_stops_stalls() {
        let mut client = Client::with_waiting(1 << 30);
        assert_eq!(client.stalls_after(WITHIN, |progress| progress.take(1 << 20)), 1_000);
        assert_eq!(client.stalls_after(WITHIN, |_| ()), 39);
    }

    #[test]
    fn little_that_is_taken_as_a_whole_is_enough() {
        let all = |progress: &Progress| {
            progress.hand(10);
            progress.take(5);
            progress.forget(5);
            progress.hand(1);
            progress.take(1);
        };
        assert_eq!(Client::with_waiting(0).stalls_after(Duration::ZERO, all), 1_000);
        // Something always waits when it is looked at, and is not the same each time.
        let next = |progress: &Progress| {
            progress.take(1);
            progress.hand(1);
        };
        assert_eq!(Client::with_waiting(1).stalls_after(Duration::from_secs(1), next), 1_000);
    }

    #[test]
    fn requests_their_bodies_and_taken_answers_move_a_connection() {
        let mut client = Client::with_waiting(10);
        client.look();
        let moves: [fn(&Progress); 3] = [Progress::begin, Progress::arrive, |progress| progress.take(1)];
        for each in moves {
            each(&client.progress);
            client.look();
            assert_eq!(client.seen.moved(), client.now);
        }
        let moved = client.now;
        let others: [fn(&Progress); 3] =
            [Progress::end, |progress| progress.hand(1), |progress| progress.forget(1)];
        for each in others {
            each(&client.progress);
            client.look();
            assert_eq!(client.seen.moved(), moved);
        }
    }

    #[test]
    fn what_is_asked_or_waits_keeps_a_connection_from_being_idle() {
        let progress = Progress::default();
        assert!(progress.is_unused() && progress.is_idle());
        progress.begin();
        assert!(!progress.is_unused() && !progress.is_idle());
        progress.hand(1);
        progress.end();
        assert!(!progress.is_idle(), "the answer waits");
        progress.take(1);
        assert!(progress.is_idle() && !progress.is_unused());
    }
}
