//! What the leading publisher does.

use super::{Interrupted, Publisher};
use crate::FencingToken;
use crate::feed::{Append, FeedEntry, FeedRead, Head};
use crate::projection::ProjectionStatus;
use grey_core::change::{Event, Position, Record, Revision};
use grey_core::table::Table;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Batches of records on their way from the log to the projection.
const RECORDS_IN_FLIGHT: usize = 4;

/// Whether feed and projection can be continued.
#[derive(PartialEq, Eq, Debug)]
enum Health {
    Sound,
    Damaged,
}

impl Publisher {
    /// Mends what needs mending, then publishes each commit. Returns to be started over when something was
    /// found damaged.
    pub(super) async fn lead(&self, token: FencingToken) -> Result<(), Interrupted> {
        let (mut mirror, mut last) = self.mend(token).await?;
        self.handle.0.published.store(mirror.position().revision.0, Relaxed);
        let mut next_check = Instant::now() + self.options.check;
        let mut next_deep_check = Instant::now() + self.options.deep_check;
        loop {
            if self.publish_new(token, &mut mirror, &mut last).await? == Health::Damaged {
                return Ok(());
            }
            if Instant::now() >= next_check {
                if self.check(&mirror).await? == Health::Damaged {
                    return Ok(());
                }
                next_check = Instant::now() + self.options.check;
            }
            if Instant::now() >= next_deep_check {
                self.deep_check(token, &mirror).await?;
                next_deep_check = Instant::now() + self.options.deep_check;
            }
            // A timeout only means that nobody told of a commit.
            let _told = tokio::time::timeout(self.options.poll, self.handle.0.wake.notified()).await;
        }
    }

    // === steady state ===

    /// Publishes what was committed since. The last published event is read again with it: if the log holds
    /// another one now, it was restored and written to in between.
    async fn publish_new(
        &self,
        token: FencingToken,
        mirror: &mut Table,
        last: &mut Option<Event>,
    ) -> Result<Health, Interrupted> {
        loop {
            let after = before(mirror.position().revision);
            let mut events = self.log.events(after, self.options.batch + 1).await?.into_iter();
            if last.is_some() && events.next().as_ref() != last.as_ref() {
                self.start_generation(mirror.position()).await?;
                return Ok(Health::Damaged);
            }
            if events.len() == 0 {
                return Ok(Health::Sound);
            }
            for event in events {
                if mirror.apply(&event).is_err() {
                    return Ok(Health::Damaged);
                }
                let entry = FeedEntry { event, digest: mirror.digest() };
                if self.append(token, mirror.position(), &entry).await? == Health::Damaged {
                    return Ok(Health::Damaged);
                }
                self.handle.0.published.store(mirror.position().revision.0, Relaxed);
                self.state.projection.apply(token, &entry.event, &status_of(mirror)).await?;
                *last = Some(entry.event);
            }
        }
    }

    async fn event(&self, revision: Revision) -> Result<Option<Event>, Interrupted> {
        let events = self.log.events(before(revision), 1).await?;
        Ok(events.into_iter().next().filter(|event| event.revision == revision))
    }

    async fn start_generation(&self, published: &Position) -> Result<Position, Interrupted> {
        tracing::error!(revision = %published.revision, "log is not the one that was published: it was restored; starting a new generation");
        Ok(self.log.start_generation(&published.generation).await?)
    }

    async fn append(
        &self,
        token: FencingToken,
        at: &Position,
        entry: &FeedEntry,
    ) -> Result<Health, Interrupted> {
        match self.state.feed.append(token, &at.generation, entry).await? {
            Append::Appended | Append::Duplicate => Ok(Health::Sound),
            Append::OutOfPlace => Ok(Health::Damaged),
        }
    }

