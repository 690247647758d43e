//! Experiments and canaries: rules laid over the pins.

use super::{Buckets, MAX_LIST, MAX_VARIANTS, TooMany, WEIGHT_SCALE, limit};
use crate::ids::{Name, OverlayId, TenantId};
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// Longest salt, in bytes.
const MAX_SALT: usize = 128;

/// A rule laid over the pins: it moves a share of its units to other versions.
///
/// Overlays of one *layer* share its buckets: no unit is in two of them, since no bucket belongs to two. Overlays of
/// different layers choose independently, since each layer has a salt of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overlay {
    /// Unique within the service; decisions name it.
    pub id: OverlayId,
    /// Lower ones are tried first; experiments before canaries all the same.
    pub order: u32,
    /// Whose buckets its arms own.
    pub layer: OverlayId,
    /// The layer's: mixed into the hash. Another one reshuffles every unit.
    pub salt: String,
    /// The layer's: what is assigned as a whole.
    pub unit: Unit,
    /// Who it is about.
    pub matching: Match,
    /// What it does.
    pub kind: OverlayKind,
}

/// What an overlay does with the calls that it matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OverlayKind {
    /// Splits units over variants.
    Experiment(Experiment),
    /// Moves a share of the units of one version to another.
    Canary(Canary),
}

/// Splits units over variants; the share that no variant takes stays on the base version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Experiment {
    /// The arms.
    pub variants: Vec<Variant>,
    /// Whether tenants with a pin take part. A locked pin is left alone all the same.
    pub includes_pinned: bool,
}

/// One arm of an experiment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variant {
    /// Names the arm in decisions and reports.
    pub id: OverlayId,
    /// The version it serves.
    pub version: Version,
    /// Whose units it takes.
    pub buckets: Buckets,
}

/// Moves a share of the units on `baseline` to `canary`; raising its weight only adds units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Canary {
    /// The version it takes units from.
    pub baseline: Version,
    /// The version it moves them to.
    pub canary: Version,
    /// Whose units it takes.
    pub buckets: Buckets,
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

/// Why an overlay cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOverlay {
    /// Its arms share buckets.
    #[error("variants `{0}` and `{1}` share buckets")]
    Overlapping(OverlayId, OverlayId),
    /// It splits by user or request although the service keeps state between calls.
    #[error("it splits by user or request, which needs a stateless service")]
    NeedsStateless,
    /// An experiment without variants, a canary of a version against itself, an empty salt.
    #[error("{0}")]
    Pointless(&'static str),
    /// A list is longer than its limit.
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// Why an overlay finds no place in its layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Other overlays of the layer have too many of its buckets.
    #[error("layer `{layer}` has {free} of {WEIGHT_SCALE} parts left, {wanted} more are needed")]
    Full {
        /// The layer.
        layer: OverlayId,
        /// Parts that nobody has.
        free: u32,
        /// Parts needed beyond those that the overlay has.
        wanted: u32,
    },
    /// The layer assigns something else as a whole.
    #[error("layer `{0}` splits by another unit; use another layer")]
    OtherUnit(OverlayId),
}

