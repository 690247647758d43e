//! Bytes of requests' bodies that may be held at once, by one connection and by all of a port.
//!
//! A body counts from when its bytes come until its request is answered. Of calls that go on after their answer has begun
//! (gRPC's streams), only the message that is still coming counts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use crate::config::Faults;

/// Bytes before each message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

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
}

/// Counts a body as it comes.
#[derive(Debug)]
pub struct Counting {
    share: Share,
    /// None if it is not of gRPC.
    messages: Option<Messages>,
}

/// Why a body is not read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes of requests are under way; retry later")]
pub struct OverBudget;

impl Budget {
    /// A budget of `most` bytes for all connections together.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Limit { most, held: AtomicUsize::new(0), whole: None }))
    }

    /// A part of it, such as that of a connection: it may hold a quarter.
    #[must_use]
    pub fn part(&self) -> Self {
        let most = self.0.most / PARTS;
        Self(Arc::new(Limit { most, held: AtomicUsize::new(0), whole: Some(self.clone()) }))
    }

    /// A request of which nothing counts so far.
    #[must_use]
    pub fn share(&self) -> Share {
        let (bytes, answered, refused) =
            (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Share(Arc::new(Held { budget: self.clone(), bytes, answered, refused }))
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), OverBudget> {
        let before = self.0.held.fetch_add(bytes, Relaxed);
        let fits = before.checked_add(bytes).is_some_and(|after| after <= self.0.most);
        let taken = if fits {
            self.0.whole.as_ref().map_or(Ok(()), |whole| whole.take(bytes))
        } else {
            Err(OverBudget)
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

    /// Whether the request was more than the budget had left.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.0.refused.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), OverBudget> {
        match self.0.budget.take(bytes) {
            Ok(()) => {
                self.0.bytes.fetch_add(bytes, Relaxed);
                Ok(())
            }
            Err(over) => {
                self.0.refused.store(true, Relaxed);
                Err(over)
            }
        }
    }

    fn give_back_but(&self, kept: usize) {
        let before = self.0.bytes.fetch_min(kept, Relaxed);
        self.0.budget.give_back(before.saturating_sub(kept));
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
        Self { share, messages: is_grpc.then(Messages::default) }
    }

    /// For what goes with the answer.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share.clone()
    }

    /// Counts bytes that have come.
    ///
    /// # Errors
    /// They are too many; the body must be given up.
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
}

/// Follows messages of gRPC through the frames that they come in.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX],
    /// How much has come of the message that is incomplete, its prefix included.
    come: usize,
    /// How much is missing of it; unknown, and 0, while its prefix comes.
    missing: usize,
}

impl Messages {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = if self.missing > 0 {
                let taken = self.missing.min(bytes.len());
                self.missing -= taken;
                taken
            } else {
                self.follow_prefix(bytes)
            };
            self.come += taken;
            if self.missing == 0 && self.come >= PREFIX {
                self.come = 0;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// How many of the bytes are of the prefix.
    fn follow_prefix(&mut self, bytes: &[u8]) -> usize {
        let wanted = self.prefix.get_mut(self.come..).unwrap_or_default();
        let taken = wanted.len().min(bytes.len());
        for (place, byte) in wanted.iter_mut().zip(bytes) {
            *place = *byte;
        }
        if taken == wanted.len() {
            let [_, length @ ..] = self.prefix;
            self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        }
        taken
    }

    fn incomplete(&self) -> usize {
        self.come
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
