//! The log of committed events, as the publisher reads it.

use crate::FencingToken;
use async_trait::async_trait;
use grey_core::change::{EntryHash, Epoch, Event, FormatLevel, Position, Revision};
use grey_core::record::Record;
use std::time::Duration;
use tokio::sync::mpsc;

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}")]
pub struct LogError {
    /// What was attempted, as a verb phrase.
    pub attempted: &'static str,
    /// The database's error.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What a log held at one moment, besides its records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Where the log stood.
    pub position: Position,
    /// The hash of the event at that position. By it a log that was restored and written to since is recognised.
    pub hash: EntryHash,
    /// The highest format level that an event up to there needed.
    pub level: FormatLevel,
}

/// The end of what was read of a log: what it holds there is recognised by its hash, whatever the revision is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tip {
    /// The last event's; 0 before the first.
    pub revision: Revision,
    /// The last event's; all zeros before the first.
    pub hash: EntryHash,
}

/// Events that follow a tip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Following {
    /// In order, without a gap; none while there are no more.
    pub events: Vec<Event>,
    /// The tip after them.
    pub tip: Tip,
}

/// The log of committed events, as the control database keeps it.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// The epoch and the newest committed revision.
    ///
    /// # Errors
    /// When the database is away.
    async fn head(&self) -> Result<Position, LogError>;

    /// Up to `limit` events after `after`, in order, without a gap.
    ///
    /// # Errors
    /// When the database is away or an event does not read back.
    async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, LogError>;

    /// Up to `limit` events after `tip`; none if the log does not hold what `tip` names: it was restored or replaced.
    ///
    /// # Errors
    /// As for [`Self::events`].
    async fn follow(&self, tip: &Tip, limit: usize) -> Result<Option<Following>, LogError>;

    /// Sends the current state as of exactly the returned position to `records`, in batches of bounded size,
    /// services before tenants. Stops early, without an error, if the receiver is gone.
    ///
    /// # Errors
    /// As for [`Self::events`].
    async fn snapshot(&self, records: mpsc::Sender<Vec<Record>>) -> Result<Snapshot, LogError>;

    /// Starts the epoch after `seen`, if the log's is still `present`: the database was found to be older than what
    /// it had published, or another one. Returns the head after that.
    ///
    /// # Errors
    /// When the database is away.
    async fn start_epoch(&self, present: Epoch, seen: Epoch) -> Result<Position, LogError>;

    /// Notes that an epoch is published; true if no one had published it before, so that nobody outside can have events of
    /// another history in it.
    ///
    /// # Errors
    /// When the database is away.
    async fn note_published(&self, epoch: Epoch) -> Result<bool, LogError>;

    /// Takes the lead of the publication if it is free or expired, or renews it if `holder` has it, for `ttl` by the
    /// database's clock.
    ///
    /// A renewal keeps the token, unless it is not greater than `above`. Otherwise, and for a new holder or one whose
    /// lead had expired, it is a token greater than any before and than `above`. None: someone else leads.
    ///
    /// # Errors
    /// When the database is away. The caller must then count its lead as lost once `ttl` has passed since its last
    /// success.
    async fn lead(
        &self,
        holder: &str,
        ttl: Duration,
        above: FencingToken,
    ) -> Result<Option<FencingToken>, LogError>;

    /// Gives the lead up, if `holder` has it, so that the next one need not wait.
    ///
    /// # Errors
    /// When the database is away; the lead then expires by itself.
    async fn resign(&self, holder: &str) -> Result<(), LogError>;
}
