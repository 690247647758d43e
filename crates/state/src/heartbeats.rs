//! Heartbeats: which routers live, and what each has applied.

use crate::Error;
use async_trait::async_trait;
use grey_core::change::Position;
use grey_core::ids::InstanceId;
use std::time::Duration;

/// What a router says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Unique among live routers; of the characters that an instance id may have.
    pub router: String,
    /// Where it serves gRPC, as `host:port`.
    pub address: String,
    /// Its region; may be empty.
    pub region: String,
    /// Its zone; may be empty.
    pub zone: String,
    /// What its table contains.
    pub position: Position,
    /// Digest of its table.
    pub digest: u64,
    /// It cannot bring its table up to date.
    pub stale: bool,
}

/// Refuses ids that could forge a key.
pub(crate) fn check_router(router: &str) -> Result<(), Error> {
    match InstanceId::new(router) {
        Ok(_) => Ok(()),
        Err(refused) => Err(Error::Config(format!("announce the router: {refused}"))),
    }
}

/// The routers' heartbeats.
#[async_trait]
pub trait Heartbeats: Send + Sync {
    /// Announces a router for `ttl`.
    ///
    /// # Errors
    /// When the store is away; [`Error::Config`] if the router's id cannot be one.
    async fn beat(&self, heartbeat: &Heartbeat, ttl: Duration) -> Result<(), Error>;

    /// Takes a router off the list at once: it is draining.
    ///
    /// # Errors
    /// When the store is away; the entry then expires by itself.
    async fn leave(&self, router: &str) -> Result<(), Error>;

    /// The routers announced and not expired, by id.
    ///
    /// # Errors
    /// When the store is away or an entry does not read back.
    async fn live(&self) -> Result<Vec<Heartbeat>, Error>;
}
