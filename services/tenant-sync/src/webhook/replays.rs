//! Deliveries that were taken before.

use std::collections::{HashSet, VecDeque};
use std::time::SystemTime;

/// Most deliveries remembered; beyond them the oldest are forgotten. Only who knows a secret can bring that about.
const LIMIT: usize = 10_000;

/// The ids of the deliveries that are recent enough to be repeated.
#[derive(Debug, Default)]
pub(super) struct Replays {
    ids: HashSet<String>,
    /// Oldest first, and when each may be forgotten.
    order: VecDeque<(String, SystemTime)>,
}

impl Replays {
    /// Whether a delivery was noted, and is not to be forgotten yet.
    pub(super) fn knows(&mut self, id: &str, now: SystemTime) -> bool {
        while self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.forget_oldest();
        }
        self.ids.contains(id)
    }

    /// Remembers a delivery until `until`.
    pub(super) fn note(&mut self, id: &str, until: SystemTime) {
        if self.ids.insert(id.to_owned()) {
            self.order.push_back((id.to_owned(), until));
        }
        if self.order.len() > LIMIT {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((oldest, _)) = self.order.pop_front() {
            self.ids.remove(&oldest);
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
        assert!(!replays.knows("a", start));
        replays.note("a", start + WINDOW);
        assert!(replays.knows("a", start + WINDOW - Duration::from_secs(1)));
        assert!(!replays.knows("a", start + WINDOW));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let (mut replays, start) = (Replays::default(), SystemTime::UNIX_EPOCH);
        (0..=LIMIT).for_each(|i| replays.note(&i.to_string(), start + WINDOW));
        assert_eq!((replays.ids.len(), replays.order.len()), (LIMIT, LIMIT));
        assert!(replays.knows(&LIMIT.to_string(), start) && !replays.knows("0", start));
    }
}
