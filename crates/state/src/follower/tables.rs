//! The tables of a follower: the present one, the last few, and who waits for the next.

use crate::feed::FeedEntry;
use crate::instances::ServiceInstances;
use crate::projection::ProjectionStatus;
use arc_swap::{ArcSwap, Guard};
use grey_core::change::{Event, Position, Revision};
use grey_core::table::Table;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// Updates that a slow subscriber may fall behind before it must start over.
const UPDATE_BACKLOG: usize = 1_024;

/// A change of the table, for those who pass it on.
#[derive(Clone, Debug)]
pub enum Update {
    /// An event was applied.
    Event(Arc<Event>),
    /// A service's instances were replaced.
    Instances(Arc<ServiceInstances>),
    /// Another table took the place: start over from it.
    Reloaded,
}

/// How a follower stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// A table is loaded, from the store or from a snapshot.
    pub ready: bool,
    /// Time since the store last confirmed the table; none if it never did.
    pub age: Option<Duration>,
    /// The store has not confirmed the table for too long.
    pub stale: bool,
    /// What the table contains.
    pub position: Position,
    /// Its digest.
    pub digest: u64,
    /// Times that the table was loaded from the projection.
    pub loads: u64,
    /// Times that the table had drifted from the feed.
    pub drifts: u64,
}

/// The tables of a follower. Cheap to clone; readers never wait.
#[derive(Clone)]
pub struct Tables(Arc<Inner>);

struct Inner {
    current: ArcSwap<Table>,
    /// Past revisions, oldest first. Its lock is the writers' lock.
    history: Mutex<VecDeque<Arc<Table>>>,
    keep: usize,
    loaded: AtomicBool,
    instances_loaded: AtomicBool,
    stale_after: Duration,
    origin: Instant,
    /// Milliseconds after `origin` of the last contact, plus one; 0 for never.
    contact: AtomicU64,
    loads: AtomicU64,
    drifts: AtomicU64,
    applied: watch::Sender<Position>,
    updates: broadcast::Sender<Update>,
}

impl Tables {
    pub(super) fn new(keep: usize, stale_after: Duration) -> Self {
        Self(Arc::new(Inner {
            current: ArcSwap::default(),
            history: Mutex::default(),
            keep: keep.max(1),
            loaded: AtomicBool::new(false),
            instances_loaded: AtomicBool::new(false),
            stale_after,
            origin: Instant::now(),
            contact: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            drifts: AtomicU64::new(0),
            applied: watch::Sender::new(Position::default()),
            updates: broadcast::Sender::new(UPDATE_BACKLOG),
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

    /// The table of a revision of the present generation, if it is still kept. Its instances are those
    /// of its time.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Option<Arc<Table>> {
        let current = self.0.current.load_full();
        if current.position().revision == revision {
            return Some(current);
        }
        self.lock().iter().rev().find(|table| table.position().revision == revision).cloned()
    }

    /// Waits until the table has reached `revision`; false if it has not within `deadline`.
    pub async fn wait_for(&self, revision: Revision, deadline: Duration) -> bool {
        if self.load().position().revision >= revision {
            return true;
        }
        let mut applied = self.0.applied.subscribe();
        let reached = applied.wait_for(|position| position.revision >= revision);
        matches!(tokio::time::timeout(deadline, reached).await, Ok(Ok(_)))
    }

    /// How the follower stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let table = self.load();
        let age = match self.0.contact.load(Relaxed) {
            0 => None,
            at => Some(self.0.origin.elapsed().saturating_sub(Duration::from_millis(at - 1))),
        };
        Status {
            ready: self.0.loaded.load(Relaxed),
            stale: age.is_none_or(|age| age > self.0.stale_after),
            age,
            position: table.position().clone(),
            digest: table.digest(),
            loads: self.0.loads.load(Relaxed),
            drifts: self.0.drifts.load(Relaxed),
        }
    }

    /// Whether instances have been loaded from the store since the start, or came with a snapshot.
    #[must_use]
    pub fn has_instances(&self) -> bool {
        self.0.instances_loaded.load(Relaxed)
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
        self.0.loaded.load(Relaxed).then(|| self.load().position().clone())
    }

    pub(super) fn contact(&self) {
        let now = u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.0.contact.store(now + 1, Relaxed);
    }

    pub(super) fn instances_loaded(&self) {
        self.0.instances_loaded.store(true, Relaxed);
    }

    /// Applies entries in order; false if the table then differs from what the publisher has. It is applied all the
    /// same: most of it is right, and the next load mends the rest.
    pub(super) fn apply(&self, entries: &[FeedEntry]) -> bool {
        let mut history = self.lock();
        let mut table = Table::clone(&self.0.current.load());
        let mut in_step = true;
        for entry in entries {
            if table.apply(&entry.event).is_err() {
                return false;
            }
            self.publish(&mut history, table.clone());
            self.announce(Update::Event(Arc::new(entry.event.clone())));
            in_step = entry.digest == 0 || entry.digest == table.digest();
        }
        if !in_step {
            self.count_drift();
        }
        in_step
    }

    /// Whether the publisher has something else at the table's own position.
    pub(super) fn differs_from(&self, projected: &ProjectionStatus) -> bool {
        let table = self.load();
        projected.position == *table.position() && projected.digest != 0 && projected.digest != table.digest()
    }

    pub(super) fn count_drift(&self) {
        self.0.drifts.fetch_add(1, Relaxed);
    }

    /// Takes a loaded table; false if that would be a step back.
    pub(super) fn replace(&self, mut table: Table) -> bool {
        let mut history = self.lock();
        let before = self.0.current.load_full();
        if self.0.loaded.load(Relaxed) && is_step_back(before.position(), table.position()) {
            tracing::warn!(table.revision = %before.position().revision, loaded.revision = %table.position().revision, "store is behind the table; keeping the table");
            return false;
        }
        if before.position().generation != table.position().generation {
            history.clear();
        }
        table.adopt_instances(&before);
        self.publish(&mut history, table);
        self.0.loaded.store(true, Relaxed);
        self.0.loads.fetch_add(1, Relaxed);
        self.contact();
        self.announce(Update::Reloaded);
        true
    }

    pub(super) fn restore(&self, table: Table) {
        let mut history = self.lock();
        self.publish(&mut history, table);
        self.0.loaded.store(true, Relaxed);
        self.0.instances_loaded.store(true, Relaxed);
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
            self.announce(Update::Instances(Arc::new(list)));
        }
    }

    fn publish(&self, history: &mut VecDeque<Arc<Table>>, table: Table) {
        let position = table.position().clone();
        let before = self.0.current.swap(Arc::new(table));
        history.push_back(before);
        while history.len() > self.0.keep {
            history.pop_front();
        }
        self.0.applied.send_replace(position);
    }

    fn announce(&self, update: Update) {
        // Nobody may be listening, which is fine.
        let _listeners = self.0.updates.send(update);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Table>>> {
        // A panic while it was held cannot have left a half-made table: tables are swapped whole.
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Generations are UUIDs of version 7: a later one sorts after an earlier one.
fn is_step_back(from: &Position, to: &Position) -> bool {
    to.generation < from.generation || (to.generation == from.generation && to.revision < from.revision)
}
