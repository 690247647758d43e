//! Folding events and instance lists into a table.

use super::{Entry, Profile, Row, ServiceTable, Table};
use crate::change::{Change, Event, Position};
use crate::digest;
use crate::ids::{ServiceId, TenantId};
use crate::instance::Instance;
use crate::schema::SchemaVersion;
use crate::service::Pin;
use crate::tenant::Tenant;
use std::sync::Arc;

/// An event that cannot be the next one of this table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event} does not follow revision {table}")]
pub struct OutOfOrder {
    /// The event's revision.
    pub event: u64,
    /// The table's revision.
    pub table: u64,
}

impl Table {
    /// Applies the event right after the table's revision.
    ///
    /// # Errors
    /// When the event's revision is not the next one; the table is then unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<(), OutOfOrder> {
        if event.revision != self.position.revision.next() {
            return Err(OutOfOrder { event: event.revision.0, table: self.position.revision.0 });
        }
        self.apply_again(event);
        Ok(())
    }

    /// Applies an event whose effects the table may already hold in part, as when a projection was read
    /// while it was being written. The table is exact once it reaches the revision at which the read ended.
    pub fn apply_again(&mut self, event: &Event) {
        for change in &event.changes {
            self.change(change);
        }
        self.position.revision = event.revision;
    }

    /// States which position the records inserted so far belong to.
    pub fn set_position(&mut self, position: Position) {
        self.position = position;
    }

    /// Replaces all instances of a service.
    pub fn set_instances(&mut self, service: &ServiceId, instances: Vec<Instance>) {
        self.service_mut(service).set_instances(instances);
        self.forget_vacant(service);
    }

    /// Takes over all instances, with their live figures, from the table that this one replaces.
    pub fn adopt_instances(&mut self, before: &Self) {
        for service in before.services().filter(|s| s.has_instances()) {
            self.service_mut(service.id()).adopt_instances(service);
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::TenantPut(tenant) => self.put_tenant(tenant),
            Change::TenantRemoved(tenant) => self.remove_tenant(tenant),
            Change::ServicePut(service) => self.set_default(&service.id, Some(&service.default)),
            Change::ServiceRemoved(service) => self.remove_service(service),
            Change::VersionPut(version) => {
                self.set_window(&version.service, &version.version, Some(&version.window));
            }
            Change::VersionRemoved { service, version } => {
                self.set_window(service, version, None);
                self.forget_vacant(service);
            }
            Change::PolicyPut { service, policy } => self.set_policy(service, Some(policy)),
            Change::PinPut { tenant, service, pin } => self.set_pin(tenant, service, Some(pin)),
            Change::PinRemoved { tenant, service } => {
                self.set_pin(tenant, service, None);
                self.forget_vacant(service);
            }
            Change::SchemaObserved { tenant, service, schema, .. } => {
                self.set_schema(tenant, service, schema.as_ref());
                self.forget_vacant(service);
            }
        }
    }

    // === tenants ===

    fn put_tenant(&mut self, tenant: &Tenant) {
        let profile = Profile::of(tenant);
        self.add_fact(digest::profile(&tenant.id, &profile));
        let mut row = self.row(&tenant.id);
        if let Some(before) = row.profile.replace(Arc::new(profile)) {
            self.drop_fact(digest::profile(&tenant.id, &before));
        }
        self.put_row(&tenant.id, row);
    }

    pub(super) fn remove_tenant(&mut self, tenant: &TenantId) {
        let Some(row) = self.tenants.remove(tenant) else { return };
        if let Some(profile) = &row.profile {
            self.drop_fact(digest::profile(tenant, profile));
        }
        for entry in &row.entries {
            let Some(service) = self.names.get(usize::from(entry.service)).cloned() else { continue };
            let Some(known) = self.services.get(&service) else { continue };
            let assignment = known.assignment(entry.assignment);
            let pin = assignment.pin.as_ref().map_or(0, |pin| digest::pin(tenant, &service, pin));
            let schema = assignment.schema.as_ref().map_or(0, |s| digest::schema(tenant, &service, s));
            self.drop_fact(pin);
            self.drop_fact(schema);
        }
    }

    fn set_pin(&mut self, tenant: &TenantId, service: &ServiceId, pin: Option<&Pin>) {
        self.reassign(tenant, service, |before, tenant, service| {
            let old = before.0.as_ref().map_or(0, |pin| digest::pin(tenant, service, pin));
            let new = pin.map_or(0, |pin| digest::pin(tenant, service, pin));
            ((pin.cloned(), before.1), old, new)
        });
    }

    fn set_schema(&mut self, tenant: &TenantId, service: &ServiceId, schema: Option<&SchemaVersion>) {
        self.reassign(tenant, service, |before, tenant, service| {
            let old = before.1.as_ref().map_or(0, |seen| digest::schema(tenant, service, seen));
            let new = schema.map_or(0, |seen| digest::schema(tenant, service, seen));
            ((before.0, schema.cloned()), old, new)
        });
    }

    /// Moves a tenant to another assignment of a service; `change` also gives the facts dropped and added.
    fn reassign(
        &mut self,
        tenant: &TenantId,
        service: &ServiceId,
        change: impl FnOnce(Assigned, &TenantId, &ServiceId) -> (Assigned, u64, u64),
    ) {
        let mut row = self.row(tenant);
        let index = self.service_index(service);
        let before = self.services.get(service).map(|s| s.assignment(row.assignment(index)));
        let before = before.map_or((None, None), |a| (a.pin.clone(), a.schema.clone()));
        let ((pin, schema), dropped, added) = change(before, tenant, service);
        self.drop_fact(dropped);
        self.add_fact(added);
        let assignment = self.intern(service, pin.as_ref(), schema.as_ref());
        row.assign(index, assignment);
        self.put_row(tenant, row);
    }

    fn row(&self, tenant: &TenantId) -> Row {
        self.tenants.get(tenant).map(|row| Row::clone(row)).unwrap_or_default()
    }

    fn put_row(&mut self, tenant: &TenantId, row: Row) {
        if row.is_empty() {
            self.tenants.remove(tenant);
        } else {
            self.tenants.insert(tenant.clone(), Arc::new(row));
        }
    }

    // === services ===

    pub(super) fn set_default(&mut self, service: &ServiceId, default: Option<&crate::version::Version>) {
        let before = self.services.get(service).and_then(|s| s.default_version()).cloned();
        self.drop_fact(before.map_or(0, |version| digest::service(service, &version)));
        self.add_fact(default.map_or(0, |version| digest::service(service, version)));
        self.service_mut(service).set_default(default.cloned());
    }

    pub(super) fn set_window(
        &mut self,
        service: &ServiceId,
        version: &crate::version::Version,
        window: Option<&crate::schema::SchemaWindow>,
    ) {
        self.add_fact(window.map_or(0, |window| digest::version(service, version, window)));
        let before = self.service_mut(service).set_window(version, window.cloned());
        self.drop_fact(before.map_or(0, |window| digest::version(service, version, &window)));
    }

    pub(super) fn set_policy(&mut self, service: &ServiceId, policy: Option<&crate::policy::Policy>) {
        // The default policy and none are the same to every decision, so they are the same fact.
        let policy = policy.filter(|p| **p != crate::policy::Policy::default());
        self.add_fact(policy.map_or(0, |policy| digest::policy(service, policy)));
        let before = self.service_mut(service).set_policy(policy.cloned().map(Arc::new));
        self.drop_fact(before.map_or(0, |policy| digest::policy(service, &policy)));
    }

    fn remove_service(&mut self, service: &ServiceId) {
        let Some(known) = self.services.get(service) else { return };
        let declared: Vec<_> =
            known.versions().iter().filter(|v| v.window.is_some()).map(|v| v.version.clone()).collect();
        self.set_default(service, None);
        self.set_policy(service, None);
        for version in declared {
            self.set_window(service, &version, None);
        }
        self.forget_vacant(service);
    }

    pub(super) fn service_mut(&mut self, service: &ServiceId) -> &mut ServiceTable {
        self.service_index(service);
        let known = self.services.get_mut(service).expect("a service with an index has a table");
        Arc::make_mut(known)
    }

    pub(super) fn service_index(&mut self, service: &ServiceId) -> u16 {
        if let Some(known) = self.services.get(service) {
            return known.index();
        }
        let index = match self.free_services.pop_back() {
            Some(index) => {
                self.names.set(usize::from(index), service.clone());
                index
            }
            None => {
                let index = u16::try_from(self.names.len());
                let index =
                    index.expect("the control plane and the registry name fewer than 65,536 services");
                self.names.push_back(service.clone());
                index
            }
        };
        self.services.insert(service.clone(), Arc::new(ServiceTable::new(service.clone(), index)));
        index
    }

    /// Forgets a service of which nothing is known, so that a registry's passing names do not pile up.
    fn forget_vacant(&mut self, service: &ServiceId) {
        let vacant = self.services.get(service).filter(|known| known.is_vacant()).map(|known| known.index());
        if let Some(index) = vacant {
            self.services.remove(service);
            self.free_services.push_back(index);
        }
    }

    pub(super) fn intern(
        &mut self,
        service: &ServiceId,
        pin: Option<&Pin>,
        schema: Option<&SchemaVersion>,
    ) -> u16 {
        self.service_index(service);
        let known = self.services.get(service).expect("a service with an index has a table");
        if let Some(found) = known.find_assignment(pin, schema) {
            return found;
        }
        if known.is_crowded() {
            let mut used = Vec::new();
            for assignment in self.tenants.values().map(|row| usize::from(row.assignment(known.index()))) {
                used.resize(used.len().max(assignment + 1), false);
                if let Some(used) = used.get_mut(assignment) {
                    *used = true;
                }
            }
            self.service_mut(service).sweep(&used);
        }
        self.service_mut(service).add_assignment(pin.cloned(), schema.cloned())
    }

    // === digest ===

    pub(super) fn add_fact(&mut self, fact: u64) {
        self.digest = self.digest.wrapping_add(fact);
    }

    fn drop_fact(&mut self, fact: u64) {
        self.digest = self.digest.wrapping_sub(fact);
    }
}

type Assigned = (Option<Pin>, Option<SchemaVersion>);

impl Row {
    /// Assignment 0 needs no entry.
    fn assign(&mut self, service: u16, assignment: u16) {
        let mut entries = std::mem::take(&mut self.entries).into_vec();
        match entries.binary_search_by_key(&service, |e| e.service) {
            Ok(at) if assignment == 0 => {
                entries.remove(at);
            }
            Ok(at) => {
                if let Some(entry) = entries.get_mut(at) {
                    entry.assignment = assignment;
                }
            }
            Err(_) if assignment == 0 => {}
            Err(at) => entries.insert(at, Entry { service, assignment }),
        }
        self.entries = entries.into_boxed_slice();
    }
}

impl Profile {
    /// The part of a tenant that decisions look at.
    #[must_use]
    pub fn of(tenant: &Tenant) -> Self {
        Self {
            status: tenant.status,
            tier: tenant.tier.clone(),
            region: tenant.region.clone(),
            residency: tenant.residency.clone(),
            labels: tenant.labels.clone(),
        }
    }
}