    /// Whether feed and projection are where they were left, and the log is still the one that was published.
    async fn check(&self, mirror: &Table) -> Result<Health, Interrupted> {
        let log = self.log.head().await?;
        let head = self.state.feed.head().await?;
        let projected = self.state.projection.status().await?;
        let position = mirror.position();
        let feed_sound =
            head.is_some_and(|h| h.generation == position.generation && h.last == position.revision);
        let projection_sound = projected.is_some_and(|status| status == status_of(mirror));
        let log_sound = log.generation == position.generation && log.revision >= position.revision;
        let sound = feed_sound && projection_sound && log_sound && !self.routers_are_ahead(&log).await?;
        Ok(if sound { Health::Sound } else { Health::Damaged })
    }

    /// Whether a router has applied more than the log holds: the log was restored, and the store, which would
    /// have told, was lost as well.
    async fn routers_are_ahead(&self, log: &Position) -> Result<bool, Interrupted> {
        let ahead = |at: &Position| at.generation == log.generation && at.revision > log.revision;
        Ok(self.state.heartbeats.live().await?.iter().any(|router| ahead(&router.position)))
    }

    /// Compares every record of the projection with the mirror; rebuilds it if they differ.
    async fn deep_check(&self, token: FencingToken, mirror: &Table) -> Result<(), Interrupted> {
        let mut loaded = Table::default();
        self.state.projection.load(&mut |records| records.into_iter().for_each(|r| loaded.insert(r))).await?;
        if loaded.digest() != mirror.digest() {
            tracing::error!("projection has drifted from the log; rebuilding it");
            self.rebuild(token).await?;
        }
        Ok(())
    }

    // === mending ===

    /// Brings feed and projection to the log's head, and returns a table at exactly that revision with the event
    /// that led to it.
    async fn mend(&self, token: FencingToken) -> Result<(Table, Option<Event>), Interrupted> {
        let head = self.state.feed.head().await?;
        let mut log = self.log.head().await?;
        let own_feed = head.as_ref().filter(|h| h.generation == log.generation);
        let feed_ahead = match own_feed {
            Some(head) => head.last > log.revision || self.differs_from_feed(head).await?,
            None => false,
        };
        if feed_ahead || self.routers_are_ahead(&log).await? {
            log = self.start_generation(&log).await?;
        }
        let head = head.filter(|h| h.generation == log.generation);
        let projected = self.state.projection.status().await?;
        let usable = |status: &ProjectionStatus| {
            status.position.generation == log.generation && status.position.revision <= log.revision
        };
        let ((mirror, last), projected) = match projected.filter(usable) {
            Some(status) => (self.read_log().await?, status),
            None => self.rebuild(token).await?,
        };
        if was_rewritten(&projected, &mirror) {
            self.start_generation(&log).await?;
            return Box::pin(self.mend(token)).await;
        }
        self.mend_feed(token, head, &mirror).await?;
        self.mend_projection(token, projected, &mirror).await?;
        Ok((mirror, last))
    }

    /// Whether the log holds another event than the feed at the feed's end.
    async fn differs_from_feed(&self, head: &Head) -> Result<bool, Interrupted> {
        if head.last == head.first {
            return Ok(false);
        }
        let before_last = Position { generation: head.generation.clone(), revision: before(head.last) };
        let FeedRead::Entries(entries) = self.state.feed.read(&before_last, 1, Duration::ZERO).await? else {
            return Ok(false);
        };
        let logged = self.event(head.last).await?;
        Ok(entries.first().is_some_and(|entry| Some(&entry.event) != logged.as_ref()))
    }

    /// Appends what the feed lacks, or starts it over at the mirror's position.
    async fn mend_feed(
        &self,
        token: FencingToken,
        head: Option<Head>,
        mirror: &Table,
    ) -> Result<(), Interrupted> {
        let Some(head) = head else {
            return Ok(self.state.feed.reset(token, mirror.position()).await?);
        };
        let end = mirror.position().revision;
        let mut last = head.last;
        while last < end {
            let events = self.log.events(last, self.options.batch).await?;
            let Some(newest) = events.last().map(|e| e.revision) else { break };
            for event in events.into_iter().take_while(|e| e.revision <= end) {
                // Only the mirror's own revision has a digest at hand; 0 tells readers not to compare.
                let digest = if event.revision == end { mirror.digest() } else { 0 };
                let entry = FeedEntry { event, digest };
                if self.append(token, mirror.position(), &entry).await? == Health::Damaged {
                    return Ok(self.state.feed.reset(token, mirror.position()).await?);
                }
            }
            last = newest;
        }
        Ok(())
    }

