//! The event feed: a stream whose ids are the revisions.

use super::connection::Link;
use super::stream::{Stream, Tail, verdict};
use super::values::corrupt;
use super::{keys, scripts};
use crate::feed::{Append, FeedEntry, FeedRead, Head};
use crate::{Error, Feed, FencingToken};
use async_trait::async_trait;
use grey_core::change::{Generation, Position, Revision};
use grey_proto::codec;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct RedisFeed {
    link: Arc<Link>,
    stream: Stream,
    length: u64,
}

impl RedisFeed {
    pub(super) fn new(link: Arc<Link>, length: u64) -> Self {
        let stream = Stream::new(Arc::clone(&link), keys::CHANGES, "read the feed");
        Self { link, stream, length }
    }
}

#[async_trait]
impl Feed for RedisFeed {
    async fn append(
        &self,
        token: FencingToken,
        generation: &Generation,
        entry: &FeedEntry,
    ) -> Result<Append, Error> {
        let attempted = "append to the feed";
        let revision = entry.event.revision.0;
        let Some(before) = revision.checked_sub(1) else { return Ok(Append::OutOfPlace) };
        let script = &scripts::FEED_APPEND;
        let mut call = script.on(&[keys::CHANGES]);
        call.arg(generation.0.as_str()).arg(revision).arg(before).arg(token.0);
        call.arg(codec::encode_event(&entry.event)).arg(format!("{:016x}", entry.digest)).arg(self.length);
        let answer = self.link.call(attempted, keys::CHANGES, script, &call).await?;
        match verdict(attempted, keys::CHANGES, &answer)? {
            "appended" => Ok(Append::Appended),
            "duplicate" => Ok(Append::Duplicate),
            _ => Ok(Append::OutOfPlace),
        }
    }

    async fn reset(&self, token: FencingToken, base: &Position) -> Result<(), Error> {
        let attempted = "reset the feed";
        let script = &scripts::FEED_RESET;
        let mut call = script.on(&[keys::CHANGES]);
        call.arg(base.generation.0.as_str()).arg(base.revision.0).arg(token.0);
        let answer = self.link.call(attempted, keys::CHANGES, script, &call).await?;
        verdict(attempted, keys::CHANGES, &answer).map(drop)
    }

    async fn head(&self) -> Result<Option<Head>, Error> {
        let ends = self.stream.ends().await?;
        Ok(ends.map(|ends| Head {
            generation: Generation(ends.generation.into()),
            first: Revision(ends.first),
            last: Revision(ends.last),
        }))
    }

    async fn read(&self, after: &Position, limit: usize, wait: Duration) -> Result<FeedRead, Error> {
        let generation = Some(after.generation.0.as_str());
        let entries = match self.stream.follow(generation, after.revision.0, limit, wait).await? {
            Tail::Entries(_, entries) => entries,
            Tail::Idle => return Ok(FeedRead::Idle),
            Tail::Lost => return Ok(FeedRead::Lost),
        };
        let entries = entries.into_iter().map(|entry| {
            let event = codec::decode_event(&entry.payload);
            let event =
                event.map_err(|why| corrupt(keys::CHANGES, &format!("at {}: {why}", entry.number)))?;
            let digest = entry.digest;
            let digest =
                digest.ok_or_else(|| corrupt(keys::CHANGES, &format!("at {}: no digest", entry.number)))?;
            if event.revision.0 != entry.number {
                return Err(corrupt(
                    keys::CHANGES,
                    &format!("at {}: it is {}", entry.number, event.revision),
                ));
            }
            Ok(FeedEntry { event, digest })
        });
        entries.collect::<Result<Vec<_>, _>>().map(FeedRead::Entries)
    }
}
