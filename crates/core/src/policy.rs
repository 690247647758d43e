//! How a service's calls are decided beyond pins: overlays, balancing, failover, overrides.

use crate::ids::{Name, OverlayId, TenantId};
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// Weights are parts of this whole: 100 is one percent, 10,000 is everyone.
pub const WEIGHT_SCALE: u32 = 10_000;
/// Most overlays on one service.
pub const MAX_OVERLAYS: usize = 32;
/// Most variants of one experiment.
pub const MAX_VARIANTS: usize = 16;
/// Most entries in one list of a match or a failover.
pub const MAX_LIST: usize = 1_000;

/// Everything about a service's decisions that is not a pin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// What happens to a call for a tenant that nobody has declared.
    pub unknown_tenant: UnknownTenant,
    /// Experiments and canaries, tried in order: experiments first, then canaries.
    pub overlays: Vec<Overlay>,
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

/// A rule laid over the pins: it moves a share of its units to other versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overlay {
    /// Unique within the service; decisions name it.
    pub id: OverlayId,
    /// Mixed into the hash, so that two overlays choose independently. Changing it reshuffles.
    pub salt: String,
    /// What is assigned as a whole.
    pub unit: Unit,
    /// Who it is about.
    pub matching: Match,
    /// What it does.
    pub kind: OverlayKind,
}

/// What an overlay does with the calls that it matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OverlayKind {
    /// Splits units over variants; the share that no variant takes stays on the base version.
    Experiment(Vec<Variant>),
    /// Moves a share of the units on `baseline` to `canary`; raising `weight` only adds units.
    Canary {
        /// The version it takes units from.
        baseline: Version,
        /// The version it moves them to.
        canary: Version,
        /// Parts of [`WEIGHT_SCALE`].
        weight: u32,
    },
}

/// One arm of an experiment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variant {
    /// Names the arm in decisions and reports.
    pub id: OverlayId,
    /// The version it serves.
    pub version: Version,
    /// Parts of [`WEIGHT_SCALE`].
    pub weight: u32,
}

/// What an overlay assigns as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unit {
    /// All calls of a tenant go the same way.
    #[default]
    Tenant,
    /// All calls of a user of a tenant go the same way; for stateless services.
    User,
    /// Each request key goes its own way; for stateless services.
    Request,
}

/// Who an overlay is about. Every condition given must hold; none means everyone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Match {
    /// Any of these tenants.
    pub tenants: BTreeSet<TenantId>,
    /// Any of these tiers.
    pub tiers: BTreeSet<Name>,
    /// Any of these home regions.
    pub regions: BTreeSet<Name>,
    /// Each label with any of its values.
    pub labels: BTreeMap<Name, BTreeSet<String>>,
    /// Each predicate on the call's metadata.
    pub metadata: Vec<Predicate>,
}

/// A condition on one entry of the call's metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Predicate {
    /// The metadata key.
    pub key: String,
    /// What its value must be.
    pub test: Test,
}

/// What a metadata value must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Test {
    /// There, whatever it is.
    Present,
    /// One of these.
    In(BTreeSet<String>),
    /// Beginning with this.
    Prefix(String),
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

/// Why a policy cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// A weight or a sum of weights is more than the whole.
    #[error("overlay `{overlay}` gives away {total} of {WEIGHT_SCALE} parts")]
    Overweight {
        /// The overlay.
        overlay: OverlayId,
        /// Sum of its weights.
        total: u64,
    },
    /// Two overlays, or two variants of one, share an id.
    #[error("`{0}` is used twice")]
    DuplicateId(OverlayId),
    /// An overlay splits by user or request although the service keeps state between calls.
    #[error("overlay `{0}` splits by user or request, which needs a stateless service")]
    NeedsStateless(OverlayId),
    /// An experiment without variants, a canary of a version against itself, an empty salt.
    #[error("overlay `{overlay}`: {why}")]
    Pointless {
        /// The overlay.
        overlay: OverlayId,
        /// What is wrong.
        why: &'static str,
    },
    /// A list is longer than its limit.
    #[error("{what} has {length} entries, at most {limit} are allowed")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// Entries given.
        length: usize,
        /// Entries allowed.
        limit: usize,
    },
}

