//! The tables of a follower: the present one, the last few, and who waits for the next.

use super::status::{Condition, Status};
use super::updates::{Step, Update, Updates};
use crate::feed::FeedEntry;
use crate::instances::ServiceInstances;
use crate::projection::ProjectionStatus;
use arc_swap::{ArcSwap, Guard};
use grey_core::change::{FormatLevel, Position, Revision};
use grey_core::table::Table;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// Most changes that set the present table apart from the oldest one kept: some 100 bytes of a row each.
const MAX_CHANGES: usize = 200_000;

/// What became of applied entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Applied {
    /// The table is not known to differ from what the publisher has.
    InStep,
    /// It differs.
    Differs,
    /// An entry does not follow the table.
    OutOfOrder,
}

/// The tables of a follower. Cheap to clone; readers never wait.
#[derive(Clone)]
pub struct Tables(Arc<Inner>);

struct Inner {
    current: ArcSwap<Table>,
    /// Its lock is the writers' lock.
    history: Mutex<VecDeque<Past>>,
    /// The same for readers, who wait for no writer.
    past: ArcSwap<Vec<Arc<Table>>>,
    keep: usize,
    condition: Condition,
    applied: watch::Sender<Position>,
    updates: Updates,
}

/// A past revision of the present epoch.
struct Past {
    table: Arc<Table>,
    /// What sets it apart from the next one, and is kept for its sake alone.
    changes: usize,
}

impl Tables {
    pub(super) fn new(keep: usize, level: FormatLevel, stale_after: Duration) -> Self {
        Self(Arc::new(Inner {
            current: ArcSwap::default(),
            history: Mutex::default(),
            past: ArcSwap::default(),
            keep: keep.max(1),
            condition: Condition::new(level, stale_after),
            applied: watch::Sender::new(Position::default()),
            updates: Updates::default(),
        }))
    }