impl Overlay {
    /// Checks the rules that types cannot hold, for a service that is `stateless` or not.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self, stateless: bool) -> Result<(), InvalidOverlay> {
        if self.salt.is_empty() || self.salt.len() > MAX_SALT {
            return Err(InvalidOverlay::Pointless("the salt needs 1 to 128 bytes"));
        }
        if self.unit != Unit::Tenant && !stateless {
            return Err(InvalidOverlay::NeedsStateless);
        }
        self.matching.validate()?;
        match &self.kind {
            OverlayKind::Canary(canary) if canary.baseline == canary.canary => {
                Err(InvalidOverlay::Pointless("baseline and canary are the same version"))
            }
            OverlayKind::Canary(_) => Ok(()),
            OverlayKind::Experiment(experiment) => experiment.validate(),
        }
    }

    /// Every version that the overlay names, for checking that they exist.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        let (pair, variants) = match &self.kind {
            OverlayKind::Canary(canary) => ([Some(&canary.baseline), Some(&canary.canary)], &[][..]),
            OverlayKind::Experiment(experiment) => ([None, None], experiment.variants.as_slice()),
        };
        pair.into_iter().flatten().chain(variants.iter().map(|v| &v.version))
    }

    /// Whether it is an experiment.
    #[must_use]
    pub fn is_experiment(&self) -> bool {
        matches!(self.kind, OverlayKind::Experiment(_))
    }

    /// The buckets that its arms own.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        self.arms().fold(Buckets::default(), |all, (_, buckets)| all.union(buckets))
    }

    /// Arms with their buckets; a canary is one arm with its own id.
    fn arms(&self) -> impl Iterator<Item = (&OverlayId, &Buckets)> {
        let (canary, variants) = match &self.kind {
            OverlayKind::Canary(canary) => (Some((&self.id, &canary.buckets)), &[][..]),
            OverlayKind::Experiment(experiment) => (None, experiment.variants.as_slice()),
        };
        canary.into_iter().chain(variants.iter().map(|variant| (&variant.id, &variant.buckets)))
    }

    fn arms_mut(&mut self) -> impl Iterator<Item = (&OverlayId, &mut Buckets)> {
        let (canary, variants) = match &mut self.kind {
            OverlayKind::Canary(canary) => (Some((&self.id, &mut canary.buckets)), &mut [][..]),
            OverlayKind::Experiment(experiment) => (None, experiment.variants.as_mut_slice()),
        };
        canary.into_iter().chain(variants.iter_mut().map(|variant| (&variant.id, &mut variant.buckets)))
    }

    /// Gives each arm as many buckets of the layer as it has now, moving as few units as possible.
    ///
    /// An arm keeps what it had `before`; what it gives back goes to arms that grow, which then take what nobody
    /// has. `others` are the service's other overlays; those of the same layer keep their buckets.
    ///
    /// # Errors
    /// When the layer has too few buckets left, or assigns another unit. The overlay is then as it was.
    pub fn settle(&mut self, before: Option<&Self>, others: &[Self]) -> Result<(), NoRoom> {
        let before = before.filter(|held| held.layer == self.layer && held.unit == self.unit);
        let neighbours = || others.iter().filter(|other| other.layer == self.layer && other.id != self.id);
        if neighbours().any(|other| other.unit != self.unit) {
            return Err(NoRoom::OtherUnit(self.layer.clone()));
        }
        let salt = before.or(neighbours().next()).map(|shared| shared.salt.clone());
        let mut taken = neighbours().fold(Buckets::default(), |all, other| all.union(&other.buckets()));
        let mut settled = Vec::new();
        for (id, wanted) in self.arms() {
            let held = before.and_then(|held| held.arms().find(|(known, _)| *known == id));
            let held = held.map(|(_, buckets)| buckets.clone()).unwrap_or_default();
            let kept = held.weight().min(wanted.weight());
            let kept = held.resized(kept, &Buckets::default()).unwrap_or_default();
            taken = taken.union(&kept);
            settled.push((kept, wanted.weight()));
        }
        for (buckets, weight) in &mut settled {
            let grown = buckets.resized(*weight, &taken).ok_or_else(|| NoRoom::Full {
                layer: self.layer.clone(),
                free: WEIGHT_SCALE - taken.weight(),
                wanted: *weight - buckets.weight(),
            })?;
            taken = taken.union(&grown);
            *buckets = grown;
        }
        for ((_, buckets), (given, _)) in self.arms_mut().zip(settled) {
            *buckets = given;
        }
        if let Some(salt) = salt {
            self.salt = salt;
        }
        Ok(())
    }
}

impl Experiment {
    fn validate(&self) -> Result<(), InvalidOverlay> {
        limit("variants", self.variants.len(), MAX_VARIANTS)?;
        if self.variants.is_empty() {
            return Err(InvalidOverlay::Pointless("the experiment has no variants"));
        }
        for (at, variant) in self.variants.iter().enumerate() {
            for other in self.variants.iter().skip(at + 1) {
                if variant.id == other.id {
                    return Err(InvalidOverlay::Pointless("two variants share an id"));
                }
                if !variant.buckets.is_disjoint(&other.buckets) {
                    return Err(InvalidOverlay::Overlapping(variant.id.clone(), other.id.clone()));
                }
            }
        }
        Ok(())
    }
}

impl Match {
    fn validate(&self) -> Result<(), TooMany> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
    use super::*;

    fn id(text: &str) -> OverlayId {
        OverlayId::new(text).unwrap()
    }

    fn version(text: &str) -> Version {
        Version::new(text).unwrap()
    }

    fn overlay(name: &str, layer: &str, kind: OverlayKind) -> Overlay {
        let (salt, unit) = (format!("salt of {layer}"), Unit::Tenant);
        Overlay { id: id(name), order: 0, layer: id(layer), salt, unit, matching: Match::default(), kind }
    }

    fn canary(name: &str, layer: &str, weight: u32) -> Overlay {
        let buckets = Buckets::first(weight).unwrap();
        let kind = OverlayKind::Canary(Canary { baseline: version("1"), canary: version("2"), buckets });
        overlay(name, layer, kind)
    }

    /// Arms with the first buckets each, as a request has them before it is settled.
    fn experiment(layer: &str, arms: &[(&str, u32)]) -> Overlay {
        let arm = |(name, weight): &(&str, u32)| Variant {
            id: id(name),
            version: version("2"),
            buckets: Buckets::first(*weight).unwrap(),
        };
        let variants = arms.iter().map(arm).collect();
        overlay("e", layer, OverlayKind::Experiment(Experiment { variants, includes_pinned: false }))
    }

