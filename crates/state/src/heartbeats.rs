//! Heartbeats: which routers live, and what each has applied.

use crate::Error;
use async_trait::async_trait;
use grey_core::change::Position;
use std::time::Duration;

/// What a router says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Unique among live routers.
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

/// The routers' heartbeats.
#[async_trait]
pub trait Heartbeats: Send + Sync {
    /// Announces a router for `ttl`.
    ///
    /// # Errors
    /// When the store is away.
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
