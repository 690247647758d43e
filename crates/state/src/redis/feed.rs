//! The event feed: a stream whose ids are the revisions.

use super::connection::Link;
use super::stream::{Entry, Place, Stream, Tail, verdict};
use super::values::{corrupt, parsed};
use super::{keys, scripts};
use crate::feed::{Append, FeedEntry, FeedRead, Head, revision_before};
use crate::{Error, Feed, FencingToken, InvalidDigests};
use async_trait::async_trait;
use grey_core::change::{Epoch, FormatLevel, Position, Revision};
use grey_proto::codec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Bytes of events after which another call is begun: a script holds up everybody else.
const CALL_BYTES: usize = 1 << 20;

pub(super) struct RedisFeed {
    link: Arc<Link>,
    stream: Stream,
    length: u64,
    /// The last read failed.
    failed: AtomicBool,
}

impl RedisFeed {
    pub(super) fn new(link: Arc<Link>, length: u64) -> Self {
        let stream = Stream::new(Arc::clone(&link), keys::CHANGES, "read the feed");
        Self { link, stream, length, failed: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Feed for RedisFeed {
    async fn append(
        &self,
        token: FencingToken,
        epoch: Epoch,
        entries: &[FeedEntry],
    ) -> Result<Append, Error> {
        let attempted = "append to the feed";
        let Some(mut last) = revision_before(entries) else { return Ok(Append::OutOfPlace) };
        let script = &scripts::FEED_APPEND;
        let mut done = Append::Duplicate;
        let mut entries = entries.iter().peekable();
        while entries.peek().is_some() {
            let mut call = script.on(&[keys::CHANGES]);
            call.arg(epoch.0).arg(token.0).arg(self.length).arg(last.0);
            let mut bytes = 0;
            while bytes < CALL_BYTES
                && let Some(entry) = entries.next()
            {
                let event = codec::encode_event(&entry.event);
                bytes += event.len();
                last = entry.event.revision;
                call.arg(last.0).arg(event).arg(entry.digests.to_string());
            }
            let answer = self.link.call(attempted, keys::CHANGES, script, &call).await?;
            match verdict(attempted, keys::CHANGES, &answer)? {
                "appended" => done = Append::Appended,
                "duplicate" => {}
                _ => return Ok(Append::OutOfPlace),
            }
        }
        Ok(done)
    }

    async fn reset(&self, token: FencingToken, base: &Position) -> Result<(), Error> {
        let attempted = "reset the feed";
        let script = &scripts::FEED_RESET;
        let mut call = script.on(&[keys::CHANGES]);
        call.arg(base.epoch.0).arg(base.revision.0).arg(token.0);
        let answer = self.link.call(attempted, keys::CHANGES, script, &call).await?;
        verdict(attempted, keys::CHANGES, &answer).map(drop)
    }

    async fn head(&self) -> Result<Option<Head>, Error> {
        let Some(ends) = self.stream.ends().await? else { return Ok(None) };
        let epoch = Epoch(parsed(keys::CHANGES, "an epoch", &ends.generation)?);
        Ok(Some(Head { epoch, first: Revision(ends.first), last: Revision(ends.last) }))
    }

    async fn read(
        &self,
        after: &Position,
        level: FormatLevel,
        limit: usize,
        wait: Duration,
    ) -> Result<FeedRead, Error> {
        let epoch = after.epoch.to_string();
        let place = Place { generation: Some(&epoch), number: after.revision.0, nonce: "" };
        // Entries may be large, and too many of them late: after a failure they are read one by one.
        let limit = if self.failed.load(Relaxed) { 1 } else { limit };
        let tail = self.stream.follow(place, limit, wait).await;
        self.failed.store(tail.is_err(), Relaxed);
        let read = match tail? {
            Tail::Entries(_, entries) => entries,
            Tail::Idle(_) => return Ok(FeedRead::Idle),
            Tail::Lost => return Ok(FeedRead::Lost),
        };
        let mut entries = Vec::with_capacity(read.len());
        for entry in read {
            let damaged =
                |why: &dyn std::fmt::Display| corrupt(keys::CHANGES, &format!("at {}: {why}", entry.number));
            // Asked first: what needs a higher level may hold what cannot be decoded here.
            let needed = codec::event_level(&entry.payload).map_err(|why| damaged(&why))?;
            if needed > level {
                return Ok(if entries.is_empty() {
                    FeedRead::Above(needed)
                } else {
                    FeedRead::Entries(entries)
                });
            }
            let decoded = decode(&entry).map_err(|why| damaged(&why));
            match decoded {
                Ok(entry) => entries.push(entry),
                // What is before it reads.
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(FeedRead::Entries(entries))
    }
}

fn decode(entry: &Entry) -> Result<FeedEntry, String> {
    let event = codec::decode_event(&entry.payload).map_err(|why| why.to_string())?;
    if event.revision.0 != entry.number {
        return Err(format!("it is {}", event.revision));
    }
    let digests = entry.digest.as_deref().ok_or("it has no digest")?;
    Ok(FeedEntry { event, digests: digests.parse().map_err(|why: InvalidDigests| why.to_string())? })
}
