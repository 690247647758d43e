//! The feed: the log's events on their way to the routers.

use crate::{Error, FencingToken};
use async_trait::async_trait;
use grey_core::change::{Event, Generation, Position, Revision};
use std::time::Duration;

/// One entry of the feed.
#[derive(Clone, PartialEq, Debug)]
pub struct FeedEntry {
    /// The event.
    pub event: Event,
    /// Digest of a table that has applied it, for noticing drift.
    pub digest: u64,
}

/// What became of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Append {
    /// The entry is the feed's last now.
    Appended,
    /// The feed already holds this revision; nothing was done.
    Duplicate,
    /// The feed is not at the revision before: it was wiped, restored from older data, or belongs to another
    /// generation. The publisher must look at [`Feed::head`] and mend it.
    OutOfPlace,
}

/// Where the feed begins and ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The history it carries.
    pub generation: Generation,
    /// A reader at this revision or later can continue; one before it must load the projection.
    pub first: Revision,
    /// The newest revision.
    pub last: Revision,
}

/// What a reader got.
#[derive(Clone, PartialEq, Debug)]
pub enum FeedRead {
    /// The entries right after the asked position, in order, without a gap.
    Entries(Vec<FeedEntry>),
    /// Nothing came within the wait; the position is the newest.
    Idle,
    /// The feed cannot continue from the asked position (another generation, trimmed, wiped, or behind it):
    /// load the projection.
    Lost,
}

/// The event feed. One publisher at a time appends (fenced by its lease's token); everyone reads.
#[async_trait]
pub trait Feed: Send + Sync {
    /// Appends the event after the feed's last. Publishing twice is [`Append::Duplicate`], never a second entry.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has written; otherwise when the store is away.
    async fn append(
        &self,
        token: FencingToken,
        generation: &Generation,
        entry: &FeedEntry,
    ) -> Result<Append, Error>;

    /// Starts the feed over at `base`: readers at exactly that position continue, all others load.
    ///
    /// # Errors
    /// As for [`Self::append`].
    async fn reset(&self, token: FencingToken, base: &Position) -> Result<(), Error>;

    /// Where the feed begins and ends; none if there is no feed.
    ///
    /// # Errors
    /// When the store is away.
    async fn head(&self) -> Result<Option<Head>, Error>;

    /// Reads up to `limit` entries after `after`, waiting up to `wait` for the first.
    ///
    /// # Errors
    /// When the store is away.
    async fn read(&self, after: &Position, limit: usize, wait: Duration) -> Result<FeedRead, Error>;
}