    fn arm_of(overlay: &Overlay, bucket: u32) -> Option<OverlayId> {
        overlay.arms().find(|(_, buckets)| buckets.contains(bucket)).map(|(id, _)| id.clone())
    }

    /// Buckets that change their arm.
    fn moved(before: &Overlay, after: &Overlay) -> usize {
        (0..WEIGHT_SCALE).filter(|bucket| arm_of(before, *bucket) != arm_of(after, *bucket)).count()
    }

    #[test]
    fn a_change_of_weights_moves_only_the_difference() {
        let mut before = experiment("e", &[("a", 5_000), ("b", 3_000), ("c", 2_000)]);
        before.settle(None, &[]).unwrap();
        let mut after = experiment("e", &[("a", 4_000), ("b", 3_000), ("c", 3_000)]);
        after.settle(Some(&before), &[]).unwrap();
        assert_eq!(moved(&before, &after), 1_000);
        let mut reordered = experiment("e", &[("c", 3_000), ("a", 4_000), ("b", 3_000)]);
        reordered.settle(Some(&after), &[]).unwrap();
        assert_eq!(moved(&after, &reordered), 0);
    }

    #[test]
    fn overlays_of_one_layer_never_share_a_unit() {
        let mut first = canary("one", "shared", 5_000);
        first.settle(None, &[]).unwrap();
        let mut second = canary("two", "shared", 5_000);
        second.salt = "another".to_owned();
        second.settle(None, std::slice::from_ref(&first)).unwrap();
        assert!(first.buckets().is_disjoint(&second.buckets()));
        assert_eq!(second.salt, first.salt, "one layer has one salt");
        let full = canary("three", "shared", 1).settle(None, &[first.clone(), second]);
        assert_eq!(full, Err(NoRoom::Full { layer: id("shared"), free: 0, wanted: 1 }));
        let mut by_user = Overlay { unit: Unit::User, ..canary("four", "shared", 1) };
        assert_eq!(by_user.settle(None, &[first]), Err(NoRoom::OtherUnit(id("shared"))));
    }

    #[test]
    fn another_layer_is_another_beginning() {
        let mut before = canary("c", "old", 2_000);
        let mut neighbour = canary("n", "old", 3_000);
        neighbour.settle(None, &[]).unwrap();
        before.settle(None, &[neighbour]).unwrap();
        assert_eq!(before.buckets().ranges(), [(3_000, 5_000)]);
        let mut after = canary("c", "new", 2_000);
        after.settle(Some(&before), &[]).unwrap();
        assert_eq!(after.buckets().ranges(), [(0, 2_000)]);
        assert_eq!(after.salt, "salt of new");
    }

    #[test]
    fn user_splits_need_a_stateless_service() {
        let by_user = Overlay { unit: Unit::User, ..canary("c", "c", 1) };
        assert_eq!(by_user.validate(false), Err(InvalidOverlay::NeedsStateless));
        assert_eq!(by_user.validate(true), Ok(()));
    }

    #[test]
    fn pointless_overlays_are_refused() {
        let why = |overlay: Overlay| match overlay.validate(false) {
            Err(InvalidOverlay::Pointless(why)) => why,
            other => panic!("{other:?}"),
        };
        let one = version("1");
        let to_itself = Canary { baseline: one.clone(), canary: one, buckets: Buckets::default() };
        assert!(why(overlay("c", "c", OverlayKind::Canary(to_itself))).contains("same version"));
        assert!(why(Overlay { salt: String::new(), ..canary("c", "c", 1) }).contains("salt"));
        assert!(why(Overlay { salt: "s".repeat(129), ..canary("c", "c", 1) }).contains("salt"));
        assert!(why(experiment("e", &[])).contains("no variants"));
        assert!(why(experiment("e", &[("a", 0), ("a", 0)])).contains("share an id"));
        let overlapping = experiment("e", &[("a", 1), ("b", 1)]).validate(false);
        assert_eq!(overlapping, Err(InvalidOverlay::Overlapping(id("a"), id("b"))));
    }

    #[test]
    fn lists_are_bounded() {
        let many: Vec<String> = (0..=MAX_VARIANTS).map(|at| format!("arm-{at}")).collect();
        let many: Vec<(&str, u32)> = many.iter().map(|name| (name.as_str(), 0)).collect();
        assert!(matches!(experiment("e", &many).validate(false), Err(InvalidOverlay::TooMany(_))));
        let tenants = (0..=MAX_LIST).map(|at| TenantId::new(&format!("t{at}")).unwrap()).collect();
        let matching = Match { tenants, ..Match::default() };
        let long = Overlay { matching, ..canary("c", "c", 1) }.validate(false);
        assert!(long.unwrap_err().to_string().contains("matched tenants has 1001 entries"));
    }
}
