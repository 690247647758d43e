//! Leases: who leads, with a fencing token that stops who led before.

use crate::Error;
use async_trait::async_trait;
use grey_core::ids::Name;
use std::time::Duration;

/// Grows with every change of leader; what it guards refuses a lower one than it has seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FencingToken(pub u64);

/// Leader leases by name.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease if it is free or expired, or renews it if `holder` has it.
    ///
    /// A renewal keeps the token; a new holder, and a holder whose lease had expired, gets a higher one than
    /// any before, even if the store lost its data in between. None: someone else holds it.
    ///
    /// # Errors
    /// When the store is away. The caller must then count its lease as lost once `ttl` has passed since
    /// its last success.
    async fn acquire(&self, name: &Name, holder: &str, ttl: Duration) -> Result<Option<FencingToken>, Error> {
        self.acquire_above(name, holder, ttl, FencingToken(0)).await
    }

    /// The same with a token greater than `above`, also for who holds the lease: what it guards has seen that one, though
    /// nobody was given it since the store lost this lease.
    ///
    /// # Errors
    /// As for [`Self::acquire`].
    async fn acquire_above(
        &self,
        name: &Name,
        holder: &str,
        ttl: Duration,
        above: FencingToken,
    ) -> Result<Option<FencingToken>, Error>;

    /// Gives the lease up, if `holder` has it, so that the next one need not wait.
    ///
    /// # Errors
    /// When the store is away; the lease then expires by itself.
    async fn release(&self, name: &Name, holder: &str) -> Result<(), Error>;
}
