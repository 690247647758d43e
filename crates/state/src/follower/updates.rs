//! Who is told of each change of the table.

use grey_core::change::{Event, Revision};
use grey_core::ids::ServiceId;
use grey_core::table::Table;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::broadcast;

/// Updates that a slow subscriber may fall behind before it must start over.
const BACKLOG: usize = 1_024;
/// Changes that the events among them may have together: some hundred bytes each, in the event and in the tables around it.
const BACKLOG_CHANGES: usize = 100_000;

/// A change of the table, for those who pass it on.
#[derive(Clone, Debug)]
pub enum Update {
    /// An event was applied.
    Event {
        /// The revision since then.
        revision: Revision,
        /// What was done; gone if the subscriber has fallen too far behind, and must start over.
        step: Weak<Step>,
    },
    /// The instances of a service were replaced.
    Instances(ServiceId),
    /// Another table took the place: start over from it.
    Reloaded,
}

/// An event and what it made of the table.
#[derive(Debug)]
pub struct Step {
    /// The event.
    pub event: Event,
    /// The table before it.
    pub before: Arc<Table>,
    /// The table with it.
    pub after: Arc<Table>,
}

/// Everyone who passes changes on.
pub(super) struct Updates {
    sender: broadcast::Sender<Update>,
    unread: Mutex<Unread>,
}

/// The steps of updates that not everyone has read, in their order; none for an update that has no step, or had to give it
/// up.
#[derive(Default)]
struct Unread {
    steps: VecDeque<Option<Arc<Step>>>,
    changes: usize,
}

impl Default for Updates {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), unread: Mutex::default() }
    }
}

impl Updates {
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Update> {
        self.sender.subscribe()
    }

    /// Announces an event; writers do so one after the other.
    pub(super) fn announce_step(&self, step: Step) {
        let (revision, step) = (step.event.revision, Arc::new(step));
        self.send(Update::Event { revision, step: Arc::downgrade(&step) }, Some(step));
    }

    pub(super) fn announce(&self, update: Update) {
        self.send(update, None);
    }

    fn send(&self, update: Update, step: Option<Arc<Step>>) {
        // A panic while it was held cannot have left it half changed.
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.push(step);
        // Nobody may be listening, which is fine.
        let _listeners = self.sender.send(update);
        // Whoever is furthest behind may just have taken out the update before those that it has not read.
        let taken_out = usize::from(self.sender.receiver_count() > 0);
        unread.trim(self.sender.len() + taken_out);
    }
}

impl Unread {
    fn push(&mut self, step: Option<Arc<Step>>) {
        self.changes += changes(step.as_ref());
        self.steps.push_back(step);
    }

    /// Leaves the last `count`, and of those no more than may be kept; the newest in any case.
    fn trim(&mut self, count: usize) {
        while self.steps.len() > count {
            let read = self.steps.pop_front().flatten();
            self.changes -= changes(read.as_ref());
        }
        let older = self.steps.len().saturating_sub(1);
        for step in self.steps.iter_mut().take(older) {
            if self.changes <= BACKLOG_CHANGES {
                break;
            }
            self.changes -= changes(step.take().as_ref());
        }
    }
}

fn changes(step: Option<&Arc<Step>>) -> usize {
    step.map_or(0, |step| step.event.changes.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
    use super::*;
    use grey_core::change::Change;
    use grey_core::key::Key;

    fn step(revision: u64, changes: usize) -> Step {
        let removed = Change::Removed(Key::Tenant("acme".parse().unwrap()));
        let event =
            Event { revision: Revision(revision), changes: vec![removed; changes], ..Event::default() };
        Step { event, before: Arc::default(), after: Arc::default() }
    }

    /// What the next update tells: its revision, and whether its step is still there.
    fn read(updates: &mut broadcast::Receiver<Update>) -> (u64, bool) {
        match updates.try_recv().unwrap() {
            Update::Event { revision, step } => (revision.0, step.upgrade().is_some()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_backlog_is_bounded_by_what_its_events_change() {
        let updates = Updates::default();
        let mut slow = updates.subscribe();
        for revision in 1..=4 {
            updates.announce_step(step(revision, BACKLOG_CHANGES / 2));
        }
        assert_eq!([(); 4].map(|()| read(&mut slow)), [(1, false), (2, false), (3, true), (4, true)]);
        updates.announce_step(step(5, 2 * BACKLOG_CHANGES));
        assert_eq!(read(&mut slow), (5, true), "the newest is kept, however large");
    }

    #[test]
    fn of_what_everyone_has_read_the_last_alone_is_kept() {
        let updates = Updates::default();
        updates.announce_step(step(1, 1));
        assert!(updates.unread.lock().unwrap().steps.is_empty(), "nobody listens");
        let [mut one, mut other] = [(); 2].map(|()| updates.subscribe());
        updates.announce_step(step(2, 1));
        updates.announce(Update::Instances("payment".parse().unwrap()));
        assert_eq!(read(&mut one), (2, true));
        assert_eq!(read(&mut other), (2, true));
        updates.announce_step(step(3, 1));
        let unread = updates.unread.lock().unwrap();
        assert_eq!((unread.steps.len(), unread.changes), (3, 2));
        drop(unread);
        for updates in [&mut one, &mut other] {
            assert!(matches!(updates.try_recv(), Ok(Update::Instances(_))));
            assert_eq!(read(updates), (3, true));
        }
        updates.announce_step(step(4, 1));
        let unread = updates.unread.lock().unwrap();
        assert_eq!((unread.steps.len(), unread.changes), (2, 2));
    }
}
