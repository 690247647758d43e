//! What the leading publisher does while nothing is wrong: it publishes each commit, and looks for damage.

use super::backlog::{Backlog, Underway};
use super::project::Projected;
use super::upkeep::{Upkeep, Work};
use super::{Following, Interrupted, Publisher, Tip, requests};
use crate::feed::{Append, FeedEntry};
use crate::projection::{Beat, ProjectionStatus};
use crate::{Digests, Error, FencingToken};
use grey_core::change::{Epoch, FormatLevel, Position};
use grey_core::table::Table;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Time between looks for requests of routers.
const REQUESTS: Duration = Duration::from_millis(100);

/// Whether the feed can be continued.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Health {
    Sound,
    /// Feed or log are not what they were: start over.
    Damaged,
}

/// What came of publishing a batch.
#[derive(PartialEq, Eq, Debug)]
enum Published {
    /// The log may hold more.
    More,
    /// The feed holds the whole log.
    All,
    /// Feed or log are not what they were: start over.
    Damaged,
}

/// The lead, from the moment that the feed holds the log.
pub(super) struct Lead<'a> {
    pub(super) publisher: &'a Publisher,
    pub(super) token: FencingToken,
    /// A table at the feed's end, folded from the log.
    pub(super) mirror: Table,
    /// The highest level that an event so far needed.
    pub(super) level: FormatLevel,
    /// The log's entry at the feed's end.
    pub(super) tip: Tip,
    pub(super) projected: Projected,
    pub(super) backlog: Backlog,
    pub(super) underway: Underway,
    pub(super) upkeep: Upkeep,
    /// Tells works beside how far the feed is.
    pub(super) reached: watch::Sender<Position>,
    pub(super) beats: Beats,
    /// When the log was last looked at.
    pub(super) looked: Instant,
    pub(super) next_check: Instant,
    pub(super) next_deep_check: Instant,
    pub(super) next_requests: Instant,
}

/// The signs of life.
pub(super) struct Beats {
    number: u64,
    last: Option<Instant>,
}

impl Beats {
    /// Numbers that no other leader used before, by chance.
    pub(super) fn new() -> Self {
        Self { number: u64::from(rand::random::<u32>()) << 24, last: None }
    }
}

/// Where the log was when this replica read it last: by that it knows a log again of which shared state has no trace.
pub(super) struct Remembered {
    pub(super) epoch: Epoch,
    pub(super) tip: Tip,
}

/// How a lead ended.
pub(super) struct Ended {
    pub(super) by: Result<(), Interrupted>,
    /// Since it had mended what needed it.
    pub(super) published_for: Duration,
}

impl Publisher {
    /// Mends what needs mending, then publishes each commit. Ends to be started over when the feed or the log were
    /// found damaged.
    pub(super) async fn lead(
        &self,
        token: FencingToken,
        is_first: bool,
        remembered: &mut Option<Remembered>,
    ) -> Ended {
        let mut lead = match Box::pin(self.begin(token, remembered)).await {
            Ok(lead) => lead,
            Err(error) => return Ended { by: Err(error), published_for: Duration::ZERO },
        };
        if is_first {
            // What a leader before this one wrote late is found.
            lead.upkeep.want(Work::Check);
        }
        let begun = Instant::now();
        let by = lead.run().await;
        *remembered = Some(Remembered { epoch: lead.mirror.position().epoch, tip: lead.tip });
        lead.underway.stop().await;
        Ended { by, published_for: begun.elapsed() }
    }
}

