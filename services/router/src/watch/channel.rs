//! What the watchers of one selection share: each event and each replaced list of instances is encoded once for all of them,
//! kept for a while, and read from shared state once if it is kept no longer.
//!
//! A watcher holds nothing but its place. One that reads slowly is served from what is kept, or from what is read again; if
//! neither leads on, it starts over from the table.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use grey_core::change::{Event, Position, Revision};
use grey_core::ids::ServiceId;
use grey_state::feed::FeedRead;
use grey_state::follower::{Step, Update};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::timeout;

use super::recent::{Encoded, Recent, Told};
use crate::frames;
use crate::selection::{Around, Selection};
use crate::shared::Shared;

/// Most events that are sent instead of a snapshot.
pub(super) const MAX_BEHIND: u64 = 10_000;
/// Most events that are read at once, and how many changes they should have together: what was read is in memory until
/// it is encoded.
const BATCH: usize = 32;
const BATCH_CHANGES: usize = 2_000;
/// How long one read may wait; the events are there already.
const READ_WAIT: Duration = Duration::from_millis(100);
/// How long a watcher waits for an event to be read, the reads of others before it included.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub(super) struct Channel {
    shared: Arc<Shared>,
    selection: Arc<Selection>,
    /// How many channels may read at once.
    reads: Arc<Semaphore>,
    /// How many events are read next. Its lock lets one watcher read, and the others find what it read.
    batch: tokio::sync::Mutex<usize>,
    state: Mutex<State>,
}

struct State {
    /// Grows whenever watchers must start over.
    generation: u64,
    /// The newest event that was announced.
    revision: Revision,
    /// The newest replacement of a list of instances.
    replaced: u64,
    /// The service of each replacement that no other has followed, and the other way round.
    services: BTreeMap<u64, ServiceId>,
    replacements: HashMap<ServiceId, u64>,
    recent: Recent,
}

/// A watcher's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    generation: u64,
    /// What it was sent.
    pub(super) position: Position,
    replaced: u64,
    /// The last frame was a list, so an event is next if there is one.
    was_list: bool,
}

/// What a watcher is to do.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Send this; the place is behind it.
    Frame(Bytes),
    /// Send the table.
    StartOver,
    /// Wait.
    Nothing,
}

/// What is known of a watcher's next frame.
enum Look {
    Next(Next),
    /// An event that must be read.
    Event,
    /// The list of a service that must be encoded.
    List(ServiceId),
}

impl Channel {
    /// A channel that keeps nothing yet. `updates` must have been subscribed to before.
    pub(super) fn new(shared: Arc<Shared>, selection: Arc<Selection>, reads: Arc<Semaphore>) -> Self {
        let state = State {
            generation: 0,
            revision: shared.tables.load().position().revision,
            replaced: 0,
            services: BTreeMap::new(),
            replacements: HashMap::new(),
            recent: Recent::new(0, Arc::clone(&shared.gauges.watch_recent_bytes)),
        };
        let batch = tokio::sync::Mutex::new(1);
        Self { shared, selection, reads, batch, state: Mutex::new(state) }
    }

    pub(super) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// How many bytes of frames may be kept.
    pub(super) fn set_limit(&self, bytes: usize) {
        self.state().recent.set_limit(bytes);
    }