impl Policy {
    /// Checks the rules that types cannot hold.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        limit("overlays", self.overlays.len(), MAX_OVERLAYS)?;
        limit("override roles", self.override_roles.len(), MAX_LIST)?;
        if let Failover::ToVersions(versions) = &self.failover {
            limit("failover versions", versions.len(), MAX_LIST)?;
        }
        let mut ids = BTreeSet::new();
        for overlay in &self.overlays {
            if !ids.insert(&overlay.id) {
                return Err(InvalidPolicy::DuplicateId(overlay.id.clone()));
            }
            if overlay.unit != Unit::Tenant && !self.stateless {
                return Err(InvalidPolicy::NeedsStateless(overlay.id.clone()));
            }
            overlay.validate()?;
        }
        Ok(())
    }

    /// Every version that the policy names, for checking that they exist.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        let failover = match &self.failover {
            Failover::ToVersions(versions) => versions.as_slice(),
            Failover::Refuse | Failover::ToDefault | Failover::ToNearest => &[],
        };
        self.overlays.iter().flat_map(Overlay::versions).chain(failover)
    }
}

impl Overlay {
    fn validate(&self) -> Result<(), InvalidPolicy> {
        let pointless = |why| InvalidPolicy::Pointless { overlay: self.id.clone(), why };
        if self.salt.is_empty() || self.salt.len() > 128 {
            return Err(pointless("the salt needs 1 to 128 bytes"));
        }
        self.matching.validate()?;
        let total: u64 = match &self.kind {
            OverlayKind::Canary { baseline, canary, .. } if baseline == canary => {
                return Err(pointless("baseline and canary are the same version"));
            }
            OverlayKind::Canary { weight, .. } => u64::from(*weight),
            OverlayKind::Experiment(variants) => {
                limit("variants", variants.len(), MAX_VARIANTS)?;
                if variants.is_empty() {
                    return Err(pointless("the experiment has no variants"));
                }
                let ids: BTreeSet<_> = variants.iter().map(|v| &v.id).collect();
                if ids.len() < variants.len() {
                    return Err(pointless("two variants share an id"));
                }
                variants.iter().map(|v| u64::from(v.weight)).sum()
            }
        };
        if total > u64::from(WEIGHT_SCALE) {
            return Err(InvalidPolicy::Overweight { overlay: self.id.clone(), total });
        }
        Ok(())
    }

    fn versions(&self) -> impl Iterator<Item = &Version> {
        let (pair, variants) = match &self.kind {
            OverlayKind::Canary { baseline, canary, .. } => ([Some(baseline), Some(canary)], &[][..]),
            OverlayKind::Experiment(variants) => ([None, None], variants.as_slice()),
        };
        pair.into_iter().flatten().chain(variants.iter().map(|v| &v.version))
    }
}

impl Match {
    fn validate(&self) -> Result<(), InvalidPolicy> {
        limit("matched tenants", self.tenants.len(), MAX_LIST)?;
        limit("matched tiers", self.tiers.len(), MAX_LIST)?;
        limit("matched regions", self.regions.len(), MAX_LIST)?;
        limit("matched labels", self.labels.len(), MAX_LIST)?;
        limit("metadata predicates", self.metadata.len(), MAX_LIST)?;
        for values in self.labels.values() {
            limit("values of a matched label", values.len(), MAX_LIST)?;
        }
        for predicate in &self.metadata {
            if let Test::In(values) = &predicate.test {
                limit("values of a metadata predicate", values.len(), MAX_LIST)?;
            }
        }
        Ok(())
    }
}

