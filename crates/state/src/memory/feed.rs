//! The event feed in memory.

use super::{end_of, lock};
use crate::feed::{Append, FeedEntry, FeedRead, Head, revision_before};
use crate::{Error, Feed, FencingToken};
use async_trait::async_trait;
use grey_core::change::{Epoch, FormatLevel, Position, Revision};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout_at;

pub(super) struct MemoryFeed {
    length: usize,
    log: Mutex<Option<Log>>,
    grown: Notify,
}

struct Log {
    epoch: Epoch,
    token: FencingToken,
    /// The revision before the first entry.
    base: Revision,
    entries: VecDeque<FeedEntry>,
}

impl MemoryFeed {
    pub(super) fn new(length: usize) -> Self {
        Self { length: length.max(1), log: Mutex::new(None), grown: Notify::new() }
    }

    fn entries_after(&self, after: &Position, level: FormatLevel, limit: usize) -> FeedRead {
        let log = lock(&self.log);
        let Some(log) = log.as_ref().filter(|log| log.epoch == after.epoch) else {
            return FeedRead::Lost;
        };
        if after.revision < log.base || after.revision > log.last() {
            return FeedRead::Lost;
        }
        let entries = log.entries.iter().skip_while(|entry| entry.event.revision <= after.revision);
        FeedRead::up_to(level, entries.take(limit.max(1)).cloned().collect())
    }
}

impl Log {
    fn last(&self) -> Revision {
        self.entries.back().map_or(self.base, |entry| entry.event.revision)
    }

    /// Those of the entries that are not held; none if they are out of place.
    fn missing<'e>(&self, epoch: Epoch, entries: &'e [FeedEntry]) -> Option<&'e [FeedEntry]> {
        let before = revision_before(entries)?;
        if self.epoch != epoch || before > self.last() {
            return None;
        }
        let (held, missing) =
            entries.split_at(entries.partition_point(|entry| entry.event.revision <= self.last()));
        let differs = |entry: &FeedEntry| {
            let same_revision = |held: &&FeedEntry| held.event.revision == entry.event.revision;
            self.entries.iter().find(same_revision).is_some_and(|held| held.event != entry.event)
        };
        (!held.iter().any(differs)).then_some(missing)
    }
}

#[async_trait]
impl Feed for MemoryFeed {
    async fn append(
        &self,
        token: FencingToken,
        epoch: Epoch,
        entries: &[FeedEntry],
    ) -> Result<Append, Error> {
        let mut log = lock(&self.log);
        let Some(log) = log.as_mut() else { return Ok(Append::OutOfPlace) };
        fence("append to the feed", token, log.token)?;
        let Some(missing) = log.missing(epoch, entries) else { return Ok(Append::OutOfPlace) };
        if missing.is_empty() {
            return Ok(Append::Duplicate);
        }
        log.token = token;
        log.entries.extend(missing.iter().cloned());
        while log.entries.len() > self.length
            && let Some(trimmed) = log.entries.pop_front()
        {
            log.base = trimmed.event.revision;
        }
        self.grown.notify_waiters();
        Ok(Append::Appended)
    }

    async fn reset(&self, token: FencingToken, base: &Position) -> Result<(), Error> {
        let mut log = lock(&self.log);
        if let Some(log) = log.as_ref() {
            fence("reset the feed", token, log.token)?;
        }
        *log = Some(Log { epoch: base.epoch, token, base: base.revision, entries: VecDeque::new() });
        self.grown.notify_waiters();
        Ok(())
    }

    async fn head(&self) -> Result<Option<Head>, Error> {
        let log = lock(&self.log);
        Ok(log.as_ref().map(|log| Head { epoch: log.epoch, first: log.base, last: log.last() }))
    }

    async fn read(
        &self,
        after: &Position,
        level: FormatLevel,
        limit: usize,
        wait: Duration,
    ) -> Result<FeedRead, Error> {
        let end = end_of(wait);
        loop {
            let grown = self.grown.notified();
            let read = self.entries_after(after, level, limit);
            if read != FeedRead::Idle || timeout_at(end, grown).await.is_err() {
                return Ok(read);
            }
        }
    }
}

pub(super) fn fence(attempted: &'static str, mine: FencingToken, seen: FencingToken) -> Result<(), Error> {
    if seen > mine {
        return Err(Error::Fenced { attempted, newest: seen.0 });
    }
    Ok(())
}
