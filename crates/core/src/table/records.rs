//! Loading a table from records, and reading it back as records.

use super::entries::{Entries, Entry};
use super::{Profile, Row, Table};
use crate::digest;
use crate::ids::{ServiceId, TenantId};
use crate::key::RecordId;
use crate::policy::Overlay;
use crate::record::{Record, ServiceRecord, TenantRecord};
use crate::schema::Observation;
use crate::service::{Service, ServiceVersion};
use crate::tenant::Tenant;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Table {
    /// Inserts a record of a snapshot into a table that does not hold that service yet; a tenant is replaced.
    pub fn insert(&mut self, record: Record) {
        match record {
            Record::Service(record) => self.insert_service(&record),
            Record::Tenant(record) => self.insert_tenant(record),
        }
    }

    fn insert_service(&mut self, record: &ServiceRecord) {
        let id = &record.service.id;
        self.set_default(id, Some(&record.service.default));
        self.set_policy(id, Some(&record.policy));
        for version in &record.versions {
            self.set_window(id, &version.version, Some(&version.window));
        }
        for overlay in &record.overlays {
            self.set_overlay(id, &overlay.id, Some(overlay));
        }
    }

    fn insert_tenant(&mut self, record: TenantRecord) {
        let TenantRecord { tenant, mut pins, schemas, holds } = record;
        // Of two pins for one service the last one counts, as it does in a list of changes.
        pins.reverse();
        pins.sort_by(|(a, _), (b, _)| a.cmp(b));
        pins.dedup_by(|(later, _), (kept, _)| later == kept);
        let mut schemas: BTreeMap<_, _> =
            schemas.into_iter().map(|(service, seen)| (service, seen.schema)).collect();
        self.apply_removal(&tenant.id);
        let mut entries: Vec<Entry> = Vec::with_capacity(pins.len() + schemas.len());
        for (service, pin) in pins {
            self.add_fact(digest::pin(&tenant.id, &service, &pin));
            let schema = schemas.remove(&service);
            if let Some(schema) = &schema {
                self.add_fact(digest::schema(&tenant.id, &service, schema));
            }
            let index = self.service_index(&service);
            entries.push(Entry {
                service: index,
                assignment: self.intern(&service, Some(&pin), schema.as_ref()),
            });
        }
        for (service, schema) in schemas {
            self.add_fact(digest::schema(&tenant.id, &service, &schema));
            let index = self.service_index(&service);
            entries.push(Entry { service: index, assignment: self.intern(&service, None, Some(&schema)) });
        }
        entries.sort_unstable_by_key(|e| e.service);
        let profile = Profile::of(&tenant);
        self.add_fact(digest::profile(&tenant.id, &profile));
        for (service, hold) in &holds {
            self.set_hold(&tenant.id, service, Some(hold));
        }
        let row = Row { profile: Some(Arc::new(profile)), entries: Entries::new(&entries), ..Row::default() };
        self.put_row(&tenant.id, row);
    }

    fn apply_removal(&mut self, tenant: &TenantId) {
        if self.tenants.contains_key(tenant) || self.holds.contains_key(tenant) {
            self.remove_tenant(tenant);
        }
    }

    /// Every declared tenant, in no order. Names and observation times are not kept in a table: the name
    /// is the id, the time 0.
    pub fn tenant_records(&self) -> impl Iterator<Item = TenantRecord> {
        self.tenants.iter().filter_map(|(id, row)| self.record_of(id, row))
    }

    /// One declared tenant, as [`Self::tenant_records`] tells it.
    #[must_use]
    pub fn tenant_record(&self, id: &TenantId) -> Option<TenantRecord> {
        self.record_of(id, self.tenants.get(id)?)
    }

    fn record_of(&self, id: &TenantId, row: &Row) -> Option<TenantRecord> {
        let profile = row.profile()?;
        let mut record = TenantRecord {
            tenant: Tenant {
                status: profile.status,
                tier: profile.tier.clone(),
                region: profile.region.clone(),
                residency: profile.residency.clone(),
                labels: profile.labels.clone(),
                ..Tenant::new(id.clone())
            },
            pins: Vec::with_capacity(row.entries.len()),
            schemas: Vec::new(),
            holds: Vec::new(),
        };
        if let Some(holds) = self.holds.get(id) {
            record.holds.extend(holds.iter().map(|(service, hold)| (service.clone(), hold.clone())));
        }
        for entry in row.entries.iter() {
            let service = self.names.get(entry.service as usize)?;
            let assignment = self.services.get(service)?.assignment(entry.assignment);
            record.pins.extend(assignment.pin.clone().map(|pin| (service.clone(), pin)));
            let seen = assignment.schema.clone().map(|schema| Observation { schema, at_ms: 0 });
            record.schemas.extend(seen.map(|seen| (service.clone(), seen)));
        }
        Some(record)
    }

    /// The records that are not the same in both tables, instances left out.
    #[must_use]
    pub fn differing(&self, other: &Self) -> BTreeSet<RecordId> {
        let services = |table: &Self| -> BTreeMap<_, _> {
            table.service_records().map(|record| (record.service.id.clone(), record)).collect()
        };
        let (ours, theirs) = (services(self), services(other));
        let differ = |id: &&ServiceId| ours.get(*id) != theirs.get(*id);
        let ids = ours.keys().chain(theirs.keys()).filter(differ).cloned();
        let mut differing: BTreeSet<RecordId> = ids.map(RecordId::Service).collect();
        // Two tables may number the same services in another order.
        let sorted = |table: &Self, id| {
            let mut record = table.tenant_record(id)?;
            record.pins.sort_by(|(a, _), (b, _)| a.cmp(b));
            record.schemas.sort_by(|(a, _), (b, _)| a.cmp(b));
            Some(record)
        };
        let ids = self.tenants.keys().chain(other.tenants.keys());
        differing
            .extend(ids.filter(|id| sorted(self, id) != sorted(other, id)).cloned().map(RecordId::Tenant));
        differing
    }

    /// Every declared service, in no order.
    pub fn service_records(&self) -> impl Iterator<Item = ServiceRecord> {
        self.services().filter_map(|known| {
            let versions = known.versions().iter().filter_map(|slot| {
                let window = slot.window.clone()?;
                Some(ServiceVersion { service: known.id().clone(), version: slot.version.clone(), window })
            });
            Some(ServiceRecord {
                service: Service { id: known.id().clone(), default: known.default_version()?.clone() },
                versions: versions.collect(),
                policy: known.policy().cloned().unwrap_or_default(),
                overlays: {
                    let mut overlays: Vec<_> =
                        known.overlays().iter().map(|overlay| Overlay::clone(overlay)).collect();
                    overlays.sort_by(|a, b| a.id.cmp(&b.id));
                    overlays
                },
            })
        })
    }
}
