//! Which services a watcher asked for.

use std::collections::BTreeSet;

use grey_core::change::{Change, Event};
use grey_core::ids::ServiceId;

/// Services whose part of the table is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection(Option<BTreeSet<ServiceId>>);

impl Selection {
    /// These services; all if there are none.
    pub(crate) fn new(services: BTreeSet<ServiceId>) -> Self {
        Self(Some(services).filter(|services| !services.is_empty()))
    }

    /// Whether every service is wanted.
    pub(crate) fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the service is wanted.
    pub(crate) fn has(&self, service: &ServiceId) -> bool {
        self.0.as_ref().is_none_or(|services| services.contains(service))
    }

    /// The event without changes of other services, and without those that no router needs. It stays even if nothing is
    /// left: revisions are gapless.
    pub(crate) fn event(&self, event: &Event) -> grey_proto::control::Event {
        if event.changes.iter().all(|change| self.wants(change)) {
            return event.into();
        }
        let changes = event.changes.iter().filter(|change| self.wants(change)).cloned().collect();
        (&Event { changes, ..event.clone() }).into()
    }

    fn wants(&self, change: &Change) -> bool {
        let key = change.key();
        key.is_routed() && key.service().is_none_or(|service| self.has(service))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use grey_core::database::{Database, DatabaseKind, Dialect};
    use grey_core::ids::TenantId;
    use grey_core::key::{Fact, Key};

    use super::*;

    #[test]
    fn nobody_is_told_where_databases_are() {
        let (tenant, payment) = (TenantId::new("acme").unwrap(), ServiceId::new("payment").unwrap());
        let (kind, dialect) = (DatabaseKind::Database, Dialect::Postgres);
        let (server, name, schema) = ("db:5432".to_owned(), "acme".to_owned(), String::new());
        let database = Database { kind, dialect, server, name, schema };
        let unpinned = Change::Removed(Key::Pin(tenant.clone(), payment.clone()));
        let changes = vec![Change::Put(Fact::Database(tenant, payment.clone(), database)), unpinned.clone()];
        let event = Event { changes, ..Event::default() };
        for selection in [Selection::default(), Selection::new([payment].into())] {
            let told = selection.event(&event);
            assert_eq!(told.changes, [(&unpinned).into()]);
            assert_eq!(told.omitted, 0, "nothing follows");
        }
    }
}
