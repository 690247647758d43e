//! The same facts as a table, in plain maps.

use grey_core::change::Change;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::instance::Instance;
use grey_core::policy::Policy;
use grey_core::schema::{SchemaVersion, SchemaWindow};
use grey_core::service::{Pin, Service, ServiceVersion};
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) tenants: BTreeMap<TenantId, Tenant>,
    pub(crate) pins: BTreeMap<(TenantId, ServiceId), Pin>,
    pub(crate) schemas: BTreeMap<(TenantId, ServiceId), SchemaVersion>,
    pub(crate) defaults: BTreeMap<ServiceId, Version>,
    pub(crate) windows: BTreeMap<(ServiceId, Version), SchemaWindow>,
    pub(crate) policies: BTreeMap<ServiceId, Policy>,
    pub(crate) instances: BTreeMap<ServiceId, Vec<Instance>>,
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl Model {
    pub(crate) fn change(&mut self, change: &Change) {
        match change.clone() {
            Change::TenantPut(tenant) => set(&mut self.tenants, tenant.id.clone(), Some(tenant)),
            Change::TenantRemoved(tenant) => {
                self.tenants.remove(&tenant);
                self.pins.retain(|(of, _), _| *of != tenant);
                self.schemas.retain(|(of, _), _| *of != tenant);
            }
            Change::ServicePut(service) => set(&mut self.defaults, service.id, Some(service.default)),
            Change::ServiceRemoved(service) => {
                self.defaults.remove(&service);
                self.policies.remove(&service);
                self.windows.retain(|(of, _), _| *of != service);
            }
            Change::VersionPut(put) => set(&mut self.windows, (put.service, put.version), Some(put.window)),
            Change::VersionRemoved { service, version } => set(&mut self.windows, (service, version), None),
            Change::PolicyPut { service, policy } => set(&mut self.policies, service, Some(policy)),
            Change::PinPut { tenant, service, pin } => set(&mut self.pins, (tenant, service), Some(pin)),
            Change::PinRemoved { tenant, service } => set(&mut self.pins, (tenant, service), None),
            Change::SchemaObserved { tenant, service, schema, .. } => {
                set(&mut self.schemas, (tenant, service), schema);
            }
        }
    }

    /// Whether the control plane would take the change: only declared things can be spoken of.
    pub(crate) fn admits(&self, change: &Change) -> bool {
        match change {
            Change::TenantPut(_) | Change::ServicePut(_) => true,
            Change::TenantRemoved(tenant) => self.tenants.contains_key(tenant),
            Change::ServiceRemoved(service) | Change::PolicyPut { service, .. } => {
                self.defaults.contains_key(service)
            }
            Change::VersionPut(ServiceVersion { service, .. }) | Change::VersionRemoved { service, .. } => {
                self.defaults.contains_key(service)
            }
            Change::PinPut { tenant, service, .. }
            | Change::PinRemoved { tenant, service }
            | Change::SchemaObserved { tenant, service, .. } => {
                self.tenants.contains_key(tenant) && self.defaults.contains_key(service)
            }
        }
    }

    /// Changes that make these facts out of nothing.
    pub(crate) fn facts(&self) -> Vec<Change> {
        let mut facts: Vec<Change> = self.tenants.values().cloned().map(Change::TenantPut).collect();
        facts.extend(self.pins.iter().map(|((tenant, service), pin)| Change::PinPut {
            tenant: tenant.clone(),
            service: service.clone(),
            pin: pin.clone(),
        }));
        facts.extend(self.schemas.iter().map(|((tenant, service), schema)| Change::SchemaObserved {
            tenant: tenant.clone(),
            service: service.clone(),
            schema: Some(schema.clone()),
            at_ms: 0,
        }));
        facts.extend(
            self.defaults.iter().map(|(id, default)| {
                Change::ServicePut(Service { id: id.clone(), default: default.clone() })
            }),
        );
        facts.extend(self.windows.iter().map(|((service, version), window)| {
            let (service, version, window) = (service.clone(), version.clone(), window.clone());
            Change::VersionPut(ServiceVersion { service, version, window })
        }));
        facts.extend(
            self.policies.iter().map(|(service, policy)| Change::PolicyPut {
                service: service.clone(),
                policy: policy.clone(),
            }),
        );
        facts
    }

    /// Changes that take away what `self` has and `goal` has not, then put what `goal` has.
    pub(crate) fn changes_to(&self, goal: &Self) -> Vec<Change> {
        let gone = |tenant: &&TenantId| !goal.tenants.contains_key(*tenant);
        let mut changes: Vec<Change> =
            self.tenants.keys().filter(gone).cloned().map(Change::TenantRemoved).collect();
        let gone = |service: &&ServiceId| !goal.defaults.contains_key(*service);
        changes.extend(self.defaults.keys().filter(gone).cloned().map(Change::ServiceRemoved));
        for (tenant, service) in self.pins.keys().filter(|key| !goal.pins.contains_key(*key)).cloned() {
            changes.push(Change::PinRemoved { tenant, service });
        }
        for (tenant, service) in self.schemas.keys().filter(|key| !goal.schemas.contains_key(*key)).cloned() {
            changes.push(Change::SchemaObserved { tenant, service, schema: None, at_ms: 0 });
        }
        for (service, version) in self.windows.keys().filter(|key| !goal.windows.contains_key(*key)).cloned()
        {
            changes.push(Change::VersionRemoved { service, version });
        }
        for service in self.policies.keys().filter(|key| !goal.policies.contains_key(*key)).cloned() {
            changes.push(Change::PolicyPut { service, policy: Policy::default() });
        }
        changes.extend(goal.facts());
        changes
    }
}
