//! Requests to whoever leads, left by whichever replica was asked.

use crate::Error;
use async_trait::async_trait;
use grey_core::ids::Name;
use std::time::Duration;

/// Most requests to one leader that wait.
pub const LIMIT: usize = 1_000;

/// Requests by the name of the service whose leader should carry them out.
#[async_trait]
pub trait Requests: Send + Sync {
    /// Leaves a request.
    ///
    /// # Errors
    /// [`Error::Full`] if [`LIMIT`] requests wait already; otherwise when the store is away.
    async fn post(&self, name: &Name, request: &[u8]) -> Result<(), Error>;

    /// Takes every waiting request, oldest first, waiting up to `wait` for the first. Each is given to one taker
    /// only, so one who fails before it has carried a request out loses it.
    ///
    /// # Errors
    /// When the store is away.
    async fn take(&self, name: &Name, wait: Duration) -> Result<Vec<Vec<u8>>, Error>;
}
