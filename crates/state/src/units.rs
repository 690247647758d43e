//! The units of a projection, a tenant or a service each, and what changes make of them.

use grey_core::change::{Change, ServiceRecord, TenantRecord};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::policy::Policy;
use grey_core::schema::SchemaVersion;
use grey_core::service::Pin;
use grey_core::tenant::Tenant;
use std::collections::BTreeMap;

/// The service whose record the change is about; none for changes about tenants.
pub(crate) fn service_of(change: &Change) -> Option<&ServiceId> {
    match change {
        Change::ServicePut(service) => Some(&service.id),
        Change::ServiceRemoved(id) => Some(id),
        Change::VersionPut(version) => Some(&version.service),
        Change::VersionRemoved { service, .. } | Change::PolicyPut { service, .. } => Some(service),
        Change::TenantPut(_)
        | Change::TenantRemoved(_)
        | Change::PinPut { .. }
        | Change::PinRemoved { .. }
        | Change::SchemaObserved { .. } => None,
    }
}

/// The tenant whose record the change is about; none for changes about services.
pub(crate) fn tenant_of(change: &Change) -> Option<&TenantId> {
    match change {
        Change::TenantPut(tenant) => Some(&tenant.id),
        Change::TenantRemoved(id) => Some(id),
        Change::PinPut { tenant, .. }
        | Change::PinRemoved { tenant, .. }
        | Change::SchemaObserved { tenant, .. } => Some(tenant),
        Change::ServicePut(_)
        | Change::ServiceRemoved(_)
        | Change::VersionPut(_)
        | Change::VersionRemoved { .. }
        | Change::PolicyPut { .. } => None,
    }
}

/// What a service's record becomes. Changes to a service that is not there have no effect: the log puts the
/// service first, so it was removed since.
pub(crate) fn fold_service(record: Option<ServiceRecord>, change: &Change) -> Option<ServiceRecord> {
    if let Change::ServicePut(service) = change {
        let service = service.clone();
        return Some(match record {
            Some(record) => ServiceRecord { service, ..record },
            None => ServiceRecord { service, versions: Vec::new(), policy: Policy::default() },
        });
    }
    let mut record = record?;
    match change {
        Change::ServiceRemoved(_) => return None,
        Change::VersionPut(put) => {
            match record.versions.binary_search_by(|held| held.version.cmp(&put.version)) {
                Ok(place) => record.versions[place] = put.clone(),
                Err(place) => record.versions.insert(place, put.clone()),
            }
        }
        Change::VersionRemoved { version, .. } => record.versions.retain(|held| held.version != *version),
        Change::PolicyPut { policy, .. } => record.policy = policy.clone(),
        Change::ServicePut(_)
        | Change::TenantPut(_)
        | Change::TenantRemoved(_)
        | Change::PinPut { .. }
        | Change::PinRemoved { .. }
        | Change::SchemaObserved { .. } => {}
    }
    Some(record)
}

/// One tenant; without its attributes it is not declared and no record.
#[derive(Default)]
pub(crate) struct TenantUnit {
    tenant: Option<Tenant>,
    pins: BTreeMap<ServiceId, Pin>,
    schemas: BTreeMap<ServiceId, (SchemaVersion, u64)>,
}

impl TenantUnit {
    /// Takes a change about this tenant in.
    pub(crate) fn fold(&mut self, change: &Change) {
        match change {
            Change::TenantPut(tenant) => self.tenant = Some(tenant.clone()),
            Change::TenantRemoved(_) => *self = Self::default(),
            Change::PinPut { service, pin, .. } => {
                self.pins.insert(service.clone(), pin.clone());
            }
            Change::PinRemoved { service, .. } => {
                self.pins.remove(service);
            }
            Change::SchemaObserved { service, schema: Some(schema), at_ms, .. } => {
                self.schemas.insert(service.clone(), (schema.clone(), *at_ms));
            }
            Change::SchemaObserved { service, schema: None, .. } => {
                self.schemas.remove(service);
            }
            Change::ServicePut(_)
            | Change::ServiceRemoved(_)
            | Change::VersionPut(_)
            | Change::VersionRemoved { .. }
            | Change::PolicyPut { .. } => {}
        }
    }

    /// The record, by service id.
    pub(crate) fn record(&self) -> Option<TenantRecord> {
        let pins = self.pins.iter().map(|(service, pin)| (service.clone(), pin.clone()));
        let schemas = self.schemas.iter().map(|(service, (seen, at))| (service.clone(), seen.clone(), *at));
        let tenant = self.tenant.clone()?;
        Some(TenantRecord { tenant, pins: pins.collect(), schemas: schemas.collect() })
    }
}

impl From<TenantRecord> for TenantUnit {
    fn from(record: TenantRecord) -> Self {
        Self {
            tenant: Some(record.tenant),
            pins: record.pins.into_iter().collect(),
            schemas: record.schemas.into_iter().map(|(id, seen, at)| (id, (seen, at))).collect(),
        }
    }
}
