//! Everything about one service, prepared for decisions.

use super::pool::Pool;
use crate::ids::ServiceId;
use crate::instance::Instance;
use crate::policy::{OverlayKind, Policy, Scope, Strategy};
use crate::schema::{SchemaVersion, SchemaWindow};
use crate::service::Pin;
use crate::version::Version;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Most distinct pairs of pin and schema in one service: as many as an index of 16 bits tells apart.
const MAX_ASSIGNMENTS: usize = 1 << 16;
/// Assignments of one service that are kept before those without tenants are looked for.
const SWEEP_AT: usize = 1_024;

/// What tenants with the same pin and the same observed schema share.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Assignment {
    /// The pin, if there is one.
    pub pin: Option<Pin>,
    /// The observed schema, if there is one.
    pub schema: Option<SchemaVersion>,
    /// Index of the pin's version, else of the service's default.
    pub(crate) base: Option<usize>,
    /// Whether the base version may serve these tenants.
    pub(crate) base_legal: bool,
}

/// One version of a service.
#[derive(Clone, Debug)]
pub struct VersionSlot {
    /// The version.
    pub version: Version,
    /// The schemas it works on; none while only instances or pins of it have arrived.
    pub window: Option<SchemaWindow>,
    /// Its instances.
    pub pool: Arc<Pool>,
}

impl VersionSlot {
    /// Whether tenants with this schema may be routed to the version.
    #[must_use]
    pub fn admits(&self, schema: Option<&SchemaVersion>) -> bool {
        self.window.as_ref().is_some_and(|window| window.admits(schema))
    }

    /// Whether it is neither declared nor run by any instance.
    fn is_vacant(&self) -> bool {
        self.window.is_none() && self.pool.members().is_empty()
    }
}

/// Everything about one service.
#[derive(Clone, Debug)]
pub struct ServiceTable {
    id: ServiceId,
    index: u16,
    default: Option<Version>,
    default_slot: Option<usize>,
    pub(crate) policy: Option<Arc<Policy>>,
    /// Versions by order; an overlay's arms and failover's targets point into it.
    pub(crate) versions: Vec<VersionSlot>,
    /// The first is "no pin, no schema".
    assignments: Vec<Assignment>,
    /// Assignments in use by the hash of their pin and schema, sorted.
    by_hash: Vec<(u64, u16)>,
    /// Assignments that may be given out again.
    free: Vec<u16>,
    /// How many assignments are in use when those without tenants are next looked for.
    sweep_at: usize,
    /// Experiments before canaries, as indexes into the policy's overlays.
    pub(crate) overlay_order: Vec<usize>,
}

