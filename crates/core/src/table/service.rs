//! Everything about one service, prepared for decisions.

use super::Row;
use super::assignments::{Assignment, Assignments};
use super::pool::Pool;
use crate::ids::{OverlayId, ServiceId};
use crate::instance::{self, Instance};
use crate::policy::{Overlay, Policy, Scope, Strategy};
use crate::schema::{SchemaVersion, SchemaWindow};
use crate::service::Pin;
use crate::version::Version;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    index: u32,
    default: Option<Version>,
    default_slot: Option<usize>,
    policy: Option<Arc<Policy>>,
    /// In the order in which they are tried.
    overlays: Vec<Arc<Overlay>>,
    /// Versions by order; an overlay's arms and failover's targets point into it.
    versions: Vec<VersionSlot>,
    /// Of all instances.
    instances_digest: u64,
    pub(super) assignments: Assignments,
}

impl ServiceTable {
    pub(super) fn new(id: ServiceId, index: u32) -> Self {
        Self {
            id,
            index,
            default: None,
            default_slot: None,
            policy: None,
            overlays: Vec::new(),
            versions: Vec::new(),
            instances_digest: 0,
            assignments: Assignments::default(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ServiceId {
        &self.id
    }

    pub(super) fn index(&self) -> u32 {
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

    /// Its experiments and canaries, in the order in which they are tried: experiments first, then canaries.
    #[must_use]
    pub fn overlays(&self) -> &[Arc<Overlay>] {
        &self.overlays
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

    /// Whether nothing is declared of it and nothing of it runs; tenants may still refer to it.
    pub(super) fn is_undeclared(&self) -> bool {
        let declared = self.versions.iter().any(|slot| !slot.is_vacant());
        self.default.is_none() && self.policy.is_none() && self.overlays.is_empty() && !declared
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

    /// Whether its choice of an instance looks at what time it is.
    #[must_use]
    pub fn reads_clock(&self) -> bool {
        let strategy = self.policy.as_ref().map(|p| p.balancing.strategy).unwrap_or_default();
        !matches!(strategy, Strategy::RoundRobin | Strategy::WeightedRoundRobin | Strategy::Random)
    }

    /// What a tenant is assigned to; without a row it is "no pin, no schema".
    #[must_use]
    pub fn assigned(&self, row: Option<&Row>) -> &Assignment {
        self.assignment(self.assignment_index(row))
    }

    /// Tenants with the same index have the same pin and the same schema.
    pub(crate) fn assignment_index(&self, row: Option<&Row>) -> u32 {
        row.map_or(0, |row| row.assignment(self.index))
    }

    /// The assignment of a tenant that had this pin and schema.
    pub(crate) fn would_assign(&self, pin: Option<Pin>, schema: Option<SchemaVersion>) -> Assignment {
        Assignment::new(pin, schema, &self.versions, self.default_slot)
    }

    pub(super) fn assignment(&self, index: u32) -> &Assignment {
        self.assignments.get(index)
    }

    pub(super) fn add_assignment(&mut self, pin: Option<Pin>, schema: Option<SchemaVersion>) -> u32 {
        let slots = self.versions.len();
        if let Some(pin) = &pin {
            self.make_slot(&pin.version);
        }
        let index = self.assignments.add(pin, schema);
        if self.versions.len() > slots {
            self.compile();
        } else {
            self.assignments.resolve(index, &self.versions, self.default_slot);
        }
        index
    }

    /// Forgets the assignments that no tenant has; `used` is by index.
    pub(super) fn sweep(&mut self, used: &[bool]) {
        self.assignments.sweep(used);
        self.compile();
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
        let old = self.strategy();
        let before = std::mem::replace(&mut self.policy, policy);
        let new = self.strategy();
        if old != new {
            for slot in &mut self.versions {
                let instances = slot.pool.members().iter().map(|m| m.instance.clone()).collect();
                slot.pool = Arc::new(Pool::new(instances, new, &slot.pool));
            }
        }
        before
    }

    pub(super) fn set_overlay(&mut self, id: &OverlayId, overlay: Option<Overlay>) -> Option<Arc<Overlay>> {
        let held = self.overlays.iter().position(|held| held.id == *id);
        let before = held.map(|at| self.overlays.remove(at));
        if let Some(overlay) = overlay {
            let place = |o: &Overlay| (!o.is_experiment(), o.order);
            let before = |o: &Arc<Overlay>| (place(o), &o.id) < (place(&overlay), &overlay.id);
            let at = self.overlays.partition_point(before);
            self.overlays.insert(at, Arc::new(overlay));
        }
        before
    }

    pub(super) fn set_instances(&mut self, instances: Vec<Instance>) {
        let strategy = self.strategy();
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
        self.digest_instances();
        self.compile();
    }

    fn digest_instances(&mut self) {
        let members = self.versions.iter().flat_map(|slot| slot.pool.members());
        self.instances_digest = instance::digest(&self.id, members.map(|member| &member.instance));
    }

    /// Digest of its instances; see [`instance::digest`].
    #[must_use]
    pub fn instances_digest(&self) -> u64 {
        self.instances_digest
    }

    pub(super) fn has_instances(&self) -> bool {
        self.versions.iter().any(|slot| !slot.pool.members().is_empty())
    }

    pub(super) fn adopt_instances(&mut self, before: &Self) {
        let strategy = self.strategy();
        for old in before.versions.iter().filter(|slot| !slot.pool.members().is_empty()) {
            let at = self.make_slot(&old.version);
            let instances = old.pool.members().iter().map(|m| m.instance.clone()).collect();
            if let Some(slot) = self.versions.get_mut(at) {
                slot.pool = Arc::new(Pool::new(instances, strategy, &old.pool));
            }
        }
        self.digest_instances();
        self.compile();
    }

    fn strategy(&self) -> Strategy {
        self.policy.as_ref().map(|policy| policy.balancing.strategy).unwrap_or_default()
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
        let pinned = self.assignments.pins().map(|pin| &pin.version);
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
        self.assignments.resolve_all(&self.versions, self.default_slot);
    }
}
