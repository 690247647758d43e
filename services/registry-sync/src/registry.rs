//! Where instances come from.

pub mod file;
pub mod nacos;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// A place that lists running instances. It is followed for as long as the process runs.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Tells what the registry lists until `token` is cancelled: [`Sighting::All`] at the start, from time to time, and
    /// soon after `again` is notified; [`Sighting::Some`] for what changes in between.
    ///
    /// It never gives up: what cannot be read is told as [`Sighting::Failed`], or as [`Sighting::Unread`] where that is
    /// one service only, and tried again. An answer that may be incomplete is a failure; silence is never told as an empty
    /// list. An instance that the registry has switched off is told as such, and not as vanished.
    async fn follow(&self, sightings: mpsc::Sender<Sighting>, again: Arc<Notify>, token: CancellationToken);
}

/// What a registry was seen to list.
#[derive(Debug, Clone, PartialEq)]
pub enum Sighting {
    /// Every service that it lists: one that is not among them has no instance there, unless it was told as
    /// [`Sighting::Unread`] since everything was told last.
    All(Vec<Listing>),
    /// One service; the others are as they were.
    Some(Listing),
    /// One service is listed and could not be read; it is as it was, and so are the others.
    Unread {
        /// The service by its name in the registry.
        service: String,
        /// The cause, in words without secrets.
        why: String,
    },
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

/// One instance as a registry lists it: nothing in it is checked. It is written as in an instances file.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// Unique within the service and the registry.
    #[serde(default)]
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
    #[serde(default = "usual_weight")]
    pub weight: u32,
    /// Switched on by its operator.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Found healthy by the registry.
    #[serde(default = "yes")]
    pub healthy: bool,
    /// Listed only as long as it keeps reporting.
    #[serde(default)]
    pub ephemeral: bool,
    /// What it says of itself.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

fn usual_weight() -> u32 {
    100
}

fn yes() -> bool {
    true
}
