//! The feed: the log's events on their way to the routers.

use crate::{Digests, Error, FencingToken};
use async_trait::async_trait;
use grey_core::change::{Epoch, Event, FormatLevel, Position, Revision};
use std::time::Duration;

/// One entry of the feed.
#[derive(Clone, PartialEq, Debug)]
pub struct FeedEntry {
    /// The event.
    pub event: Event,
    /// Digests of a table that has applied it, for noticing drift.
    pub digests: Digests,
}

/// What became of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Append {
    /// The last of the entries is the feed's last now.
    Appended,
    /// The feed already holds these revisions; nothing was done.
    Duplicate,
    /// The feed is not at the revision before: it was wiped, restored from older data, or belongs to another
    /// epoch; or the entries do not follow one another. The publisher must look at [`Feed::head`] and mend it.
    OutOfPlace,
}

/// Where the feed begins and ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The history it carries.
    pub epoch: Epoch,
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
    /// The next entry needs this level, which is above the reader's. It must not be passed over.
    Above(FormatLevel),
    /// Nothing came within the wait; the position is the newest.
    Idle,
    /// The feed cannot continue from the asked position (another epoch, trimmed, wiped, or behind it):
    /// load the projection.
    Lost,
}

/// The event feed. One publisher at a time appends (fenced by its lease's token); everyone reads.
#[async_trait]
pub trait Feed: Send + Sync {
    /// Appends entries that follow one another after the feed's last, in as few steps as their size allows. Those that
    /// it holds already are passed over: publishing twice is [`Append::Duplicate`], never a second entry.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has written; otherwise when the store is away.
    async fn append(&self, token: FencingToken, epoch: Epoch, entries: &[FeedEntry])
    -> Result<Append, Error>;

    /// Starts the feed over at `base`: readers at exactly that position continue, all others load.
    ///
    /// # Errors
    /// As for [`Self::append`].
    async fn reset(&self, token: FencingToken, base: &Position) -> Result<(), Error>;

    /// Where the feed begins and ends; none if there is no feed.
    ///
    /// # Errors
    /// When the store is away; [`Error::Corrupt`] if an end does not read back.
    async fn head(&self) -> Result<Option<Head>, Error>;

    /// Reads up to `limit` entries after `after`, waiting up to `wait` for the first. Of an entry that needs a higher
    /// level than the reader's `level` only that is read; it ends what is answered.
    ///
    /// # Errors
    /// When the store is away; [`Error::Corrupt`] if an entry does not read back.
    async fn read(
        &self,
        after: &Position,
        level: FormatLevel,
        limit: usize,
        wait: Duration,
    ) -> Result<FeedRead, Error>;
}

/// The revision before entries that follow one another; none if they do not, or there are none.
pub(crate) fn revision_before(entries: &[FeedEntry]) -> Option<Revision> {
    let revisions = || entries.iter().map(|entry| entry.event.revision);
    let first = revisions().next().filter(|first| *first > Revision(0))?;
    let follow = revisions().zip(revisions().skip(1)).all(|(before, after)| before.next() == after);
    follow.then(|| first.before())
}

impl FeedRead {
    /// Entries up to the first that needs a higher level than `level`.
    pub(crate) fn up_to(level: FormatLevel, mut entries: Vec<FeedEntry>) -> Self {
        let above = entries.iter().position(|entry| entry.event.level > level);
        match above.and_then(|at| Some((at, entries.get(at)?.event.level))) {
            Some((0, needed)) => Self::Above(needed),
            Some((at, _)) => {
                entries.truncate(at);
                Self::Entries(entries)
            }
            None if entries.is_empty() => Self::Idle,
            None => Self::Entries(entries),
        }
    }
}
