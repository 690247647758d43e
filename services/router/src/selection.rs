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

    /// The event without changes of other services. It stays even if nothing is left: revisions are gapless.
    pub(crate) fn event(&self, event: &Event) -> grey_proto::control::Event {
        if self.is_all() {
            return event.into();
        }
        let wanted = |change: &&Change| change.key().service().is_none_or(|service| self.has(service));
        let changes = event.changes.iter().filter(wanted).cloned().collect();
        (&Event { changes, ..event.clone() }).into()
    }
}
