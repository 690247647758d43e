//! Turns: the counters behind a fleet-wide round robin.

use crate::Error;
use async_trait::async_trait;
use grey_core::ids::ServiceId;
use grey_core::table::Locality;
use grey_core::version::Version;

/// The last turn before the count starts over at 1: every number stays exact in a Lua script and in JSON.
pub const LAST_TURN: u64 = (1 << 53) - 2;

/// Counts turns over a version's instances in one place, for all routers together.
///
/// Each group of instances has a count of its own: a turn is an index into its list, and turns that were
/// taken for another list would leave some of its instances out.
#[async_trait]
pub trait Turns: Send + Sync {
    /// The next turn, from 1 to [`LAST_TURN`] and over again: every call of any router gets another number,
    /// without gaps while nothing is lost.
    ///
    /// # Errors
    /// When the store is away or slow; the caller then counts by itself.
    async fn next(
        &self,
        service: &ServiceId,
        version: &Version,
        locality: Locality<'_>,
    ) -> Result<u64, Error>;
}
