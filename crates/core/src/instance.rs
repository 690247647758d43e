//! Running instances of service versions, as a registry reports them.

use crate::ids::{InstanceId, Name};
use crate::version::Version;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Highest weight of an instance.
pub const MAX_WEIGHT: u32 = 10_000;
/// Most instances of one service.
pub const MAX_INSTANCES: usize = 10_000;

/// One instance of one version of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    /// Unique within the service.
    pub id: InstanceId,
    /// The version that it runs.
    pub version: Version,
    /// Where callers connect, as `host:port`.
    pub address: SmolStr,
    /// Region it runs in.
    pub region: Option<Name>,
    /// Zone it runs in.
    pub zone: Option<Name>,
    /// Share of traffic relative to its siblings; 0 takes it out. At most [`MAX_WEIGHT`].
    pub weight: u32,
    /// Switched on by its operator.
    pub enabled: bool,
    /// Found healthy by its registry.
    pub healthy: bool,
    /// Listed only as long as it keeps reporting to its registry.
    pub ephemeral: bool,
    /// The registry that lists it, as the mirror names it.
    pub source: Option<Name>,
    /// What the instance says of itself, handed to callers.
    pub metadata: BTreeMap<String, String>,
}

impl Instance {
    /// Whether calls may be sent to it.
    #[must_use]
    pub fn is_routable(&self) -> bool {
        self.enabled && self.healthy && self.weight > 0
    }
}
