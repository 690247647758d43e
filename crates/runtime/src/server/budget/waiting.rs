//! Bodies that are waited for, and which of them makes room where bytes are short.
//!
//! A body pays for its place by what comes of it. As long as it keeps the least pace it is ahead of time, by at most
//! [`AHEAD`], and one that does not falls behind. Whoever is furthest behind loses: so none that keeps the pace does before
//! one that does not, and of those that say nothing it is the one that has said nothing for longest.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use tokio::time::{Duration, Instant};

use super::{Budget, Held, OverBudget};

/// Bytes a second that a body must come by, whatever else there is.
const PACE: u64 = 16 << 10;
/// How far a body can be ahead of its pace: for so long it may say nothing.
const AHEAD: Duration = Duration::from_secs(1);
/// Where any of those make room that fall behind, they make at least one part of so many of all, so that others need not
/// look for more at once.
const ROOM: usize = 16;

/// Ends of a body: of a call that was carried out nobody says that it made room.
const LOST: u8 = 1;
const COME: u8 = 2;

/// The bodies of a budget and its parts that are waited for.
#[derive(Debug)]
pub(super) struct Waiting {
    origin: Instant,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    taken: HashMap<u64, Weak<Held>>,
}

/// A body's place among those that are waited for, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    waiting: Arc<Waiting>,
    number: u64,
}

/// How a body keeps up.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Until when it has paid, in microseconds after the origin; 0 as long as it was never waited for.
    paid_us: AtomicU64,
    /// 0, or what came first: it has made room ([`LOST`]), or all of it has come ([`COME`]).
    fate: AtomicU8,
    /// Whoever waits for it.
    waker: AtomicWaker,
}

impl Pace {
    pub(super) fn has_lost(&self) -> bool {
        self.fate.load(SeqCst) == LOST
    }

    /// Has it make room; false if it has already, or if all of it has come.
    pub(super) fn lose(&self) -> bool {
        let loses = self.fate.compare_exchange(0, LOST, SeqCst, SeqCst).is_ok();
        if loses {
            self.waker.wake();
        }
        loses
    }

    /// All of it has come; false if it has made room before.
    pub(super) fn come(&self) -> bool {
        self.fate.compare_exchange(0, COME, SeqCst, SeqCst) != Err(LOST)
    }

    pub(super) fn poll_lost(&self, cx: &Context<'_>) -> Poll<OverBudget> {
        self.waker.register(cx.waker());
        if self.has_lost() { Poll::Ready(OverBudget) } else { Poll::Pending }
    }
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), places: Mutex::default() }
    }

    /// From now on the body may have to make room.
    pub(super) fn enter(self: &Arc<Self>, body: &Arc<Held>) -> Place {
        body.pace.paid_us.store(self.most_paid_us(), Relaxed);
        let mut places = self.places();
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, Arc::downgrade(body));
        Place { waiting: Arc::clone(self), number }
    }

    /// Bytes have come of the body.
    pub(super) fn pay(&self, body: &Held, bytes: usize) {
        let paid_us = body.pace.paid_us.load(Relaxed);
        if paid_us == 0 {
            return;
        }
        let most_us = self.most_paid_us();
        // A message after a pause, in a stream, begins anew.
        let is_new = body.bytes.load(Relaxed) == 0;
        let worth_us = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000) / PACE;
        let paid_us = if is_new { most_us } else { paid_us.saturating_add(worth_us).min(most_us) };
        body.pace.paid_us.store(paid_us, Relaxed);
    }

    /// Bodies of `short` that are further behind than `by`, those first that are furthest.
    fn behind(&self, short: &Budget, by: &Held) -> Vec<(u64, Arc<Held>)> {
        let own_us = match by.pace.paid_us.load(Relaxed) {
            0 => self.most_paid_us(),
            paid_us => paid_us,
        };
        let mut behind: Vec<_> = {
            let places = self.places();
            let bodies = places.taken.values().filter_map(Weak::upgrade);
            let bodies = bodies.map(|body| (body.pace.paid_us.load(Relaxed), body));
            let is_behind = |(paid_us, body): &(u64, Arc<Held>)| {
                *paid_us < own_us && body.bytes.load(Relaxed) > 0 && body.budget.is_of(short)
            };
            bodies.filter(is_behind).collect()
        };
        behind.sort_unstable_by_key(|(paid_us, _)| *paid_us);
        behind
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn most_paid_us(&self) -> u64 {
        self.now_us().saturating_add(u64::try_from(AHEAD.as_micros()).unwrap_or(u64::MAX))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // A panic while it was held cannot have left anything half done.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.places().taken.remove(&self.number);
    }
}