fn limit(what: &'static str, length: usize, limit: usize) -> Result<(), InvalidPolicy> {
    if length > limit {
        return Err(InvalidPolicy::TooMany { what, length, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
    use super::*;

    fn canary(weight: u32) -> Overlay {
        Overlay {
            id: OverlayId::new("c").unwrap(),
            salt: "s".to_owned(),
            unit: Unit::Tenant,
            matching: Match::default(),
            kind: OverlayKind::Canary {
                baseline: Version::new("1").unwrap(),
                canary: Version::new("2").unwrap(),
                weight,
            },
        }
    }

    #[test]
    fn weights_beyond_the_whole_are_refused() {
        let ok = Policy { overlays: vec![canary(WEIGHT_SCALE)], ..Policy::default() };
        assert_eq!(ok.validate(), Ok(()));
        let over = Policy { overlays: vec![canary(WEIGHT_SCALE + 1)], ..Policy::default() };
        assert!(matches!(over.validate(), Err(InvalidPolicy::Overweight { total: 10_001, .. })));
    }

    #[test]
    fn ids_are_unique_and_user_splits_need_a_stateless_service() {
        let twice = Policy { overlays: vec![canary(1), canary(1)], ..Policy::default() };
        assert!(matches!(twice.validate(), Err(InvalidPolicy::DuplicateId(_))));
        let by_user = Overlay { unit: Unit::User, ..canary(1) };
        let mut policy = Policy { overlays: vec![by_user], ..Policy::default() };
        assert!(matches!(policy.validate(), Err(InvalidPolicy::NeedsStateless(_))));
        policy.stateless = true;
        assert_eq!(policy.validate(), Ok(()));
    }

    #[test]
    fn pointless_overlays_are_refused() {
        let why =
            |overlay: Overlay| match (Policy { overlays: vec![overlay], ..Policy::default() }).validate() {
                Err(InvalidPolicy::Pointless { why, .. }) => why,
                other => panic!("{other:?}"),
            };
        let arm = |id: &str| Variant {
            id: OverlayId::new(id).unwrap(),
            version: Version::new("2").unwrap(),
            weight: 1,
        };
        let experiment = |arms| Overlay { kind: OverlayKind::Experiment(arms), ..canary(1) };
        let one = Version::new("1").unwrap();
        let to_itself = OverlayKind::Canary { baseline: one.clone(), canary: one, weight: 1 };
        assert!(why(Overlay { kind: to_itself, ..canary(1) }).contains("same version"));
        assert!(why(Overlay { salt: String::new(), ..canary(1) }).contains("salt"));
        assert!(why(Overlay { salt: "s".repeat(129), ..canary(1) }).contains("salt"));
        assert!(why(experiment(Vec::new())).contains("no variants"));
        assert!(why(experiment(vec![arm("a"), arm("a")])).contains("share an id"));
    }

    #[test]
    fn an_experiments_arms_share_one_whole_and_lists_are_bounded() {
        let arm = |(at, weight): (usize, &u32)| Variant {
            id: OverlayId::new(&format!("arm-{at}")).unwrap(),
            version: Version::new("2").unwrap(),
            weight: *weight,
        };
        let arms = |weights: &[u32]| Policy {
            overlays: vec![Overlay {
                kind: OverlayKind::Experiment(weights.iter().enumerate().map(arm).collect()),
                ..canary(1)
            }],
            ..Policy::default()
        };
        assert_eq!(arms(&[6_000, 4_000]).validate(), Ok(()));
        assert!(matches!(
            arms(&[6_000, 4_001]).validate(),
            Err(InvalidPolicy::Overweight { total: 10_001, .. })
        ));
        let huge = arms(&[u32::MAX, u32::MAX]).validate();
        assert!(matches!(huge, Err(InvalidPolicy::Overweight { total: 8_589_934_590, .. })));
        assert_eq!(arms(&[1; MAX_VARIANTS]).validate(), Ok(()));
        let too_many = arms(&[1; MAX_VARIANTS + 1]).validate();
        assert!(matches!(too_many, Err(InvalidPolicy::TooMany { what: "variants", length: 17, limit: 16 })));
        let listed = vec![Version::new("1").unwrap(); MAX_LIST + 1];
        let failover = Policy { failover: Failover::ToVersions(listed), ..Policy::default() };
        assert!(matches!(failover.validate(), Err(InvalidPolicy::TooMany { what: "failover versions", .. })));
    }

    #[test]
    fn every_version_that_a_policy_names_is_told() {
        let failover = Failover::ToVersions(vec![Version::new("3").unwrap()]);
        let policy = Policy { overlays: vec![canary(1)], failover, ..Policy::default() };
        let named: Vec<_> = policy.versions().map(Version::as_str).collect();
        assert_eq!(named, ["v1.0", "v2.0", "v3.0"]);
    }
}
