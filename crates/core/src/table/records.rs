//! Loading a table from records, and reading it back as records.

use super::{Entry, Profile, Row, Table};
use crate::change::{Record, ServiceRecord, TenantRecord};
use crate::digest;
use crate::ids::TenantId;
use crate::service::{Service, ServiceVersion};
use crate::tenant::Tenant;
use std::collections::BTreeMap;
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
    }

    fn insert_tenant(&mut self, record: TenantRecord) {
        let TenantRecord { tenant, mut pins, schemas } = record;
        // Of two pins for one service the last one counts, as it does in a list of changes.
        pins.reverse();
        pins.sort_by(|(a, _), (b, _)| a.cmp(b));
        pins.dedup_by(|(later, _), (kept, _)| later == kept);
        let mut schemas: BTreeMap<_, _> =
            schemas.into_iter().map(|(service, seen, _)| (service, seen)).collect();
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
        let row = Row { profile: Some(Arc::new(profile)), entries: entries.into_boxed_slice() };
        self.tenants.insert(tenant.id, Arc::new(row));
    }

    fn apply_removal(&mut self, tenant: &TenantId) {
        if self.tenants.contains_key(tenant) {
            self.remove_tenant(tenant);
        }
    }

    /// Every declared tenant, in no order. Names and observation times are not kept in a table: the name
    /// is the id, the time 0.
    pub fn tenant_records(&self) -> impl Iterator<Item = TenantRecord> {
        self.tenants.iter().filter_map(|(id, row)| self.tenant_record(id, row))
    }

    fn tenant_record(&self, id: &TenantId, row: &Row) -> Option<TenantRecord> {
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
        };
        for entry in &row.entries {
            let service = self.names.get(usize::from(entry.service))?;
            let assignment = self.services.get(service)?.assignment(entry.assignment);
            record.pins.extend(assignment.pin.clone().map(|pin| (service.clone(), pin)));
            record.schemas.extend(assignment.schema.clone().map(|schema| (service.clone(), schema, 0)));
        }
        Some(record)
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
            })
        })
    }
}
