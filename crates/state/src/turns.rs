//! Turns: the counters behind a fleet-wide round robin.

use crate::Error;
use async_trait::async_trait;
use grey_core::ids::ServiceId;
use grey_core::version::Version;

/// Counts turns over the instances of a version, for all routers together.
#[async_trait]
pub trait Turns: Send + Sync {
    /// The next turn: every call of any router gets another number, without gaps while nothing is lost.
    ///
    /// # Errors
    /// When the store is away or slow; the caller then counts by itself.
    async fn next(&self, service: &ServiceId, version: &Version) -> Result<u64, Error>;
}