impl Lead<'_> {
    async fn run(&mut self) -> Result<(), Interrupted> {
        let mut is_news = true;
        loop {
            if is_news {
                let published = self.publish_new().await?;
                if published == Published::Damaged {
                    return Ok(());
                }
                self.publisher.handle.set_fault(None);
                is_news = published == Published::More;
            }
            if let Some(done) = self.underway.finished() {
                self.projected(done)?;
            }
            if !self.underway.is_busy() {
                if self.look_after_projection().await? == Health::Damaged {
                    return Ok(());
                }
                self.project().await?;
            }
            if !is_news {
                is_news = self.wait_for_news().await;
            }
        }
    }

    /// Does what is due between two batches that are projected.
    async fn look_after_projection(&mut self) -> Result<Health, Interrupted> {
        let options = &self.publisher.options;
        if let Some(done) = self.upkeep.finished() {
            self.settle(done).await?;
        }
        let now = Instant::now();
        if now >= self.next_check {
            if self.check().await? == Health::Damaged {
                return Ok(Health::Damaged);
            }
            self.next_check = Instant::now() + options.check;
        }
        if now >= self.next_requests {
            self.take_requests().await?;
            self.next_requests = Instant::now() + REQUESTS;
        }
        if now >= self.next_deep_check {
            self.upkeep.want(Work::Check);
            self.next_deep_check = Instant::now() + options.deep_check;
        }
        self.start_work();
        Ok(Health::Sound)
    }

    /// Waits until there is something to do; true if the log may hold more.
    async fn wait_for_news(&mut self) -> bool {
        let poll = self.looked + self.publisher.options.poll;
        tokio::select! {
            biased;
            () = self.publisher.handle.0.wake.notified() => true,
            // Nobody may have told of a commit.
            () = tokio::time::sleep_until(poll) => true,
            () = self.underway.wait() => false,
            // What came of it is acted on between two batches.
            () = self.upkeep.wait(), if !self.underway.is_busy() => false,
        }
    }

    /// Brings a batch of what was committed since into the feed. If the log does not hold the last published event any more,
    /// it was restored and written to in between.
    async fn publish_new(&mut self) -> Result<Published, Interrupted> {
        let publisher = self.publisher;
        self.looked = Instant::now();
        let Some(Following { events, tip }) =
            publisher.log.follow(&self.tip, publisher.options.batch).await?
        else {
            let position = self.mirror.position();
            publisher.start_epoch(&position, position.epoch).await?;
            return Ok(Published::Damaged);
        };
        let mut entries = Vec::with_capacity(events.len());
        let mut foldable = Ok(());
        for event in events {
            // What is before it is published all the same.
            foldable = publisher.check_level(event.level);
            if foldable.is_err() {
                break;
            }
            if self.mirror.apply(&event).is_err() {
                return Ok(Published::Damaged);
            }
            self.level = self.level.max(event.level);
            entries.push(FeedEntry { event, digests: Digests::of(&self.mirror) });
        }
        let is_end = entries.is_empty();
        if !is_end {
            if publisher.append(self.token, self.mirror.position().epoch, &entries).await? == Health::Damaged
            {
                return Ok(Published::Damaged);
            }
            publisher.handle.0.published.store(self.mirror.position().revision.0, Relaxed);
            self.reached.send_replace(self.mirror.position());
            entries.into_iter().for_each(|entry| self.backlog.push(entry));
            self.tip = tip;
        }
        foldable?;
        self.beat().await?;
        Ok(if is_end { Published::All } else { Published::More })
    }

    /// Leaves a sign of life: the feed holds what the log just held.
    pub(super) async fn beat(&mut self) -> Result<(), Interrupted> {
        let publisher = self.publisher;
        if self.beats.last.is_some_and(|last| last.elapsed() < publisher.options.beat) {
            return Ok(());
        }
        self.beats.number = self.beats.number.wrapping_add(1);
        let beat = Beat { number: self.beats.number, position: self.mirror.position() };
        match publisher.state.projection.beat(self.token, &beat).await {
            Ok(()) => self.beats.last = Some(Instant::now()),
            Err(error @ Error::Corrupt { .. }) => self.lose_projection(&error),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether the feed is where it was left, and the log still the one that was published. A projection that is not
    /// is rebuilt.
    async fn check(&mut self) -> Result<Health, Interrupted> {
        let publisher = self.publisher;
        let (log, position) = (publisher.log.head().await?, self.mirror.position());
        let log_sound = log.epoch == position.epoch && log.revision >= position.revision;
        let head = sound(publisher.state.feed.head().await)?.flatten();
        let feed_sound = head.is_some_and(|h| h.epoch == position.epoch && h.last == position.revision);
        // A router that has applied more than the log holds: the log was restored, and the store, which would have
        // told, was lost as well.
        if !log_sound || !feed_sound || publisher.newest_router(log.epoch).await? > log {
            return Ok(Health::Damaged);
        }
        if let Projected::At(expected) | Projected::Stuck(expected, _) = &self.projected {
            let status = publisher.state.projection.status().await;
            match status {
                Ok(Some(status)) if status == *expected => {}
                Ok(status) => {
                    let why = format!("its status is {status:?}");
                    let key = crate::projection::STATUS_KEY.to_owned();
                    self.lose_projection(&Error::Corrupt { key, why });
                }
                Err(error @ Error::Corrupt { .. }) => self.lose_projection(&error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Health::Sound)
    }

    /// Whether a router asks for a comparison of every record.
    async fn take_requests(&mut self) -> Result<(), Interrupted> {
        let taken = sound(self.publisher.state.requests.take(&requests(), Duration::ZERO).await)?;
        if let Some(first) = taken.iter().flatten().next() {
            tracing::info!(why = %String::from_utf8_lossy(first), "a router asks for a check of the projection");
            self.upkeep.want(Work::Check);
        }
        Ok(())
    }

    /// The status of a projection that holds what the mirror holds.
    pub(super) fn status(&self) -> ProjectionStatus {
        ProjectionStatus {
            position: self.mirror.position(),
            digests: Digests::of(&self.mirror),
            level: self.level,
        }
    }
}

impl Publisher {
    /// Starts an epoch greater than any that was seen.
    pub(super) async fn start_epoch(&self, log: &Position, seen: Epoch) -> Result<Position, Interrupted> {
        tracing::error!(log.revision = %log.revision, log.epoch = %log.epoch, seen.epoch = %seen, "log is not known to be the one that was published: it, or shared state, was restored or replaced; starting a new epoch");
        Ok(self.log.start_epoch(log.epoch, seen.max(log.epoch)).await?)
    }

    pub(super) async fn append(
        &self,
        token: FencingToken,
        epoch: Epoch,
        entries: &[FeedEntry],
    ) -> Result<Health, Interrupted> {
        Ok(match sound(self.state.feed.append(token, epoch, entries).await)? {
            Some(Append::Appended | Append::Duplicate) => Health::Sound,
            Some(Append::OutOfPlace) | None => Health::Damaged,
        })
    }

    /// Refuses what this release cannot fold.
    pub(super) fn check_level(&self, needed: FormatLevel) -> Result<(), Interrupted> {
        let own = self.options.level;
        if needed > own { Err(Interrupted::Above { needed, own }) } else { Ok(()) }
    }

    /// The furthest position that a router has told of, beside a log of this epoch.
    pub(super) async fn newest_router(&self, log: Epoch) -> Result<Position, Interrupted> {
        let routers = sound(self.state.heartbeats.live().await)?.unwrap_or_default();
        let positions = routers.iter().map(|router| router.position);
        Ok(positions.filter(|position| is_credible(position.epoch, log)).max().unwrap_or_default())
    }
}

/// Most restores by which a store can be ahead of the log.
const RESTORES: u64 = 1 << 20;

/// Whether a history can have come to this epoch while the log is in that one. What lies further ahead is damage: believed
/// once, it would use up the epochs.
pub(super) fn is_credible(epoch: Epoch, log: Epoch) -> bool {
    epoch.0.saturating_sub(log.0) <= RESTORES
}

/// What was read, or nothing if it does not read back: whatever it was, it is mended, and stops nobody.
pub(super) fn sound<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error @ Error::Corrupt { .. }) => {
            tracing::error!(%error, "shared state is damaged");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::Options;

    #[test]
    fn a_router_that_asks_is_heard_well_within_the_time_to_heal() {
        let heal = Duration::from_secs(2);
        assert!((REQUESTS + Options::new("test").poll) * 4 <= heal, "{REQUESTS:?}");
    }
}
