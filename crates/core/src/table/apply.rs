//! Folding events and instance lists into a table.

use super::{Profile, Row, ServiceTable, Table};
use crate::change::{Change, Event, Position};
use crate::digest;
use crate::ids::{OverlayId, ServiceId, TenantId};
use crate::instance::Instance;
use crate::key::{Fact, Key};
use crate::policy::{Overlay, Policy};
use crate::schema::{SchemaVersion, SchemaWindow};
use crate::service::{Hold, Pin};
use crate::tenant::Tenant;
use crate::version::Version;
use std::collections::BTreeMap;
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
        self.change_all(&event.changes);
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

    /// Applies changes in order; of an event, or of none yet, to see what they would do.
    pub(crate) fn change_all(&mut self, changes: &[Change]) {
        for alike in changes.chunk_by(pin_alike) {
            match alike {
                [Change::Put(Fact::Pin(_, service, wanted)), _, ..] => {
                    self.set_pins(alike.iter().filter_map(pin).map(|(tenant, _)| tenant), service, wanted);
                }
                _ => alike.iter().for_each(|change| self.change(change)),
            }
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Put(fact) => self.put(fact),
            Change::Removed(key) => self.remove(key),
        }
    }

    fn put(&mut self, fact: &Fact) {
        match fact {
            Fact::Tenant(tenant) => self.put_tenant(tenant),
            Fact::Service(service) => self.set_default(&service.id, Some(&service.default)),
            Fact::Version(version) => {
                self.set_window(&version.service, &version.version, Some(&version.window));
            }
            Fact::Policy(service, policy) => self.set_policy(service, Some(policy)),
            Fact::Overlay(service, overlay) => self.set_overlay(service, &overlay.id, Some(overlay)),
            Fact::Pin(tenant, service, pin) => self.set_pin(tenant, service, Some(pin)),
            Fact::Schema(tenant, service, seen) => self.set_schema(tenant, service, Some(&seen.schema)),
            Fact::Hold(tenant, service, hold) => self.set_hold(tenant, service, Some(hold)),
            // No decision needs it.
            Fact::Database(..) => {}
        }
    }

    fn remove(&mut self, key: &Key) {
        match key {
            Key::Tenant(tenant) => self.remove_tenant(tenant),
            Key::Service(service) => self.remove_service(service),
            Key::Version(service, version) => self.set_window(service, version, None),
            Key::Policy(service) => self.set_policy(service, None),
            Key::Overlay(service, overlay) => self.set_overlay(service, overlay, None),
            Key::Pin(tenant, service) => self.set_pin(tenant, service, None),
            Key::Schema(tenant, service) => self.set_schema(tenant, service, None),
            Key::Hold(tenant, service) => self.set_hold(tenant, service, None),
            Key::Database(..) => {}
        }
        if let Some(service) = key.service() {
            self.forget_vacant(service);
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
        for (service, hold) in self.holds.remove(tenant).iter().flat_map(|holds| holds.iter()) {
            self.drop_fact(digest::hold(tenant, service, hold));
        }
        let Some(row) = self.tenants.remove(tenant) else { return };
        self.active_tenants -= usize::from(row.is_active());
        if let Some(profile) = &row.profile {
            self.drop_fact(digest::profile(tenant, profile));
        }
        for entry in row.entries.iter() {
            let Some(service) = self.names.get(entry.service as usize).cloned() else { continue };
            let Some(known) = self.services.get(&service) else { continue };
            let assignment = known.assignment(entry.assignment);
            let pin = assignment.pin.as_ref().map_or(0, |pin| digest::pin(tenant, &service, pin));
            let schema = assignment.schema.as_ref().map_or(0, |s| digest::schema(tenant, &service, s));
            self.drop_fact(pin);
            self.drop_fact(schema);
            self.forget_vacant(&service);
        }
    }

    /// Pins tenants alike. Nearly all had the same assignment before, so what becomes of it is looked up once.
    fn set_pins<'a>(&mut self, tenants: impl Iterator<Item = &'a TenantId>, service: &ServiceId, pin: &Pin) {
        let index = self.service_index(service);
        // An assignment before and after, and the pin before.
        let mut usual: Option<(u32, u32, Option<Pin>)> = None;
        for tenant in tenants {
            let row = self.tenants.get_mut(tenant);
            let (Some((before, after, old)), Some(row)) = (&usual, row) else {
                usual = self.set_first_pin(tenant, service, pin, index);
                continue;
            };
            if row.assignment(index) != *before {
                usual = self.set_first_pin(tenant, service, pin, index);
                continue;
            }
            Arc::make_mut(row).entries.assign(index, *after);
            let old = old.as_ref().map_or(0, |old| digest::pin(tenant, service, old));
            self.drop_fact(old);
            self.add_fact(digest::pin(tenant, service, pin));
        }
    }

    /// Pins a tenant; returns its assignment before and after, and its pin before, if it was known.
    fn set_first_pin(
        &mut self,
        tenant: &TenantId,
        service: &ServiceId,
        pin: &Pin,
        index: u32,
    ) -> Option<(u32, u32, Option<Pin>)> {
        let before = self.tenants.get(tenant).map_or(0, |row| row.assignment(index));
        let old = self.services.get(service).and_then(|known| known.assignment(before).pin.clone());
        self.set_pin(tenant, service, Some(pin));
        Some((before, self.tenants.get(tenant)?.assignment(index), old))
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

    pub(super) fn set_hold(&mut self, tenant: &TenantId, service: &ServiceId, hold: Option<&Hold>) {
        let mut holds = self.holds.get(tenant).map(|holds| BTreeMap::clone(holds)).unwrap_or_default();
        let before = match hold {
            Some(hold) => holds.insert(service.clone(), hold.clone()),
            None => holds.remove(service),
        };
        self.drop_fact(before.map_or(0, |hold| digest::hold(tenant, service, &hold)));
        self.add_fact(hold.map_or(0, |hold| digest::hold(tenant, service, hold)));
        if holds.is_empty() {
            self.holds.remove(tenant);
        } else {
            self.holds.insert(tenant.clone(), Arc::new(holds));
        }
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
        row.entries.assign(index, assignment);
        self.put_row(tenant, row);
    }

    fn row(&self, tenant: &TenantId) -> Row {
        self.tenants.get(tenant).map(|row| Row::clone(row)).unwrap_or_default()
    }

    pub(super) fn put_row(&mut self, tenant: &TenantId, mut row: Row) {
        let active = row.is_active();
        row.plain = active && row.profile().is_some_and(|profile| profile.residency.is_empty());
        let before = if row.is_empty() {
            self.tenants.remove(tenant)
        } else {
            self.tenants.insert(tenant.clone(), Arc::new(row))
        };
        self.active_tenants += usize::from(active);
        self.active_tenants -= usize::from(before.is_some_and(|row| row.is_active()));
    }

    // === services ===

    pub(super) fn set_default(&mut self, service: &ServiceId, default: Option<&Version>) {
        let before = self.services.get(service).and_then(|s| s.default_version()).cloned();
        self.drop_fact(before.map_or(0, |version| digest::service(service, &version)));
        self.add_fact(default.map_or(0, |version| digest::service(service, version)));
        self.service_mut(service).set_default(default.cloned());
    }

    pub(super) fn set_window(
        &mut self,
        service: &ServiceId,
        version: &Version,
        window: Option<&SchemaWindow>,
    ) {
        self.add_fact(window.map_or(0, |window| digest::version(service, version, window)));
        let before = self.service_mut(service).set_window(version, window.cloned());
        self.drop_fact(before.map_or(0, |window| digest::version(service, version, &window)));
    }

    pub(super) fn set_policy(&mut self, service: &ServiceId, policy: Option<&Policy>) {
        // The default policy and none are the same to every decision, so they are the same fact.
        let policy = policy.filter(|p| **p != Policy::default());
        self.add_fact(policy.map_or(0, |policy| digest::policy(service, policy)));
        let before = self.service_mut(service).set_policy(policy.cloned().map(Arc::new));
        self.drop_fact(before.map_or(0, |policy| digest::policy(service, &policy)));
    }

    pub(super) fn set_overlay(&mut self, service: &ServiceId, id: &OverlayId, overlay: Option<&Overlay>) {
        self.add_fact(overlay.map_or(0, |overlay| digest::overlay(service, overlay)));
        let before = self.service_mut(service).set_overlay(id, overlay.cloned());
        self.drop_fact(before.map_or(0, |overlay| digest::overlay(service, &overlay)));
    }

    fn remove_service(&mut self, service: &ServiceId) {
        let Some(known) = self.services.get(service) else { return };
        let overlays: Vec<_> = known.overlays().iter().map(|overlay| overlay.id.clone()).collect();
        let declared: Vec<_> =
            known.versions().iter().filter(|v| v.window.is_some()).map(|v| v.version.clone()).collect();
        self.set_default(service, None);
        self.set_policy(service, None);
        for version in declared {
            self.set_window(service, &version, None);
        }
        for overlay in overlays {
            self.set_overlay(service, &overlay, None);
        }
    }

    pub(super) fn service_mut(&mut self, service: &ServiceId) -> &mut ServiceTable {
        let Self { services, names, free_services, .. } = self;
        let table = services.entry(service.clone()).or_insert_with(|| {
            let index = free_services.pop_back().unwrap_or_else(|| {
                names.push_back(service.clone());
                // A name is held by something of its own, and 2^32 of them fit no memory.
                u32::try_from(names.len() - 1).expect("fewer than 2^32 services")
            });
            names.set(index as usize, service.clone());
            Arc::new(ServiceTable::new(service.clone(), index))
        });
        Arc::make_mut(table)
    }

    pub(super) fn service_index(&mut self, service: &ServiceId) -> u32 {
        match self.services.get(service) {
            Some(known) => known.index(),
            None => self.service_mut(service).index(),
        }
    }

    /// Forgets a service of which nothing is left, so that passing names do not pile up.
    fn forget_vacant(&mut self, service: &ServiceId) {
        let Some(known) = self.services.get(service).filter(|known| known.is_undeclared()) else { return };
        let index = known.index();
        // Assignments outlive the tenants that had them, so only the tenants tell.
        let had_tenants = !known.assignments.is_empty();
        if had_tenants && self.tenants.values().any(|row| row.assignment(index) != 0) {
            return;
        }
        self.services.remove(service);
        self.free_services.push_back(index);
    }

    /// Which assignments of the service some tenant has, by index.
    fn used_assignments(&self, service: u32) -> Vec<bool> {
        let mut used = Vec::new();
        for assignment in self.tenants.values().map(|row| row.assignment(service) as usize) {
            used.resize(used.len().max(assignment + 1), false);
            if let Some(used) = used.get_mut(assignment) {
                *used = true;
            }
        }
        used
    }

    pub(super) fn intern(
        &mut self,
        service: &ServiceId,
        pin: Option<&Pin>,
        schema: Option<&SchemaVersion>,
    ) -> u32 {
        let index = self.service_index(service);
        let known = self.services.get(service).map(|known| &known.assignments);
        if let Some(found) = known.and_then(|known| known.find(pin, schema)) {
            return found;
        }
        if known.is_some_and(super::assignments::Assignments::is_crowded) {
            let used = self.used_assignments(index);
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

/// The tenant that a change pins, and what to.
fn pin(change: &Change) -> Option<(&TenantId, (&ServiceId, &Pin))> {
    match change {
        Change::Put(Fact::Pin(tenant, service, pin)) => Some((tenant, (service, pin))),
        Change::Put(_) | Change::Removed(_) => None,
    }
}

/// Whether two changes pin tenants alike.
fn pin_alike(one: &Change, next: &Change) -> bool {
    pin(one).is_some_and(|(_, one)| pin(next).is_some_and(|(_, next)| one == next))
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
