//! Records: the facts of one tenant, or of one service, as they are loaded, projected and read back.

use crate::change::Change;
use crate::ids::ServiceId;
use crate::key::{Fact, Key, RecordKey};
use crate::policy::{Overlay, Policy};
use crate::schema::Observation;
use crate::service::{Hold, Pin, Service, ServiceVersion};
use crate::tenant::Tenant;

/// Everything known of one tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantRecord {
    /// The tenant.
    pub tenant: Tenant,
    /// Its pins.
    pub pins: Vec<(ServiceId, Pin)>,
    /// Its observed schemas.
    pub schemas: Vec<(ServiceId, Observation)>,
    /// Services whose calls are refused while it is moved.
    pub holds: Vec<(ServiceId, Hold)>,
}

/// Everything declared about one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceRecord {
    /// The service.
    pub service: Service,
    /// Its versions.
    pub versions: Vec<ServiceVersion>,
    /// Its policy.
    pub policy: Policy,
    /// Its experiments and canaries, by id.
    pub overlays: Vec<Overlay>,
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A tenant.
    Tenant(TenantRecord),
    /// A service.
    Service(ServiceRecord),
}

impl From<Tenant> for TenantRecord {
    fn from(tenant: Tenant) -> Self {
        Self { tenant, pins: Vec::new(), schemas: Vec::new(), holds: Vec::new() }
    }
}

impl From<Service> for ServiceRecord {
    fn from(service: Service) -> Self {
        Self { service, versions: Vec::new(), policy: Policy::default(), overlays: Vec::new() }
    }
}

impl Record {
    /// Which record it is.
    #[must_use]
    pub fn key(&self) -> RecordKey<'_> {
        match self {
            Self::Tenant(record) => RecordKey::Tenant(&record.tenant.id),
            Self::Service(record) => RecordKey::Service(&record.service.id),
        }
    }

    /// What a record becomes by a change of one of its facts; none if it is gone, or was never declared: the log
    /// declares a tenant or service first, so what comes without it was removed since.
    #[must_use]
    pub fn fold(record: Option<Self>, change: &Change) -> Option<Self> {
        match (record, change) {
            (_, Change::Removed(key)) if key.is_root() => None,
            (Some(Self::Tenant(record)), Change::Put(Fact::Tenant(tenant))) => {
                Some(Self::Tenant(TenantRecord { tenant: Tenant::clone(tenant), ..record }))
            }
            (_, Change::Put(Fact::Tenant(tenant))) => Some(Self::Tenant(Tenant::clone(tenant).into())),
            (Some(Self::Service(record)), Change::Put(Fact::Service(service))) => {
                Some(Self::Service(ServiceRecord { service: service.clone(), ..record }))
            }
            (_, Change::Put(Fact::Service(service))) => Some(Self::Service(service.clone().into())),
            (Some(Self::Tenant(mut record)), change) => {
                record.fold_part(change);
                Some(Self::Tenant(record))
            }
            (Some(Self::Service(mut record)), change) => {
                record.fold_part(change);
                Some(Self::Service(record))
            }
            (None, _) => None,
        }
    }

    /// Every fact of the record, its own first.
    #[must_use]
    pub fn facts(self) -> Vec<Fact> {
        match self {
            Self::Tenant(TenantRecord { tenant, pins, schemas, holds }) => {
                let id = tenant.id.clone();
                let pins = pins.into_iter().map(|(service, pin)| Fact::Pin(id.clone(), service, pin));
                let schemas =
                    schemas.into_iter().map(|(service, seen)| Fact::Schema(id.clone(), service, seen));
                let holds = holds.into_iter().map(|(service, hold)| Fact::Hold(id.clone(), service, hold));
                std::iter::once(Fact::Tenant(Box::new(tenant)))
                    .chain(pins)
                    .chain(schemas)
                    .chain(holds)
                    .collect()
            }
            Self::Service(ServiceRecord { service, versions, policy, overlays }) => {
                let id = service.id.clone();
                let policy = (policy != Policy::default()).then(|| Fact::Policy(id.clone(), policy));
                let overlays =
                    overlays.into_iter().map(|overlay| Fact::Overlay(id.clone(), Box::new(overlay)));
                let versions = versions.into_iter().map(|version| Fact::Version(Box::new(version)));
                std::iter::once(Fact::Service(service))
                    .chain(versions)
                    .chain(policy)
                    .chain(overlays)
                    .collect()
            }
        }
    }
}

impl TenantRecord {
    fn fold_part(&mut self, change: &Change) {
        match change {
            Change::Put(Fact::Pin(_, service, pin)) => {
                put(&mut self.pins, |(held, _)| held, (service.clone(), pin.clone()));
            }
            Change::Put(Fact::Schema(_, service, seen)) => {
                put(&mut self.schemas, |(held, _)| held, (service.clone(), seen.clone()));
            }
            Change::Put(Fact::Hold(_, service, hold)) => {
                put(&mut self.holds, |(held, _)| held, (service.clone(), hold.clone()));
            }
            Change::Removed(Key::Pin(_, service)) => self.pins.retain(|(held, _)| held != service),
            Change::Removed(Key::Schema(_, service)) => self.schemas.retain(|(held, _)| held != service),
            Change::Removed(Key::Hold(_, service)) => self.holds.retain(|(held, _)| held != service),
            Change::Put(_) | Change::Removed(_) => {}
        }
    }
}

impl ServiceRecord {
    fn fold_part(&mut self, change: &Change) {
        match change {
            Change::Put(Fact::Version(version)) => {
                put(&mut self.versions, |held| &held.version, ServiceVersion::clone(version));
            }
            Change::Put(Fact::Policy(_, policy)) => self.policy = policy.clone(),
            Change::Put(Fact::Overlay(_, overlay)) => {
                put(&mut self.overlays, |held| &held.id, Overlay::clone(overlay));
            }
            Change::Removed(Key::Version(_, version)) => {
                self.versions.retain(|held| held.version != *version);
            }
            Change::Removed(Key::Policy(_)) => self.policy = Policy::default(),
            Change::Removed(Key::Overlay(_, id)) => self.overlays.retain(|held| held.id != *id),
            Change::Put(_) | Change::Removed(_) => {}
        }
    }
}

/// Puts an item in place of the one with the same key, or where it belongs in a sorted list. A list that was read
/// from elsewhere may be in another order, so it is searched whole: a key listed twice would undo the change.
fn put<T, K: Ord>(items: &mut Vec<T>, key: impl Fn(&T) -> &K, item: T) {
    if let Some(held) = items.iter_mut().find(|held| key(held) == key(&item)) {
        *held = item;
        return;
    }
    let at = items.partition_point(|held| key(held) < key(&item));
    items.insert(at, item);
}
