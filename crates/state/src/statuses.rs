//! What leaders tell of themselves, for whichever replica is asked.

use crate::{Error, FencingToken};
use async_trait::async_trait;
use grey_core::ids::Name;
use std::time::Duration;

/// The last status of each leader, by the name of its service.
#[async_trait]
pub trait Statuses: Send + Sync {
    /// Replaces the status; it is forgotten after `ttl`.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has told its own; otherwise when the store is away.
    async fn publish(
        &self,
        name: &Name,
        token: FencingToken,
        status: &[u8],
        ttl: Duration,
    ) -> Result<(), Error>;

    /// The last status, if there is one that is not forgotten.
    ///
    /// # Errors
    /// When the store is away.
    async fn read(&self, name: &Name) -> Result<Option<Vec<u8>>, Error>;
}
