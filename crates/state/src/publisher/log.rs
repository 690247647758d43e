//! The log of committed events, as the publisher reads it.

use async_trait::async_trait;
use grey_core::change::{Event, Generation, Position, Record, Revision};
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
    /// The event at that position. By it a log that was restored and written to since is recognised.
    pub last: Option<Event>,
}

/// The log of committed events, as the control database keeps it.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// The generation and the newest committed revision.
    ///
    /// # Errors
    /// When the database is away.
    async fn head(&self) -> Result<Position, LogError>;

    /// Up to `limit` events after `after`, in order, without a gap.
    ///
    /// # Errors
    /// When the database is away or an event does not read back.
    async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, LogError>;

    /// Sends the current state as of exactly the returned position to `records`, in batches of bounded size,
    /// services before tenants. Stops early, without an error, if the receiver is gone.
    ///
    /// # Errors
    /// As for [`Self::events`].
    async fn snapshot(&self, records: mpsc::Sender<Vec<Record>>) -> Result<Snapshot, LogError>;

    /// Starts a new generation if the present one is `present`: the database was found to be older than what
    /// it had published. Generations are UUIDs of version 7, so a later one sorts after an earlier one.
    ///
    /// # Errors
    /// When the database is away.
    async fn start_generation(&self, present: &Generation) -> Result<Position, LogError>;
}
