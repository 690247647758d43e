//! The publisher: brings the control database's log into feed and projection.

use async_trait::async_trait;
use grey_core::change::{Event, Generation, Position, Record, Revision};

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

    /// Reads the current state as of exactly the returned position, in batches, services before tenants.
    ///
    /// # Errors
    /// As for [`Self::events`].
    async fn snapshot(&self, take: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<Position, LogError>;

    /// Starts a new generation if the present one is `present`: the database was found to be older than what
    /// it had published.
    ///
    /// # Errors
    /// When the database is away.
    async fn start_generation(&self, present: &Generation) -> Result<Position, LogError>;
}
