//! What events change, by the unit that is written.

use grey_core::change::{Change, Event};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{Key, RecordId};
use std::collections::{BTreeMap, HashSet};

/// The changes of some events that still matter once all of them have happened.
#[derive(Default)]
pub(super) struct Batch<'e> {
    /// Of each service, in their order.
    pub(super) services: Units<'e, ServiceId>,
    /// Of each tenant, in their order.
    pub(super) tenants: Units<'e, TenantId>,
}

pub(super) type Units<'e, Id> = BTreeMap<Id, Vec<&'e Change>>;

impl<'e> Batch<'e> {
    /// Leaves out what a later change of the same key replaces, or a later removal of the whole unit.
    pub(super) fn of(events: &'e [Event]) -> Self {
        let mut batch = Self::default();
        let mut removed: HashSet<RecordId> = HashSet::new();
        let mut seen: HashSet<Key> = HashSet::new();
        for change in events.iter().flat_map(|event| &event.changes).rev() {
            let key = change.key();
            if !key.is_routed() {
                continue;
            }
            let unit = RecordId::from(key.record());
            if removed.contains(&unit) {
                continue;
            }
            if key.is_root() {
                // One that puts it may be what declares it, without which the facts behind it do not count.
                if matches!(change, Change::Removed(_)) {
                    removed.insert(unit.clone());
                }
            } else if !seen.insert(key) {
                continue;
            }
            match unit {
                RecordId::Service(service) => batch.services.entry(service).or_default().push(change),
                RecordId::Tenant(tenant) => batch.tenants.entry(tenant).or_default().push(change),
            }
        }
        batch.services.values_mut().for_each(|changes| changes.reverse());
        batch.tenants.values_mut().for_each(|changes| changes.reverse());
        batch
    }
}
