//! The same facts as a table, in plain maps.

use grey_core::change::Change;
use grey_core::ids::{OverlayId, ServiceId, TenantId};
use grey_core::instance::Instance;
use grey_core::key::{Fact, Key};
use grey_core::policy::{Overlay, Policy};
use grey_core::schema::{Observation, SchemaVersion, SchemaWindow};
use grey_core::service::{Hold, Pin, Service, ServiceVersion};
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) tenants: BTreeMap<TenantId, Tenant>,
    pub(crate) pins: BTreeMap<(TenantId, ServiceId), Pin>,
    pub(crate) schemas: BTreeMap<(TenantId, ServiceId), SchemaVersion>,
    pub(crate) holds: BTreeMap<(TenantId, ServiceId), Hold>,
    pub(crate) defaults: BTreeMap<ServiceId, Version>,
    pub(crate) windows: BTreeMap<(ServiceId, Version), SchemaWindow>,
    pub(crate) policies: BTreeMap<ServiceId, Policy>,
    pub(crate) overlays: BTreeMap<(ServiceId, OverlayId), Overlay>,
    pub(crate) instances: BTreeMap<ServiceId, Vec<Instance>>,
}

impl Model {
    pub(crate) fn change(&mut self, change: &Change) {
        match change.clone() {
            Change::Put(fact) => self.put(fact),
            Change::Removed(key) => self.remove(key),
        }
    }

    fn put(&mut self, fact: Fact) {
        match fact {
            Fact::Tenant(tenant) => drop(self.tenants.insert(tenant.id.clone(), *tenant)),
            Fact::Service(service) => drop(self.defaults.insert(service.id, service.default)),
            Fact::Version(put) => drop(self.windows.insert((put.service, put.version), put.window)),
            Fact::Policy(service, policy) => drop(self.policies.insert(service, policy)),
            Fact::Overlay(service, overlay) => {
                self.overlays.insert((service, overlay.id.clone()), *overlay);
            }
            Fact::Pin(tenant, service, pin) => drop(self.pins.insert((tenant, service), pin)),
            Fact::Schema(tenant, service, seen) => {
                self.schemas.insert((tenant, service), seen.schema);
            }
            Fact::Hold(tenant, service, hold) => drop(self.holds.insert((tenant, service), hold)),
            // Decides nothing, so nothing is kept of it.
            Fact::Database(..) => {}
        }
    }

    fn remove(&mut self, key: Key) {
        match key {
            Key::Tenant(tenant) => {
                self.tenants.remove(&tenant);
                self.pins.retain(|(of, _), _| *of != tenant);
                self.schemas.retain(|(of, _), _| *of != tenant);
                self.holds.retain(|(of, _), _| *of != tenant);
            }
            Key::Service(service) => {
                self.defaults.remove(&service);
                self.policies.remove(&service);
                self.windows.retain(|(of, _), _| *of != service);
                self.overlays.retain(|(of, _), _| *of != service);
            }
            Key::Version(service, version) => drop(self.windows.remove(&(service, version))),
            Key::Policy(service) => drop(self.policies.remove(&service)),
            Key::Overlay(service, overlay) => drop(self.overlays.remove(&(service, overlay))),
            Key::Pin(tenant, service) => drop(self.pins.remove(&(tenant, service))),
            Key::Schema(tenant, service) => drop(self.schemas.remove(&(tenant, service))),
            Key::Hold(tenant, service) => drop(self.holds.remove(&(tenant, service))),
            Key::Database(..) => {}
        }
    }

    /// Whether the control plane would take the change: only declared things can be spoken of.
    pub(crate) fn admits(&self, change: &Change) -> bool {
        match change.key() {
            Key::Tenant(tenant) => matches!(change, Change::Put(_)) || self.tenants.contains_key(&tenant),
            Key::Service(service) => matches!(change, Change::Put(_)) || self.defaults.contains_key(&service),
            Key::Version(service, _) | Key::Policy(service) | Key::Overlay(service, _) => {
                self.defaults.contains_key(&service)
            }
            Key::Pin(tenant, service)
            | Key::Schema(tenant, service)
            | Key::Hold(tenant, service)
            | Key::Database(tenant, service) => {
                self.tenants.contains_key(&tenant) && self.defaults.contains_key(&service)
            }
        }
    }

    /// Every fact, each kind by itself.
    pub(crate) fn facts(&self) -> Vec<Fact> {
        let mut facts: Vec<Fact> =
            self.tenants.values().cloned().map(|tenant| Fact::Tenant(Box::new(tenant))).collect();
        facts.extend(
            self.pins
                .iter()
                .map(|((tenant, service), pin)| Fact::Pin(tenant.clone(), service.clone(), pin.clone())),
        );
        facts.extend(self.schemas.iter().map(|((tenant, service), schema)| {
            let seen = Observation { schema: schema.clone(), at_ms: 0 };
            Fact::Schema(tenant.clone(), service.clone(), seen)
        }));
        facts.extend(
            self.holds
                .iter()
                .map(|((tenant, service), hold)| Fact::Hold(tenant.clone(), service.clone(), hold.clone())),
        );
        facts.extend(
            self.defaults
                .iter()
                .map(|(id, default)| Fact::Service(Service { id: id.clone(), default: default.clone() })),
        );
        facts.extend(self.windows.iter().map(|((service, version), window)| {
            let (service, version, window) = (service.clone(), version.clone(), window.clone());
            Fact::Version(Box::new(ServiceVersion { service, version, window }))
        }));
        facts.extend(self.policies.iter().map(|(of, policy)| Fact::Policy(of.clone(), policy.clone())));
        facts.extend(
            self.overlays
                .iter()
                .map(|((of, _), overlay)| Fact::Overlay(of.clone(), Box::new(overlay.clone()))),
        );
        facts
    }

    /// Changes that make these facts out of nothing.
    pub(crate) fn puts(&self) -> Vec<Change> {
        self.facts().into_iter().map(Change::Put).collect()
    }

    /// Changes that take away what `self` has and `goal` has not, then put what `goal` has.
    pub(crate) fn changes_to(&self, goal: &Self) -> Vec<Change> {
        let kept: BTreeSet<Key> = goal.facts().iter().map(Fact::key).collect();
        let gone = self.facts().into_iter().map(|fact| fact.key()).filter(|key| !kept.contains(key));
        let mut changes: Vec<Change> = gone.map(Change::Removed).collect();
        changes.extend(goal.puts());
        changes
    }
}
