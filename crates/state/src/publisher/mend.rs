//! How a lead begins: the feed is brought to the log's head, whatever became of either.

use super::backlog::{Backlog, Underway};
use super::lead::{Beats, Health, Lead, Remembered, is_credible, sound};
use super::project::Projected;
use super::upkeep::{Upkeep, Work};
use super::{EventLog, Interrupted, LogError, Publisher, Snapshot, Tip};
use crate::feed::{FeedEntry, FeedRead, Head};
use crate::projection::ProjectionStatus;
use crate::{Digests, FencingToken};
use grey_core::change::{Epoch, Event, Position, Revision};
use grey_core::record::Record;
use grey_core::table::Table;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Batches of records on their way from the log.
const RECORDS_IN_FLIGHT: usize = 4;

/// What the feed's end says of the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FeedEnd {
    /// The log holds the same event.
    Agrees,
    /// The log holds another event there, or none: it was restored.
    Differs,
    /// It does not read back, so nobody has applied it.
    Garbled,
    Unknown,
}

impl Publisher {
    /// Brings the feed to the log's head. What of the projection can be used is caught up and compared afterwards.
    pub(super) async fn begin(
        &self,
        token: FencingToken,
        remembered: &mut Option<Remembered>,
    ) -> Result<Lead<'_>, Interrupted> {
        let head = sound(self.state.feed.head().await)?.flatten();
        let mut log = self.log.head().await?;
        let feed_end = match head.as_ref().filter(|h| h.epoch == log.epoch) {
            Some(head) if head.last > log.revision => FeedEnd::Differs,
            Some(head) => self.feed_end(head).await?,
            None => FeedEnd::Unknown,
        };
        let projected = sound(self.state.projection.status().await)?.flatten();
        let routers = self.newest_router(log.epoch).await?;
        // An empty store cannot tell whether the log was restored, and the epoch must tell both histories apart.
        let is_first = self.log.note_published(log.epoch).await?;
        let is_proven = is_first
            || head.is_some()
            || projected.is_some()
            || self.is_known(&log, remembered.as_ref()).await?;
        // Whatever carries a greater epoch than the log belongs to a history that the log does not have.
        let stored = [head.as_ref().map(|h| h.epoch), projected.as_ref().map(|status| status.position.epoch)];
        let stored = stored.into_iter().flatten().filter(|epoch| is_credible(*epoch, log.epoch));
        let seen = stored.fold(routers.epoch, Epoch::max);
        if feed_end == FeedEnd::Differs || routers > log || seen > log.epoch || !is_proven {
            log = self.start_epoch(&log, seen).await?;
            self.log.note_published(log.epoch).await?;
        }
        let head = head.filter(|h| h.epoch == log.epoch && feed_end != FeedEnd::Garbled);
        let mut mirror = Table::default();
        let snapshot = read(&*self.log, |records| {
            records.into_iter().for_each(|record| mirror.insert(record));
        })
        .await?;
        self.check_level(snapshot.level)?;
        mirror.set_position(snapshot.position);
        let tip = Tip { revision: snapshot.position.revision, hash: snapshot.hash };
        *remembered = Some(Remembered { epoch: snapshot.position.epoch, tip });

        let usable = |status: &ProjectionStatus| {
            status.position.epoch == snapshot.position.epoch
                && status.position.revision <= snapshot.position.revision
        };
        let mut projected = projected.filter(usable);
        if projected.as_ref().is_some_and(|projected| differs(projected, &mirror)) {
            // The same revision used to hold something else, unless the feed proves that it did not.
            if feed_end != FeedEnd::Agrees {
                self.start_epoch(&log, seen).await?;
                return Box::pin(self.begin(token, remembered)).await;
            }
            tracing::error!("projection's digest is not that of the log; rebuilding it");
            projected = None;
        }
        self.mend_feed(token, head, &mirror).await?;
        self.handle.0.published.store(mirror.position().revision.0, Relaxed);

