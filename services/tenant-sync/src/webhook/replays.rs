//! Deliveries that were taken before.

use std::collections::{HashSet, VecDeque};
use std::time::SystemTime;

/// Most deliveries remembered; beyond them the oldest are forgotten. Only who knows a secret can bring that about.
const LIMIT: usize = 10_000;

/// Whether a delivery is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    First,
    Before,
}

/// The ids of the deliveries that are recent enough to be repeated.
#[derive(Debug, Default)]
pub(super) struct Replays {
    ids: HashSet<String>,
    /// Oldest first, and when each may be forgotten.
    order: VecDeque<(String, SystemTime)>,
}

impl Replays {
    /// Remembers a delivery until `until`.
    pub(super) fn note(&mut self, id: &str, now: SystemTime, until: SystemTime) -> Seen {
        while self.order.front().is_some_and(|(_, until)| *until <= now) || self.order.len() >= LIMIT {
            let Some((oldest, _)) = self.order.pop_front() else { break };
            self.ids.remove(&oldest);
        }
        if !self.ids.insert(id.to_owned()) {
            return Seen::Before;
        }
        self.order.push_back((id.to_owned(), until));
        Seen::First
    }

    /// Takes a delivery back: it could not be carried out.
    pub(super) fn forget(&mut self, id: &str) {
        if self.ids.remove(id) {
            self.order.retain(|(known, _)| known != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    #[test]
    fn ids_are_remembered_for_their_window() {
        let (mut replays, start) = (Replays::default(), SystemTime::UNIX_EPOCH);
        assert_eq!(replays.note("a", start, start + WINDOW), Seen::First);
        assert_eq!(replays.note("b", start, start + WINDOW), Seen::First);
        let later = start + WINDOW - Duration::from_secs(1);
        assert_eq!(replays.note("a", later, later + WINDOW), Seen::Before);
        let after = start + WINDOW;
        assert_eq!(replays.note("a", after, after + WINDOW), Seen::First);
    }

    #[test]
    fn an_id_that_is_taken_back_is_new_again() {
        let (mut replays, start) = (Replays::default(), SystemTime::UNIX_EPOCH);
        assert_eq!(replays.note("a", start, start + WINDOW), Seen::First);
        replays.forget("a");
        replays.forget("unknown");
        assert_eq!(replays.note("a", start, start + WINDOW), Seen::First);
        assert_eq!(replays.note("a", start, start + WINDOW), Seen::Before);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let (mut replays, start) = (Replays::default(), SystemTime::UNIX_EPOCH);
        for i in 0..=LIMIT {
            assert_eq!(replays.note(&i.to_string(), start, start + WINDOW), Seen::First);
        }
        assert_eq!((replays.ids.len(), replays.order.len()), (LIMIT, LIMIT));
        assert_eq!(replays.note(&LIMIT.to_string(), start, start + WINDOW), Seen::Before);
        assert_eq!(replays.note("0", start, start + WINDOW), Seen::First);
    }
}
