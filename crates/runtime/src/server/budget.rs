//! Bytes of requests' bodies that may be held at once, by one connection and by all of a port.
//!
//! A body counts from when its bytes come until its request is answered. Of calls that go on after their answer has begun
//! (gRPC's streams), only the message that is still coming counts.
//!
//! Where bytes are short, bodies that are waited for make room, those that come too slowly first: whoever sends half a
//! request and waits keeps nobody else out.

mod messages;
mod waiting;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use self::{
    messages::Messages,
    waiting::{Pace, Place, Waiting},
};
use crate::config::Faults;

/// Bytes that requests may hold which nobody known need have sent: of their own, so that nobody keeps others out by them.
const OPEN: usize = 4 << 20;
/// Bytes that such a request counts by itself, so that their number has a bound.
const OPEN_COST: usize = 1 << 10;

/// No part may hold more than one of so many of the whole.
const PARTS: usize = 4;

/// Bytes of bodies that may be held at once. A cheap handle.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Limit>);

#[derive(Debug)]
struct Limit {
    most: usize,
    held: AtomicUsize,
    /// What this one is a part of.
    whole: Option<Budget>,
    /// The bodies that are waited for, those of the whole.
    waiting: Arc<Waiting>,
}

/// What one request holds of a budget; given back when the last clone is dropped, of which one goes with the body and one
/// with the answer.
#[derive(Debug, Clone)]
pub struct Share(Arc<Held>);

#[derive(Debug)]
struct Held {
    budget: Budget,
    bytes: AtomicUsize,
    answered: AtomicBool,
    refused: AtomicBool,
    pace: Pace,
}

/// Counts a body as it comes.
#[derive(Debug)]
pub struct Counting {
    share: Share,
    /// None if it is not of gRPC.
    messages: Option<Messages>,
    /// None before it is waited for, and once all of it has come.
    place: Option<Place>,
}

/// Why a body is not read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes of requests are under way; retry later")]
pub struct OverBudget;

impl Budget {
    /// A budget of `most` bytes for all connections together.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let waiting = Arc::new(Waiting::new());
        Self(Arc::new(Limit { most, held: AtomicUsize::new(0), whole: None, waiting }))
    }

    /// A part of it, such as that of a connection: it may hold a quarter.
    #[must_use]
    pub fn part(&self) -> Self {
        let (most, waiting) = (self.0.most / PARTS, Arc::clone(&self.0.waiting));
        Self(Arc::new(Limit { most, held: AtomicUsize::new(0), whole: Some(self.clone()), waiting }))
    }

    /// A budget for requests that nobody known need have sent, each of which [counts](Share::count_open) by itself.
    #[must_use]
    pub fn open() -> Self {
        Self::new(OPEN)
    }

    /// A request of which nothing counts so far.
    #[must_use]
    pub fn share(&self) -> Share {
        Share(Arc::new(Held {
            budget: self.clone(),
            bytes: AtomicUsize::new(0),
            answered: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            pace: Pace::default(),
        }))
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Relaxed)
    }

    /// Takes bytes for `by`; others make room for it if they have to.
    fn take(&self, bytes: usize, by: &Held) -> Result<(), OverBudget> {
        // At first the part may be short of them, and then the whole.
        for _ in 0..2 {
            match self.try_take(bytes) {
                Ok(()) => return Ok(()),
                Err(short) if short.make_room(bytes, by) => {}
                Err(_) => return Err(OverBudget),
            }
        }
        self.try_take(bytes).map_err(|_| OverBudget)
    }

    /// Takes bytes, or tells which budget is short of them.
    fn try_take(&self, bytes: usize) -> Result<(), &Self> {
        let before = self.0.held.fetch_add(bytes, Relaxed);
        let fits = before.checked_add(bytes).is_some_and(|after| after <= self.0.most);
        let taken = match &self.0.whole {
            _ if !fits => Err(self),
            Some(whole) => whole.try_take(bytes),
            None => Ok(()),
        };
        if taken.is_err() {
            self.0.held.fetch_sub(bytes, Relaxed);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.0.held.fetch_sub(bytes, Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.give_back(bytes);
        }
    }

    /// Whether it is a part of `other`, or the same.
    fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.whole.as_ref().is_some_and(|whole| whole.is_of(other))
    }
}

/// Notes a fault of the setting `key`, a budget of `most` bytes, unless a body of `bytes` fits that `allowed_by` lets a
/// client send.
pub fn check_body(faults: &mut Faults, key: &str, most: usize, bytes: usize, allowed_by: &str) {
    if bytes >= most / PARTS {
        let why =
            format!("must be more than four times {allowed_by}, since one connection may hold a quarter");
        faults.add(key, why);
    }
}

impl Share {
    /// The answer has begun: once more of the body is waited for, only the message counts that is still coming.
    pub fn answered(&self) {
        self.0.answered.store(true, Relaxed);
    }

    /// Counts a request that nobody known need have sent.
    ///
    /// # Errors
    /// Too many are under way, and none of them is further behind.
    pub fn count_open(&self) -> Result<(), OverBudget> {
        self.take(OPEN_COST)
    }

