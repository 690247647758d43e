//! What the leading publisher does.

use super::{Interrupted, Publisher};
use crate::FencingToken;
use crate::feed::{Append, FeedEntry, Head};
use crate::projection::ProjectionStatus;
use grey_core::change::{Event, Position, Record, Revision};
use grey_core::table::Table;
use std::sync::atomic::Ordering::Relaxed;
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
        let mut mirror = self.mend(token).await?;
        self.handle.0.published.store(mirror.position().revision.0, Relaxed);
        let mut next_check = Instant::now() + self.options.check;
        let mut next_deep_check = Instant::now() + self.options.deep_check;
        loop {
            if self.publish_new(token, &mut mirror).await? == Health::Damaged {
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

    async fn publish_new(&self, token: FencingToken, mirror: &mut Table) -> Result<Health, Interrupted> {
        loop {
            let events = self.log.events(mirror.position().revision, self.options.batch).await?;
            if events.is_empty() {
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
            }
        }
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
        Ok(if feed_sound && projection_sound && log_sound { Health::Sound } else { Health::Damaged })
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

    /// Brings feed and projection to the log's head, and returns a table at exactly that revision.
    async fn mend(&self, token: FencingToken) -> Result<Table, Interrupted> {
        let head = self.state.feed.head().await?;
        let mut log = self.log.head().await?;
        if let Some(head) = &head {
            if head.generation == log.generation && head.last > log.revision {
                tracing::error!(log.revision = %log.revision, feed.revision = %head.last, "log is older than what it published: it was restored; starting a new generation");
                log = self.log.start_generation(&log.generation).await?;
            }
        }
        let head = head.filter(|h| h.generation == log.generation);
        let projected = self.state.projection.status().await?;
        let usable = |status: &ProjectionStatus| {
            status.position.generation == log.generation && status.position.revision <= log.revision
        };
        let (mirror, projected) = match projected.filter(usable) {
            Some(status) => (self.read_log().await?, status),
            None => self.rebuild(token).await?,
        };
        self.mend_feed(token, head, &mirror).await?;
        self.mend_projection(token, projected, &mirror).await?;
        Ok(mirror)
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

    /// A table of the log's present state.
    async fn read_log(&self) -> Result<Table, Interrupted> {
        let (sender, mut receiver) = mpsc::channel::<Vec<Record>>(RECORDS_IN_FLIGHT);
        let mut table = Table::default();
        let fold = async {
            while let Some(records) = receiver.recv().await {
                records.into_iter().for_each(|record| table.insert(record));
            }
        };
        let (position, ()) = tokio::join!(self.log.snapshot(sender), fold);
        table.set_position(position?);
        Ok(table)
    }

    /// Writes the whole projection anew from the log, and returns a table of the same records.
    ///
    /// The projection states the revision from before the records were read: it may hold later effects,
    /// which those who load it make exact by the feed.
    async fn rebuild(&self, token: FencingToken) -> Result<(Table, ProjectionStatus), Interrupted> {
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
        let (position, rebuild) = tokio::join!(self.log.snapshot(sender), write);
        let (position, rebuild) = (position?, rebuild?);
        let digest = if position == before { table.digest() } else { 0 };
        rebuild.finish(digest).await?;
        table.set_position(position);
        Ok((table, ProjectionStatus { position: before, digest }))
    }
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
