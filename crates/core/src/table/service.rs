//! Everything about one service, prepared for decisions.

use super::pool::Pool;
use crate::ids::ServiceId;
use crate::instance::Instance;
use crate::policy::{OverlayKind, Policy, Scope, Strategy};
use crate::schema::{SchemaVersion, SchemaWindow};
use crate::service::Pin;
use crate::version::Version;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    assignments: Vec<Assignment>,
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

    /// Finds the assignment with this pin and schema, or adds it. None: there is no room for another.
    pub(super) fn intern(&self, pin: Option<&Pin>, schema: Option<&SchemaVersion>) -> Option<u16> {
        let same = |a: &Assignment| a.pin.as_ref() == pin && a.schema.as_ref() == schema;
        self.assignments.iter().position(same).and_then(|at| u16::try_from(at).ok())
    }

    pub(super) fn add_assignment(&mut self, pin: Option<Pin>, schema: Option<SchemaVersion>) -> u16 {
        if let Some(pin) = &pin {
            self.make_slot(&pin.version);
        }
        self.assignments.push(Assignment { pin, schema, ..Assignment::default() });
        self.compile();
        // 65,536 distinct pairs of pin and schema in one service would need a release a day for a century.
        u16::try_from(self.assignments.len() - 1).expect("fewer than 65,536 assignments of one service")
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

    /// Works out what every decision would otherwise look up again.
    fn compile(&mut self) {
        self.default_slot = self.default.as_ref().and_then(|version| self.slot(version));
        let mut assignments = std::mem::take(&mut self.assignments);
        for assignment in &mut assignments {
            assignment.base = match &assignment.pin {
                Some(pin) => self.slot(&pin.version),
                None => self.default_slot,
            };
            let base = assignment.base.and_then(|at| self.versions.get(at));
            assignment.base_legal = base.is_some_and(|slot| slot.admits(assignment.schema.as_ref()));
        }
        self.assignments = assignments;
        let overlays = self.policy.as_ref().map(|p| p.overlays.as_slice()).unwrap_or_default();
        let is_experiment =
            |at: &usize| matches!(overlays.get(*at).map(|o| &o.kind), Some(OverlayKind::Experiment(_)));
        let (experiments, canaries): (Vec<_>, Vec<_>) = (0..overlays.len()).partition(is_experiment);
        self.overlay_order = experiments.into_iter().chain(canaries).collect();
    }
}