    /// Whether the request was more than the budget had left, or had to make room.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.0.refused.load(Relaxed) || self.0.pace.has_lost()
    }

    fn take(&self, bytes: usize) -> Result<(), OverBudget> {
        let held = &*self.0;
        // One that has made room is not read on.
        let taken = if held.pace.has_lost() {
            Err(OverBudget)
        } else {
            held.budget.0.waiting.pay(held, bytes);
            held.budget.take(bytes, held)
        };
        match taken {
            Ok(()) => {
                held.bytes.fetch_add(bytes, Relaxed);
                Ok(())
            }
            Err(over) => {
                held.refused.store(true, Relaxed);
                Err(over)
            }
        }
    }

    fn give_back_but(&self, kept: usize) {
        let before = self.0.bytes.fetch_min(kept, Relaxed);
        self.0.budget.give_back(before.saturating_sub(kept));
    }
}

impl Held {
    /// Gives back all that it holds and tells whoever waits for the rest of it.
    fn lose(&self) {
        if self.pace.lose() {
            self.budget.give_back(self.bytes.swap(0, Relaxed));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(*self.bytes.get_mut());
    }
}

impl Counting {
    /// Counts a body for `share`; `is_grpc` says whether it is of messages of gRPC.
    #[must_use]
    pub fn new(share: Share, is_grpc: bool) -> Self {
        Self { share, messages: is_grpc.then(Messages::default), place: None }
    }

    /// For what goes with the answer.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share.clone()
    }

    /// Counts bytes that have come.
    ///
    /// # Errors
    /// They are too many, or the body has made room; it must be given up.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), OverBudget> {
        self.share.take(bytes.len())?;
        if let Some(messages) = &mut self.messages {
            messages.follow(bytes);
        }
        Ok(())
    }

    /// Called when more is waited for: whoever does so is done with the messages that are there, if the answer has begun.
    pub fn go_on(&self) {
        if self.share.0.answered.load(Relaxed) {
            self.share.give_back_but(self.messages.as_ref().map_or(0, Messages::incomplete));
        }
    }

    /// Called when more is waited for that is not there: from now on the body may have to make room. Ready if it had to;
    /// it must be given up.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<OverBudget> {
        let held = &self.share.0;
        if self.place.is_none() && held.bytes.load(Relaxed) > 0 {
            self.place = Some(held.budget.0.waiting.enter(held));
        }
        if self.place.is_none() {
            return Poll::Pending;
        }
        held.pace.poll_lost(cx)
    }

    /// All of the body has come: it makes room no more.
    ///
    /// # Errors
    /// It has made room before; it must be given up.
    pub fn ended(&mut self) -> Result<(), OverBudget> {
        self.place = None;
        if self.share.0.pace.come() { Ok(()) } else { Err(OverBudget) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    fn message(length: u8) -> Vec<u8> {
        [vec![0, 0, 0, 0, length], vec![7; length.into()]].concat()
    }

    #[test]
    fn what_is_not_answered_counts_once_it_came() {
        let budget = Budget::new(400);
        let connection = budget.part();
        let mut body = Counting::new(connection.share(), true);
        let answer = body.share();
        body.take(&message(55)).unwrap();
        body.go_on();
        assert_eq!((budget.held(), connection.held()), (60, 60), "nobody has answered");
        drop(body);
        assert_eq!(budget.held(), 60, "nor now");
        assert!(!answer.is_refused());
        drop(answer);
        assert_eq!((budget.held(), connection.held()), (0, 0));
    }

    #[test]
    fn neither_one_connection_nor_all_hold_more_than_they_may() {
        let budget = Budget::new(400);
        let connections = [(); 5].map(|()| budget.part());
        let mut bodies = connections.each_ref().map(|of| Counting::new(of.share(), false));
        assert_eq!(bodies[0].take(&[0; 101]), Err(OverBudget));
        assert!(bodies[0].share().is_refused());
        let mut second = Counting::new(connections[0].share(), false);
        second.take(&[0; 60]).unwrap();
        assert_eq!(bodies[0].take(&[0; 60]), Err(OverBudget), "the connection has no more");
        drop(second);
        for body in bodies.iter_mut().take(4) {
            body.take(&[0; 100]).unwrap();
        }
        assert_eq!(bodies[4].take(&[0]), Err(OverBudget), "nor have all");
        assert_eq!(budget.held(), 400);
        drop(bodies);
        assert_eq!(budget.held(), 0);
        Counting::new(connections[4].share(), false).take(&[0; 100]).unwrap();
    }

    #[test]
    fn a_budget_without_room_for_the_largest_message_is_a_fault() {
        let found = |most, bytes| {
            let mut faults = Faults::default();
            check_body(&mut faults, "grpc.limits.body_budget_bytes", most, bytes, "max_request_bytes");
            faults.found().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found(4_004, 1_000), [""; 0]);
        let fault = "grpc.limits.body_budget_bytes: must be more than four times max_request_bytes, since one \
            connection may hold a quarter";
        assert_eq!(found(4_000, 1_000), [fault]);
    }

    #[test]
    fn of_a_stream_only_the_incomplete_message_counts() {
        let stream = [message(3), message(0), message(200), message(1)].concat();
        for step in 1..stream.len() {
            let budget = Budget::new(4_000);
            let mut body = Counting::new(budget.part().share(), true);
            body.share().answered();
            let mut come = 0;
            for frame in stream.chunks(step) {
                body.take(frame).unwrap();
                come += frame.len();
                body.go_on();
                let begun = [0, 8, 13, 218, 224].into_iter().rfind(|begin| *begin <= come).unwrap();
                assert_eq!(budget.held(), come - begun, "{come} in steps of {step}");
            }
        }
    }
}
