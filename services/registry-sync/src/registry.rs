//! Where instances come from.

pub mod file;
pub mod nacos;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// A place that lists running instances. It is followed for as long as the process runs.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Tells what the registry lists until `token` is cancelled: [`Sighting::All`] at the start, from time to time, and
    /// soon after `again` is notified; [`Sighting::Some`] for what changes in between.
    ///
    /// It never gives up: what cannot be read is told as [`Sighting::Failed`] and tried again. An answer that may be
    /// incomplete is a failure; silence is never told as an empty list.
    async fn follow(&self, sightings: mpsc::Sender<Sighting>, again: Arc<Notify>, token: CancellationToken);
}

/// What a registry was seen to list.
#[derive(Debug, Clone, PartialEq)]
pub enum Sighting {
    /// Every service that it lists: one that is not among them has no instance there.
    All(Vec<Listing>),
    /// One service; the others are as they were.
    Some(Listing),
    /// It could not be read: the cause, in words without secrets.
    Failed(String),
}

/// All instances of one service in one registry.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The service by its name in the registry.
    pub service: String,
    /// Its instances, in no particular order.
    pub instances: Vec<Registered>,
}

/// One instance as a registry lists it: nothing in it is checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Registered {
    /// Unique within the service and the registry.
    pub id: String,
    /// Where callers connect, as `host:port`.
    pub address: String,
    /// The version, where the registry has a place of its own for it; otherwise it is looked for in `metadata`.
    pub version: Option<String>,
    /// Likewise the region.
    pub region: Option<String>,
    /// Likewise the zone.
    pub zone: Option<String>,
    /// Share of traffic relative to its siblings, where 100 is usual.
    pub weight: u32,
    /// Switched on by its operator.
    pub enabled: bool,
    /// Found healthy by the registry.
    pub healthy: bool,
    /// Listed only as long as it keeps reporting.
    pub ephemeral: bool,
    /// What it says of itself.
    pub metadata: BTreeMap<String, String>,
}