impl ServiceTable {
    pub(super) fn new(id: ServiceId, index: u16) -> Self {
        Self {
            id,
            index,
            default: None,
            default_slot: None,
            policy: None,
            versions: Vec::new(),
            assignments: vec![Assignment::default()],
            by_hash: vec![(fingerprint(None, None), 0)],
            free: Vec::new(),
            sweep_at: SWEEP_AT,
            overlay_order: Vec::new(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ServiceId {
        &self.id
    }

    pub(super) fn index(&self) -> u16 {
        self.index
    }

    /// Its default version; none while it is not declared.
    #[must_use]
    pub fn default_version(&self) -> Option<&Version> {
        self.default.as_ref()
    }

    pub(crate) fn default_slot(&self) -> Option<usize> {
        self.default_slot
    }

    /// Its policy; none is the default policy.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_deref()
    }

    /// Its versions, oldest first.
    #[must_use]
    pub fn versions(&self) -> &[VersionSlot] {
        &self.versions
    }

    /// Index of a version.
    #[must_use]
    pub fn slot(&self, version: &Version) -> Option<usize> {
        self.versions.binary_search_by(|slot| slot.version.cmp(version)).ok()
    }

    /// Index of a version, if tenants may be routed to it at all.
    pub(crate) fn declared_slot(&self, version: &Version) -> Option<usize> {
        self.slot(version).filter(|at| self.versions.get(*at).is_some_and(|slot| slot.window.is_some()))
    }

    /// Whether nothing is known of it and no tenant can refer to it.
    pub(super) fn is_vacant(&self) -> bool {
        self.default.is_none()
            && self.policy.is_none()
            && self.versions.is_empty()
            && self.assignments.len() == 1
    }

    /// Whether its round robin counts turns over the whole fleet.
    #[must_use]
    pub fn awaits_turn(&self) -> bool {
        let balancing = self.policy.as_ref().map(|p| &p.balancing);
        balancing.is_some_and(|b| {
            b.scope == Scope::Global
                && matches!(b.strategy, Strategy::RoundRobin | Strategy::WeightedRoundRobin)
        })
    }

    pub(super) fn assignment(&self, index: u16) -> &Assignment {
        const NONE: &Assignment = &Assignment { pin: None, schema: None, base: None, base_legal: false };
        self.assignments.get(usize::from(index)).unwrap_or(NONE)
    }

    /// Finds the assignment with this pin and schema.
    pub(super) fn find_assignment(&self, pin: Option<&Pin>, schema: Option<&SchemaVersion>) -> Option<u16> {
        let hash = fingerprint(pin, schema);
        let start = self.by_hash.partition_point(|(known, _)| *known < hash);
        let alike = self.by_hash.iter().skip(start).take_while(|(known, _)| *known == hash);
        alike.map(|(_, index)| *index).find(|index| {
            let assignment = self.assignment(*index);
            assignment.pin.as_ref() == pin && assignment.schema.as_ref() == schema
        })
    }

    /// Whether those without tenants should be looked for before another assignment is added.
    pub(super) fn is_crowded(&self) -> bool {
        self.by_hash.len() >= self.sweep_at
    }

    /// Forgets the assignments that no tenant has; `used` is by index.
    pub(super) fn sweep(&mut self, used: &[bool]) {
        let in_use = |index: u16| index == 0 || used.get(usize::from(index)).copied().unwrap_or(false);
        let (kept, dropped): (Vec<_>, Vec<_>) = self.by_hash.iter().partition(|(_, index)| in_use(*index));
        for (_, index) in dropped {
            if let Some(assignment) = self.assignments.get_mut(usize::from(index)) {
                *assignment = Assignment::default();
                self.free.push(index);
            }
        }
        self.sweep_at = (kept.len() * 2).clamp(SWEEP_AT, MAX_ASSIGNMENTS);
        self.by_hash = kept;
        self.compile();
    }

    pub(super) fn add_assignment(&mut self, pin: Option<Pin>, schema: Option<SchemaVersion>) -> u16 {
        let slots = self.versions.len();
        if let Some(pin) = &pin {
            self.make_slot(&pin.version);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            // Only what tenants have now counts, so this takes as many tenants, each on a pair of its own.
            let index = u16::try_from(self.assignments.len());
            index.expect("tenants of one service are on fewer than 65,536 pairs of pin and schema")
        });
        let hash = fingerprint(pin.as_ref(), schema.as_ref());
        let at = self.by_hash.partition_point(|known| *known < (hash, index));
        self.by_hash.insert(at, (hash, index));
        let mut assignment = Assignment { pin, schema, ..Assignment::default() };
        self.resolve(&mut assignment);
        match self.assignments.get_mut(usize::from(index)) {
            Some(freed) => *freed = assignment,
            None => self.assignments.push(assignment),
        }
        if self.versions.len() > slots {
            self.compile();
        }
        index
    }

    /// Works out an assignment's base version.
    fn resolve(&self, assignment: &mut Assignment) {
        assignment.base = match &assignment.pin {
            Some(pin) => self.slot(&pin.version),
            None => self.default_slot,
        };
        let base = assignment.base.and_then(|at| self.versions.get(at));
        assignment.base_legal = base.is_some_and(|slot| slot.admits(assignment.schema.as_ref()));
    }

    pub(super) fn set_default(&mut self, default: Option<Version>) {
        if let Some(version) = &default {
            self.make_slot(version);
        }
        self.default = default;
        self.compile();
    }

    pub(super) fn set_window(
        &mut self,
        version: &Version,
        window: Option<SchemaWindow>,
    ) -> Option<SchemaWindow> {
        let at = self.make_slot(version);
        let before = self.versions.get_mut(at).and_then(|slot| std::mem::replace(&mut slot.window, window));
        self.compile();
        before
    }

    pub(super) fn set_policy(&mut self, policy: Option<Arc<Policy>>) -> Option<Arc<Policy>> {
        let before = std::mem::replace(&mut self.policy, policy);
        let strategy = |p: &Option<Arc<Policy>>| p.as_ref().map(|p| p.balancing.strategy).unwrap_or_default();
        let (old, new) = (strategy(&before), strategy(&self.policy));
        if old != new {
            for slot in &mut self.versions {
                let instances = slot.pool.members().iter().map(|m| m.instance.clone()).collect();
                slot.pool = Arc::new(Pool::new(instances, new, &slot.pool));
            }
        }
        self.compile();
        before
    }

    pub(super) fn set_instances(&mut self, instances: Vec<Instance>) {
        let strategy = self.policy.as_ref().map(|p| p.balancing.strategy).unwrap_or_default();
        let mut by_version: BTreeMap<Version, Vec<Instance>> = BTreeMap::new();
        for instance in instances {
            by_version.entry(instance.version.clone()).or_default().push(instance);
        }
        for version in by_version.keys() {
            self.make_slot(version);
        }
        for slot in &mut self.versions {
            let instances = by_version.remove(&slot.version).unwrap_or_default();
            slot.pool = Arc::new(Pool::new(instances, strategy, &slot.pool));
        }
        self.compile();
    }

    pub(super) fn has_instances(&self) -> bool {
        self.versions.iter().any(|slot| !slot.pool.members().is_empty())
    }

    pub(super) fn adopt_instances(&mut self, before: &Self) {
        let strategy = self.policy.as_ref().map(|p| p.balancing.strategy).unwrap_or_default();
        for old in before.versions.iter().filter(|slot| !slot.pool.members().is_empty()) {
            let at = self.make_slot(&old.version);
            let instances = old.pool.members().iter().map(|m| m.instance.clone()).collect();
            if let Some(slot) = self.versions.get_mut(at) {
                slot.pool = Arc::new(Pool::new(instances, strategy, &old.pool));
            }
        }
        self.compile();
    }

    fn make_slot(&mut self, version: &Version) -> usize {
        match self.versions.binary_search_by(|slot| slot.version.cmp(version)) {
            Ok(at) => at,
            Err(at) => {
                let slot = VersionSlot { version: version.clone(), window: None, pool: Arc::default() };
                self.versions.insert(at, slot);
                at
            }
        }
    }

    /// Forgets versions that were removed and that nothing refers to any more.
    fn prune(&mut self) {
        let mut kept: Vec<bool> = self.versions.iter().map(|slot| !slot.is_vacant()).collect();
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let pinned = self.assignments.iter().filter_map(|a| a.pin.as_ref()).map(|pin| &pin.version);
        for at in pinned.chain(&self.default).filter_map(|version| self.slot(version)) {
            if let Some(kept) = kept.get_mut(at) {
                *kept = true;
            }
        }
        let mut kept = kept.into_iter();
        self.versions.retain(|_| kept.next().unwrap_or(true));
    }

    /// Works out what every decision would otherwise look up again.
    fn compile(&mut self) {
        self.prune();
        self.default_slot = self.default.as_ref().and_then(|version| self.slot(version));
        let mut assignments = std::mem::take(&mut self.assignments);
        for assignment in &mut assignments {
            self.resolve(assignment);
        }
        self.assignments = assignments;
        let overlays = self.policy.as_ref().map(|p| p.overlays.as_slice()).unwrap_or_default();
        let is_experiment =
            |at: &usize| matches!(overlays.get(*at).map(|o| &o.kind), Some(OverlayKind::Experiment(_)));
        let (experiments, canaries): (Vec<_>, Vec<_>) = (0..overlays.len()).partition(is_experiment);
        self.overlay_order = experiments.into_iter().chain(canaries).collect();
    }
}

fn fingerprint(pin: Option<&Pin>, schema: Option<&SchemaVersion>) -> u64 {
    foldhash::fast::FixedState::with_seed(0).hash_one((pin, schema))
}
