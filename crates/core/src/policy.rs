//! How a service's calls are decided beyond pins: balancing, failover, overrides, and overlays.

mod buckets;
mod overlay;

pub use buckets::{Buckets, WEIGHT_SCALE};
pub use overlay::{
    Canary, Experiment, InvalidOverlay, Match, NoRoom, Overlay, OverlayKind, Predicate, Test, Unit, Variant,
};

use crate::ids::Name;
use crate::version::Version;
use std::collections::BTreeSet;

/// Most overlays on one service.
pub const MAX_OVERLAYS: usize = 32;
/// Most variants of one experiment.
pub const MAX_VARIANTS: usize = 16;
/// Most entries in one list of a match or a failover.
pub const MAX_LIST: usize = 1_000;

/// What holds for all calls of a service. Pins and overlays are facts of their own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// What happens to a call for a tenant that nobody has declared.
    pub unknown_tenant: UnknownTenant,
    /// How an instance is chosen among those of the version.
    pub balancing: Balancing,
    /// What happens when the version has no instance.
    pub failover: Failover,
    /// Roles whose calls may name the version themselves; empty means nobody.
    pub override_roles: BTreeSet<Name>,
    /// No call depends on an earlier one, so overlays may split by user or by request.
    pub stateless: bool,
}

/// What happens to a call for an unknown tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UnknownTenant {
    /// It is refused.
    #[default]
    Refuse,
    /// It gets the service's default version.
    UseDefault,
}

/// How an instance is chosen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Balancing {
    /// The rule.
    pub strategy: Strategy,
    /// Whose turn is counted.
    pub scope: Scope,
    /// What [`Strategy::ConsistentHash`] keeps together.
    pub hash_key: HashKey,
}

/// The rule by which an instance is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strategy {
    /// In turn.
    #[default]
    RoundRobin,
    /// Evenly at random.
    Random,
    /// In turn, smoothly interleaved in proportion to weights.
    WeightedRoundRobin,
    /// The less busy of two at random.
    LeastConnections,
    /// The quicker of two at random, by peak-sensitive moving average of latency and load.
    PeakEwma,
    /// At random, in proportion to weight and share of successful calls.
    HealthAware,
    /// The same key to the same instance, unless that one carries too much.
    ConsistentHash,
}

/// Whose turn a round robin counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scope {
    /// Each router by itself.
    #[default]
    Local,
    /// The whole fleet, by a counter in Redis.
    Global,
}

/// What consistent hashing keeps together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum HashKey {
    /// The tenant.
    #[default]
    Tenant,
    /// The user within the tenant.
    User,
    /// The request key.
    Request,
    /// An entry of the call's metadata.
    Metadata(String),
}

/// What happens when the decided version has no routable instance.
///
/// Whatever it says, a version whose schema window excludes the tenant is never used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Failover {
    /// The call is refused.
    #[default]
    Refuse,
    /// The service's default version.
    ToDefault,
    /// The nearest version: older ones first, newest of them leading, then newer ones.
    ToNearest,
    /// The first of these that can serve.
    ToVersions(Vec<Version>),
}

/// A list is longer than its limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {length} entries, at most {limit} are allowed")]
pub struct TooMany {
    /// Which list.
    pub what: &'static str,
    /// Entries given.
    pub length: usize,
    /// Entries allowed.
    pub limit: usize,
}

impl Policy {
    /// Checks the rules that types cannot hold.
    ///
    /// # Errors
    /// The first list that is too long.
    pub fn validate(&self) -> Result<(), TooMany> {
        limit("override roles", self.override_roles.len(), MAX_LIST)?;
        limit("failover versions", self.versions().count(), MAX_LIST)
    }

    /// Every version that the policy names, for checking that they exist.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        let failover = match &self.failover {
            Failover::ToVersions(versions) => versions.as_slice(),
            Failover::Refuse | Failover::ToDefault | Failover::ToNearest => &[],
        };
        failover.iter()
    }
}

fn limit(what: &'static str, length: usize, limit: usize) -> Result<(), TooMany> {
    if length > limit {
        return Err(TooMany { what, length, limit });
    }
    Ok(())
}