    /// Encodes what is announced, and tells through `news` that there is some. Ends with the announcements.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut updates: broadcast::Receiver<Update>,
        news: watch::Sender<()>,
    ) {
        loop {
            match updates.recv().await {
                Ok(Update::Event { revision, step }) => self.take_step(revision, step.upgrade().as_deref()),
                Ok(Update::Instances(service)) => self.take_list(&service),
                Ok(Update::Reloaded) | Err(broadcast::error::RecvError::Lagged(_)) => self.start_over(),
                Err(broadcast::error::RecvError::Closed) => return,
            }
            news.send_replace(());
        }
    }

    /// Takes what led to a revision; none if it is too long ago.
    fn take_step(&self, revision: Revision, step: Option<&Step>) {
        match step {
            Some(Step { event, before, after }) => self.take_event(event, (before, after)),
            None if revision > self.state().revision => self.start_over(),
            None => {}
        }
    }

    fn take_event(&self, event: &Event, tables: Around<'_>) {
        let revision = event.revision;
        if revision <= self.state().revision {
            return;
        }
        let encoded = self.encode(event, Some(tables));
        let mut state = self.state();
        if revision == state.revision.next() {
            state.revision = revision;
            state.recent.keep(Told::Event(revision), encoded);
        } else {
            drop(state);
            self.start_over();
        }
    }

    fn take_list(&self, service: &ServiceId) {
        if !self.selection.has(service) {
            return;
        }
        let list = self.encode_list(service);
        let mut state = self.state();
        state.replaced += 1;
        let replaced = state.replaced;
        if let Some(before) = state.replacements.insert(service.clone(), replaced) {
            state.services.remove(&before);
        }
        state.services.insert(replaced, service.clone());
        state.recent.keep(Told::Instances(replaced), Encoded::Frame(list));
    }

    fn start_over(&self) {
        let present = self.shared.tables.load().position().revision;
        let mut state = self.state();
        state.generation += 1;
        state.revision = present;
        // A revision may have come to mean another event, and every list is in the table.
        state.recent.clear();
        state.services.clear();
        state.replacements.clear();
    }

    /// The place of a watcher that has everything which was announced so far, but for its position, which is to be set.
    /// What it has must be loaded afterwards.
    pub(super) fn place(&self) -> Place {
        let state = self.state();
        let position = Position::default();
        Place { generation: state.generation, position, replaced: state.replaced, was_list: false }
    }

    /// What comes after a place, which then moves on.
    pub(super) async fn next(&self, place: &mut Place) -> Next {
        let encoded = match self.look(place) {
            Look::Next(next) => return next,
            Look::List(service) => Some(Encoded::Frame(self.encode_list(&service))),
            Look::Event => {
                let read = timeout(READ_DEADLINE, self.read(place.generation, place.position)).await;
                let read = read.ok().flatten();
                place.position.revision = place.position.revision.next();
                read
            }
        };
        match encoded {
            Some(Encoded::Frame(frame)) => Next::Frame(frame),
            Some(Encoded::Omitted) | None => Next::StartOver,
        }
    }

    fn look(&self, place: &mut Place) -> Look {
        let state = self.state();
        if state.generation != place.generation {
            return Look::Next(Next::StartOver);
        }
        // In turns, so that neither waits for the end of the other.
        let found = if place.was_list {
            state.next_event(place).or_else(|| state.next_list(place))
        } else {
            state.next_list(place).or_else(|| state.next_event(place))
        };
        found.unwrap_or(Look::Next(Next::Nothing))
    }

    /// Reads the event after `position`, and some of those after it for whoever comes next; none if it cannot be had.
    async fn read(&self, generation: u64, position: Position) -> Option<Encoded> {
        let mut batch = self.batch.lock().await;
        let wanted = Told::Event(position.revision.next());
        if let Some(encoded) = self.state().recent.get(wanted) {
            // Somebody else has read it.
            return Some(encoded.clone());
        }
        let _read = self.reads.acquire().await.ok()?;
        let level = self.shared.tables.status().level;
        let read = self.shared.state.feed.read(&position, level, *batch, READ_WAIT).await;
        let Ok(FeedRead::Entries(read)) = read else { return None };
        let changes: usize = read.iter().map(|entry| entry.event.changes.len()).sum();
        *batch = (*batch * BATCH_CHANGES / changes.max(1)).clamp(1, (*batch * 2).min(BATCH));
        let mut first = None;
        for entry in read {
            let Some(encoded) = self.encode_past(&entry.event) else { break };
            let mut state = self.state();
            if state.generation == generation {
                state.recent.keep(Told::Event(entry.event.revision), encoded.clone());
            }
            first.get_or_insert(encoded);
        }
        first
    }

    /// An event of which the tables around it may be kept no longer.
    fn encode_past(&self, event: &Event) -> Option<Encoded> {
        if !self.selection.needs_tables() {
            return Some(self.encode(event, None));
        }
        let at = |revision| self.shared.tables.at(revision);
        let (before, after) = (at(event.revision.before())?, at(event.revision)?);
        let tables: Around<'_> = (&before, &after);
        Some(self.encode(event, Some(tables)))
    }

    fn encode(&self, event: &Event, tables: Option<Around<'_>>) -> Encoded {
        match frames::event(&self.selection, event, tables) {
            Some(frame) => Encoded::Frame(frame),
            None => Encoded::Omitted,
        }
    }

    fn encode_list(&self, service: &ServiceId) -> Bytes {
        frames::encoded(&frames::instances_of(&self.shared.tables.load(), service))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every update is finished before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_event(&self, place: &mut Place) -> Option<Look> {
        let behind = self.revision.0.saturating_sub(place.position.revision.0);
        if behind == 0 {
            return None;
        }
        place.was_list = false;
        if behind > MAX_BEHIND {
            return Some(Look::Next(Next::StartOver));
        }
        let next = place.position.revision.next();
        Some(match self.recent.get(Told::Event(next)) {
            Some(Encoded::Frame(frame)) => {
                place.position.revision = next;
                Look::Next(Next::Frame(frame.clone()))
            }
            Some(Encoded::Omitted) => Look::Next(Next::StartOver),
            None => Look::Event,
        })
    }

    fn next_list(&self, place: &mut Place) -> Option<Look> {
        let (replaced, service) = self.services.range(place.replaced + 1..).next()?;
        place.replaced = *replaced;
        place.was_list = true;
        Some(match self.recent.get(Told::Instances(*replaced)) {
            Some(Encoded::Frame(list)) => Look::Next(Next::Frame(list.clone())),
            Some(Encoded::Omitted) | None => Look::List(service.clone()),
        })
    }
}

#[cfg(test)]
mod tests;