    async fn mend_projection(
        &self,
        token: FencingToken,
        mut projected: ProjectionStatus,
        mirror: &Table,
    ) -> Result<(), Interrupted> {
        let end = mirror.position().revision;
        while projected.position.revision < end {
            let events = self.log.events(projected.position.revision, self.options.batch).await?;
            if events.is_empty() {
                break;
            }
            for event in events.iter().take_while(|e| e.revision <= end) {
                projected = status_at(mirror, event);
                self.state.projection.apply(token, event, &projected).await?;
            }
        }
        Ok(())
    }

    /// A table of the log's present state, and the event that led to it.
    async fn read_log(&self) -> Result<(Table, Option<Event>), Interrupted> {
        let (sender, mut receiver) = mpsc::channel::<Vec<Record>>(RECORDS_IN_FLIGHT);
        let mut table = Table::default();
        let fold = async {
            while let Some(records) = receiver.recv().await {
                records.into_iter().for_each(|record| table.insert(record));
            }
        };
        let (snapshot, ()) = tokio::join!(self.log.snapshot(sender), fold);
        let snapshot = snapshot?;
        table.set_position(snapshot.position);
        Ok((table, snapshot.last))
    }

    /// Writes the whole projection anew from the log, and returns what [`Self::read_log`] does.
    ///
    /// The projection states the revision from before the records were read: it may hold later effects,
    /// which those who load it make exact by the feed.
    async fn rebuild(
        &self,
        token: FencingToken,
    ) -> Result<((Table, Option<Event>), ProjectionStatus), Interrupted> {
        tracing::info!("rebuilding the projection");
        self.handle.0.rebuilds.fetch_add(1, Relaxed);
        let before = self.log.head().await?;
        let mut rebuild = self.state.projection.rebuild(token, &before).await?;
        let (sender, mut receiver) = mpsc::channel::<Vec<Record>>(RECORDS_IN_FLIGHT);
        let mut table = Table::default();
        let write = async {
            while let Some(records) = receiver.recv().await {
                records.iter().cloned().for_each(|record| table.insert(record));
                rebuild.write(records).await?;
            }
            // Moved in, so that a failed write ends the snapshot's sending at once.
            drop(receiver);
            Ok::<_, crate::Error>(rebuild)
        };
        let (snapshot, rebuild) = tokio::join!(self.log.snapshot(sender), write);
        let (snapshot, rebuild) = (snapshot?, rebuild?);
        let digest = if snapshot.position == before { table.digest() } else { 0 };
        rebuild.finish(digest).await?;
        table.set_position(snapshot.position);
        Ok(((table, snapshot.last), ProjectionStatus { position: before, digest }))
    }
}

/// The revision before `revision`; 0 has none before it.
fn before(revision: Revision) -> Revision {
    Revision(revision.0.saturating_sub(1))
}

/// Whether the same revision of the log used to hold something else: it was restored and written to since.
/// A digest that was not reckoned counts as another one: there is nothing left to mend such a status by.
fn was_rewritten(projected: &ProjectionStatus, mirror: &Table) -> bool {
    projected.position == *mirror.position() && projected.digest != mirror.digest()
}

fn status_of(mirror: &Table) -> ProjectionStatus {
    ProjectionStatus { position: mirror.position().clone(), digest: mirror.digest() }
}

/// The status after projecting `event` on the way to the mirror.
fn status_at(mirror: &Table, event: &Event) -> ProjectionStatus {
    let reached = Revision(event.revision.0) == mirror.position().revision;
    let generation = mirror.position().generation.clone();
    ProjectionStatus {
        position: Position { generation, revision: event.revision },
        digest: if reached { mirror.digest() } else { 0 },
    }
}