        let mut upkeep = Upkeep::default();
        let now = Instant::now();
        let reached = watch::Sender::new(mirror.position());
        let projected = if let Some(status) = projected {
            Projected::At(status)
        } else {
            upkeep.want(Work::Rebuild);
            Projected::Missing
        };
        Ok(Lead {
            publisher: self,
            token,
            mirror,
            level: snapshot.level,
            tip,
            projected,
            backlog: Backlog::default(),
            underway: Underway::default(),
            upkeep,
            reached,
            beats: Beats::new(),
            looked: now,
            next_check: now + self.options.check,
            next_deep_check: now + self.options.deep_check,
            next_requests: now,
        })
    }

    /// Whether the log is the one that this replica published, or has nothing in it yet.
    async fn is_known(&self, log: &Position, remembered: Option<&Remembered>) -> Result<bool, Interrupted> {
        match remembered {
            _ if log.revision == Revision(0) => Ok(true),
            Some(Remembered { epoch, tip }) if *epoch == log.epoch => {
                Ok(self.log.follow(tip, 1).await?.is_some())
            }
            Some(_) | None => Ok(false),
        }
    }

    async fn event(&self, revision: Revision) -> Result<Option<Event>, Interrupted> {
        let events = self.log.events(revision.before(), 1).await?;
        Ok(events.into_iter().next().filter(|event| event.revision == revision))
    }

    /// Compares the event at the feed's end with the log's.
    async fn feed_end(&self, head: &Head) -> Result<FeedEnd, Interrupted> {
        if head.last == head.first {
            return Ok(FeedEnd::Unknown);
        }
        let before_last = Position { epoch: head.epoch, revision: head.last.before() };
        let read = self.state.feed.read(&before_last, self.options.level, 1, Duration::ZERO).await;
        Ok(match sound(read)? {
            Some(FeedRead::Entries(entries)) => match (entries.first(), self.event(head.last).await?) {
                (Some(entry), Some(logged)) if entry.event == logged => FeedEnd::Agrees,
                _ => FeedEnd::Differs,
            },
            Some(FeedRead::Above(needed)) => {
                self.check_level(needed)?;
                FeedEnd::Unknown
            }
            Some(FeedRead::Idle | FeedRead::Lost) => FeedEnd::Unknown,
            None => FeedEnd::Garbled,
        })
    }

    /// Appends what the feed lacks, or starts it over at the mirror's position.
    async fn mend_feed(
        &self,
        token: FencingToken,
        head: Option<Head>,
        mirror: &Table,
    ) -> Result<(), Interrupted> {
        let Some(head) = head else {
            return Ok(self.state.feed.reset(token, &mirror.position()).await?);
        };
        let end = mirror.position();
        let mut last = head.last;
        while last < end.revision {
            let events = self.log.events(last, self.options.batch).await?;
            let mut entries = Vec::with_capacity(events.len());
            for event in events.into_iter().take_while(|e| e.revision <= end.revision) {
                self.check_level(event.level)?;
                // Only the mirror's own revision has a digest at hand.
                let is_end = event.revision == end.revision;
                let digests = if is_end { Digests::of(mirror) } else { Digests::unknown() };
                entries.push(FeedEntry { event, digests });
            }
            let Some(newest) = entries.last().map(|entry| entry.event.revision) else { break };
            if self.append(token, end.epoch, &entries).await? == Health::Damaged {
                return Ok(self.state.feed.reset(token, &end).await?);
            }
            last = newest;
        }
        Ok(())
    }
}

/// Reads the log's present state, and gives batches of records to `take`.
pub(super) async fn read(
    log: &dyn EventLog,
    mut take: impl FnMut(Vec<Record>),
) -> Result<Snapshot, LogError> {
    let (sender, mut receiver) = mpsc::channel::<Vec<Record>>(RECORDS_IN_FLIGHT);
    let taking = async {
        while let Some(records) = receiver.recv().await {
            take(records);
        }
    };
    let (snapshot, ()) = tokio::join!(log.snapshot(sender), taking);
    snapshot
}

/// Whether the projection is another one than the mirror at the same revision. Digests that are not known count as
/// others: there is nothing left to tell such a status by.
fn differs(projected: &ProjectionStatus, mirror: &Table) -> bool {
    projected.position == mirror.position() && projected.digests != Digests::of(mirror)
}