    /// The present table.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Table>> {
        self.0.current.load()
    }

    /// The present table, to keep.
    #[must_use]
    pub fn load_full(&self) -> Arc<Table> {
        self.0.current.load_full()
    }

    /// The table of a revision of the present epoch, if it is still kept. Its instances are those
    /// of its time.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Option<Arc<Table>> {
        let current = self.0.current.load_full();
        let asked = Position { revision, ..current.position() };
        if current.position() == asked {
            return Some(current);
        }
        self.0.past.load().iter().rev().find(|table| table.position() == asked).cloned()
    }

    /// Waits until the table is somewhere that suits `reached`; false if it has not come there within `deadline`.
    pub async fn wait_until(&self, reached: impl Fn(Position) -> bool, deadline: Duration) -> bool {
        if reached(self.load().position()) {
            return true;
        }
        let mut applied = self.0.applied.subscribe();
        let reached = applied.wait_for(|position| reached(*position));
        matches!(tokio::time::timeout(deadline, reached).await, Ok(Ok(_)))
    }

    /// How the follower stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.condition.status(&self.load())
    }

    /// Whether the table is known not to be the present one. [`Self::status`] tells more, and reads the clock.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.0.condition.is_suspect()
    }

    /// Whether instances have been loaded from the store since the start, or came with a snapshot.
    #[must_use]
    pub fn has_instances(&self) -> bool {
        self.0.condition.has_instances()
    }

    /// Wakes on each new position.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Position> {
        self.0.applied.subscribe()
    }

    /// Each change from now on. Subscribe first, then [`Self::load_full`]: nothing is missed in between, but
    /// events up to the loaded table's revision come again.
    #[must_use]
    pub fn updates(&self) -> broadcast::Receiver<Update> {
        self.0.updates.subscribe()
    }

    pub(super) fn loaded_position(&self) -> Option<Position> {
        self.0.condition.has_table().then(|| self.load().position())
    }

    pub(super) fn confirm(&self, at: Instant) {
        self.0.condition.confirm(at);
    }

    pub(super) fn differs(&self) -> bool {
        self.0.condition.differs()
    }

    pub(super) fn set_differs(&self, differs: bool) -> bool {
        self.0.condition.set_differs(differs)
    }

    pub(super) fn set_instances_differ(&self, differ: bool) -> bool {
        self.0.condition.set_instances_differ(differ)
    }

    pub(super) fn set_instances_damaged(&self, count: u64) -> u64 {
        self.0.condition.set_instances_damaged(count)
    }

    pub(super) fn set_needed(&self, needed: Option<FormatLevel>) -> bool {
        self.0.condition.set_needed(needed)
    }

    pub(super) fn instances_loaded(&self) {
        self.0.condition.set_instances();
    }

    /// Applies entries in order. A table that differs from what the publisher has is used all the same, most of it is
    /// right, but it is known to differ before anyone decides by it.
    pub(super) fn apply(&self, entries: Vec<FeedEntry>) -> Applied {
        let mut history = self.lock();
        let mut table = Table::clone(&self.0.current.load());
        let condition = &self.0.condition;
        for FeedEntry { event, digests } in entries {
            if table.apply(&event).is_err() {
                self.expose(&history);
                return Applied::OutOfOrder;
            }
            let in_step = digests.at(condition.level()).map(|digest| digest == table.digest());
            if in_step == Some(false) {
                condition.set_differs(true);
            }
            let (before, after) = (self.load_full(), Arc::new(table.clone()));
            self.publish(&mut history, Arc::clone(&after), event.changes.len());
            if in_step == Some(true) {
                condition.set_differs(false);
            }
            self.0.updates.announce_step(Step { event, before, after });
        }
        self.expose(&history);
        if condition.differs() { Applied::Differs } else { Applied::InStep }
    }

    /// Whether the table is what the publisher has at the same position; none if it is elsewhere.
    pub(super) fn compare(&self, projected: &ProjectionStatus) -> Option<bool> {
        if !self.0.condition.has_table() {
            return None;
        }
        let table = self.load();
        let digest = projected.digests.at(self.0.condition.level())?;
        (projected.position == table.position()).then(|| digest == table.digest())
    }

    /// Takes a loaded, verified table; false if that would be a step back.
    pub(super) fn replace(&self, mut table: Table) -> bool {
        let mut history = self.lock();
        let before = self.0.current.load_full();
        if self.0.condition.has_table() && table.position() < before.position() {
            tracing::warn!(table.revision = %before.position().revision, loaded.revision = %table.position().revision, "store is behind the table; keeping the table");
            return false;
        }
        table.adopt_instances(&before);
        // What differs is not known: it counts as all there may be.
        self.publish(&mut history, Arc::new(table), MAX_CHANGES);
        self.expose(&history);
        self.0.condition.set_table();
        self.0.condition.set_differs(false);
        self.0.condition.set_needed(None);
        self.0.condition.count_load();
        self.announce(Update::Reloaded);
        true
    }

    pub(super) fn restore(&self, table: Table) {
        let mut history = self.lock();
        self.publish(&mut history, Arc::new(table), MAX_CHANGES);
        self.expose(&history);
        self.0.condition.set_table();
        self.0.condition.set_instances();
    }

    pub(super) fn set_instances(&self, lists: Vec<ServiceInstances>) {
        if lists.is_empty() {
            return;
        }
        // The writers' lock keeps an event that is being applied from undoing this.
        let _history = self.lock();
        let mut table = Table::clone(&self.0.current.load());
        for list in &lists {
            table.set_instances(&list.service, list.instances.clone());
        }
        self.0.current.store(Arc::new(table));
        for list in lists {
            self.announce(Update::Instances(list.service));
        }
    }

    /// Makes `table`, which `changes` set apart from the present one, the present one.
    fn publish(&self, history: &mut VecDeque<Past>, table: Arc<Table>, changes: usize) {
        let position = table.position();
        let before = self.0.current.swap(table);
        if before.position().epoch == position.epoch {
            history.push_back(Past { table: before, changes });
        } else {
            // A revision of another epoch is another event.
            history.clear();
        }
        let mut changes: usize = history.iter().map(|past| past.changes).sum();
        while history.len() > self.0.keep || (changes > MAX_CHANGES && history.len() > 1) {
            changes -= history.pop_front().map_or(0, |oldest| oldest.changes);
        }
        self.0.applied.send_replace(position);
    }

    /// Shows readers the past.
    fn expose(&self, history: &VecDeque<Past>) {
        let past = history.iter().map(|past| Arc::clone(&past.table)).collect();
        self.0.past.store(Arc::new(past));
    }

    fn announce(&self, update: Update) {
        self.0.updates.announce(update);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Past>> {
        // A panic while it was held cannot have left a half-made table: tables are swapped whole.
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use crate::Digests;
    use grey_core::change::{Change, Event};
    use grey_core::key::Key;

    fn entry(revision: u64, changes: usize) -> FeedEntry {
        let removed = Change::Removed(Key::Tenant("acme".parse().unwrap()));
        let changes = vec![removed; changes];
        let event = Event { revision: Revision(revision), changes, ..Event::default() };
        FeedEntry { event, digests: Digests::unknown() }
    }

    fn tables(keep: usize, events: &[usize]) -> Tables {
        let tables = Tables::new(keep, FormatLevel::CURRENT, Duration::from_secs(1));
        let entries: Vec<FeedEntry> = (1..).zip(events).map(|(revision, n)| entry(revision, *n)).collect();
        assert!(tables.apply(entries) == Applied::InStep);
        tables
    }

    #[test]
    fn the_past_is_read_while_a_writer_writes() {
        let tables = tables(8, &[1, 1, 1]);
        let writing = tables.lock();
        let kept: Vec<bool> = (0..5).map(|revision| tables.at(Revision(revision)).is_some()).collect();
        assert_eq!(kept, [true, true, true, true, false]);
        drop(writing);
    }

    #[test]
    fn the_past_is_bounded_by_tables_and_by_what_sets_them_apart() {
        let kept =
            |tables: Tables| (0..6).filter(|at| tables.at(Revision(*at)).is_some()).collect::<Vec<_>>();
        assert_eq!(kept(tables(2, &[1, 1, 1, 1, 1])), [3, 4, 5]);
        let half = MAX_CHANGES / 2;
        assert_eq!(kept(tables(8, &[1, 1, half, half, 1])), [3, 4, 5]);
        assert_eq!(kept(tables(8, &[1, MAX_CHANGES + 1, 1])), [2, 3]);
    }
}
