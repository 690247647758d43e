//! What a command changed: the entries of the event log.

use crate::ids::{ServiceId, TenantId};
use crate::policy::Policy;
use crate::schema::SchemaVersion;
use crate::service::{Pin, Service, ServiceVersion};
use crate::tenant::Tenant;
use crate::version::Version;
use smol_str::SmolStr;
use std::fmt;

/// The sequence number of an event: gapless, in commit order, starting at 1. 0 is the empty log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which history a revision belongs to. A restored or replaced control database starts a new one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation(pub SmolStr);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A point in a history.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// The history.
    pub generation: Generation,
    /// The last event contained.
    pub revision: Revision,
}

/// One committed command: all its changes take effect at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its place in the log.
    pub revision: Revision,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who did it.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: String,
    /// What changed, in order.
    pub changes: Vec<Change>,
}

/// One fact set or removed.
///
/// Each change carries the whole new fact and none depends on what was there before, so applying
/// a run of changes twice, or to a state that already holds some of them, ends in the same state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A tenant was created or its attributes changed.
    TenantPut(Tenant),
    /// A tenant was removed, with its pins and observed schemas.
    TenantRemoved(TenantId),
    /// A service was created or its default changed.
    ServicePut(Service),
    /// A service was removed, with its versions and policy.
    ServiceRemoved(ServiceId),
    /// A version was declared or its schema window changed.
    VersionPut(ServiceVersion),
    /// A version was removed.
    VersionRemoved {
        /// The service.
        service: ServiceId,
        /// The version.
        version: Version,
    },
    /// A service's policy was set.
    PolicyPut {
        /// The service.
        service: ServiceId,
        /// Its whole policy.
        policy: Policy,
    },
    /// A tenant was pinned.
    PinPut {
        /// The tenant.
        tenant: TenantId,
        /// The service.
        service: ServiceId,
        /// Where it is held.
        pin: Pin,
    },
    /// A tenant went back to the service's default.
    PinRemoved {
        /// The tenant.
        tenant: TenantId,
        /// The service.
        service: ServiceId,
    },
    /// A tenant's database schema for a service was observed, or is no longer known.
    SchemaObserved {
        /// The tenant.
        tenant: TenantId,
        /// The service.
        service: ServiceId,
        /// What was seen; none if it is no longer known.
        schema: Option<SchemaVersion>,
        /// When it was seen, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
}

/// Everything known of one tenant: what a snapshot is loaded from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantRecord {
    /// The tenant.
    pub tenant: Tenant,
    /// Its pins.
    pub pins: Vec<(ServiceId, Pin)>,
    /// Its observed schemas, with the time of the observation in milliseconds since the epoch.
    pub schemas: Vec<(ServiceId, SchemaVersion, u64)>,
}

/// Everything declared about one service: what a snapshot is loaded from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceRecord {
    /// The service.
    pub service: Service,
    /// Its versions.
    pub versions: Vec<ServiceVersion>,
    /// Its policy.
    pub policy: Policy,
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A tenant.
    Tenant(TenantRecord),
    /// A service.
    Service(ServiceRecord),
}