impl Budget {
    /// Has bodies make room for `bytes` more of `by`; false, and none loses anything, if too few are further behind.
    pub(super) fn make_room(&self, bytes: usize, by: &Held) -> bool {
        let limit = &*self.0;
        let missing = self.held().saturating_add(bytes).saturating_sub(limit.most);
        if missing == 0 {
            // Somebody has given back what was needed.
            return true;
        }
        // However many make room, what is more than all of it does not fit.
        if by.bytes.load(Relaxed).saturating_add(bytes) > limit.most {
            return false;
        }
        let (waiting, wanted) = (&limit.waiting, missing.max(limit.most / ROOM));
        let (behind, now_us) = (waiting.behind(self, by), waiting.now_us());
        let (mut found, mut losing) = (0_usize, 0);
        for (paid_us, body) in &behind {
            let is_late = *paid_us < now_us;
            if found >= wanted || (found >= missing && !is_late) {
                break;
            }
            found = found.saturating_add(body.bytes.load(Relaxed));
            losing += 1;
        }
        if found < missing {
            return false;
        }
        behind.iter().take(losing).for_each(|(_, body)| body.lose());
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use std::task::Waker;

    use tokio::time::advance;

    use super::super::Counting;
    use super::*;

    const MOST: usize = 400_000;
    const SECOND: Duration = Duration::from_secs(1);

    fn body(of: &Budget) -> Counting {
        Counting::new(of.part().share(), false)
    }

    /// Waits for more of it; false if it has lost.
    fn waits(body: &mut Counting) -> bool {
        body.poll_lost(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// So many bytes of it come, and more is waited for.
    fn comes(body: &mut Counting, bytes: usize) {
        body.take(&vec![0; bytes]).unwrap();
        assert!(waits(body));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_said_nothing_for_longest_makes_room() {
        let budget = Budget::new(MOST);
        let mut bodies = [(); 4].map(|()| body(&budget));
        for body in &mut bodies {
            comes(body, MOST / 4);
            advance(SECOND / 10).await;
        }
        let mut next = body(&budget);
        next.take(&[0; 1_000]).unwrap();
        assert_eq!(bodies.each_mut().map(waits), [false, true, true, true]);
        assert_eq!(budget.held(), MOST * 3 / 4 + 1_000);
        assert!(bodies[0].share().is_refused() && bodies[0].take(&[]).is_err());
        drop(bodies);
        assert_eq!(budget.held(), 1_000, "nothing is given back twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_come_or_has_made_room() {
        let budget = Budget::new(MOST);
        let mut bodies = [(); 4].map(|()| body(&budget));
        for body in &mut bodies {
            comes(body, MOST / 4);
        }
        advance(SECOND * 9).await;
        bodies[0].ended().unwrap();
        body(&budget).take(&[0; 1_000]).unwrap();
        assert!(!bodies[0].share().is_refused());
        let lost = bodies.iter_mut().skip(1).map(Counting::ended).filter(Result::is_err).count();
        assert_eq!(lost, 1, "what is carried out was not refused");
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_pace_stays_while_another_does_not() {
        let budget = Budget::new(MOST);
        let [mut steady, mut silent, mut dripping, mut done] = [(); 4].map(|()| body(&budget));
        comes(&mut steady, 20_000);
        comes(&mut dripping, 100_000 - 9);
        advance(SECOND).await;
        comes(&mut silent, 100_000);
        done.take(&[0; 100_000]).unwrap();
        for _ in 0..4 {
            advance(SECOND).await;
            comes(&mut steady, 20_000);
            comes(&mut dripping, 1);
        }
        // It says something now and then, and was behind for longer.
        body(&budget).take(&[0; 30_000]).unwrap();
        assert_eq!([&mut steady, &mut silent, &mut dripping].map(waits), [true, true, false]);
        assert!(budget.held() < MOST);
        body(&budget).take(&vec![0; 100_000]).unwrap();
        let mut last = body(&budget);
        last.take(&vec![0; 100_000]).unwrap();
        last.take(&[]).unwrap();
        let mut more = body(&budget);
        more.take(&vec![0; 60_000]).unwrap();
        assert_eq!([&mut steady, &mut silent].map(waits), [true, false]);
        assert!(done.take(&[]).is_ok(), "all of it may have come");
    }

    #[tokio::test(start_paused = true)]
    async fn none_makes_room_in_vain() {
        let budget = Budget::new(MOST);
        let mut small = body(&budget);
        comes(&mut small, 1_000);
        let mut done = [(); 4].map(|()| body(&budget));
        for (body, bytes) in done.iter_mut().zip([100_000, 100_000, 100_000, 99_000]) {
            body.take(&vec![0; bytes]).unwrap();
        }
        advance(SECOND * 9).await;
        assert_eq!(body(&budget).take(&[0; 1_001]), Err(OverBudget));
        assert!(waits(&mut small));
        assert_eq!(body(&budget).take(&vec![0; MOST]), Err(OverBudget));
        assert!(waits(&mut small));
        body(&budget).take(&[0; 1_000]).unwrap();
        assert!(!waits(&mut small));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_short_takes_from_its_own() {
        let budget = Budget::new(MOST);
        let [one, other] = [(); 2].map(|()| budget.part());
        let [mut own, mut others] = [&one, &other].map(|part| Counting::new(part.share(), false));
        comes(&mut others, 90_000);
        comes(&mut own, 90_000);
        advance(SECOND).await;
        let mut next = Counting::new(one.share(), false);
        next.take(&[0; 20_000]).unwrap();
        assert_eq!([&mut own, &mut others].map(waits), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_after_a_pause_begins_anew() {
        let budget = Budget::new(MOST);
        let mut stream = Counting::new(budget.part().share(), true);
        stream.share().answered();
        let message = [&[0, 0, 0, 0, 9][..], &[7; 9]].concat();
        stream.take(&message[..7]).unwrap();
        assert!(waits(&mut stream));
        stream.take(&message[7..]).unwrap();
        stream.go_on();
        assert!(waits(&mut stream) && budget.held() == 0);
        advance(SECOND * 60).await;
        let mut silent = [(); 4].map(|()| body(&budget));
        for (body, bytes) in silent.iter_mut().zip([100_000, 100_000, 100_000, 99_990]) {
            comes(body, bytes);
        }
        advance(SECOND * 2).await;
        stream.take(&message[..7]).unwrap();
        assert!(waits(&mut stream));
        body(&budget).take(&[0; 4]).unwrap();
        assert!(waits(&mut stream));
        assert_eq!(silent.iter_mut().map(waits).filter(|waits| !waits).count(), 1);
    }
}
