//! Facts, and the keys that they are stored under.
//!
//! A fact is the smallest thing that a command changes as a whole. Everything that asks "which thing is this
//! about" (the digest, records, compare-and-set, selections of a watch, the history) asks its [`Key`].

use crate::change::FormatLevel;
use crate::database::Database;
use crate::ids::{OverlayId, ServiceId, TenantId};
use crate::policy::{Overlay, Policy};
use crate::schema::Observation;
use crate::service::{Hold, Pin, Service, ServiceVersion};
use crate::tenant::Tenant;
use crate::version::Version;
use std::fmt;

/// What a fact is about. At any revision there is at most one fact under a key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// A tenant's attributes.
    Tenant(TenantId),
    /// A service's default.
    Service(ServiceId),
    /// A version's schema window.
    Version(ServiceId, Version),
    /// A service's policy.
    Policy(ServiceId),
    /// One experiment or canary of a service.
    Overlay(ServiceId, OverlayId),
    /// Where a tenant is held.
    Pin(TenantId, ServiceId),
    /// The schema seen in a tenant's database.
    Schema(TenantId, ServiceId),
    /// That a tenant's calls of a service are refused while it is moved.
    Hold(TenantId, ServiceId),
    /// Where a tenant's database is. Routers do without.
    Database(TenantId, ServiceId),
}

/// The record that a fact is part of: what is loaded, projected and read back as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RecordKey<'a> {
    /// A tenant with its pins, schemas and holds.
    Tenant(&'a TenantId),
    /// A service with its versions, policy and overlays.
    Service(&'a ServiceId),
}

impl Key {
    /// The record that the fact is part of.
    #[must_use]
    pub fn record(&self) -> RecordKey<'_> {
        match self {
            Self::Tenant(tenant)
            | Self::Pin(tenant, _)
            | Self::Schema(tenant, _)
            | Self::Hold(tenant, _)
            | Self::Database(tenant, _) => RecordKey::Tenant(tenant),
            Self::Service(service)
            | Self::Version(service, _)
            | Self::Policy(service)
            | Self::Overlay(service, _) => RecordKey::Service(service),
        }
    }

    /// The tenant that the fact names.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match self.record() {
            RecordKey::Tenant(tenant) => Some(tenant),
            RecordKey::Service(_) => None,
        }
    }

    /// The service that the fact names.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceId> {
        match self {
            Self::Pin(_, service)
            | Self::Schema(_, service)
            | Self::Hold(_, service)
            | Self::Database(_, service) => Some(service),
            _ => match self.record() {
                RecordKey::Tenant(_) => None,
                RecordKey::Service(service) => Some(service),
            },
        }
    }

    /// Whether routers need the fact. One that they do not need is in the log alone: neither in tables nor in the
    /// projection, nor told to those who watch a router.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        !matches!(self, Self::Database(..))
    }

    /// Whether removing the fact under this key removes its whole record.
    #[must_use]
    pub fn is_root(&self) -> bool {
        matches!(self, Self::Tenant(_) | Self::Service(_))
    }

    /// The level from which readers know such facts. A new kind of fact that decides states its own here.
    pub(crate) fn level(&self) -> FormatLevel {
        match self {
            Self::Tenant(_)
            | Self::Service(_)
            | Self::Version(..)
            | Self::Policy(_)
            | Self::Overlay(..)
            | Self::Pin(..)
            | Self::Schema(..)
            | Self::Hold(..)
            | Self::Database(..) => FormatLevel::FIRST,
        }
    }
}

/// As [`RecordKey`], to keep.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RecordId {
    /// A tenant with its pins and schemas.
    Tenant(TenantId),
    /// A service with its versions, policy and overlays.
    Service(ServiceId),
}

impl From<RecordKey<'_>> for RecordId {
    fn from(key: RecordKey<'_>) -> Self {
        match key {
            RecordKey::Tenant(tenant) => Self::Tenant(tenant.clone()),
            RecordKey::Service(service) => Self::Service(service.clone()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant `{tenant}`"),
            Self::Service(service) => write!(f, "service `{service}`"),
            Self::Version(service, version) => write!(f, "version {version} of service `{service}`"),
            Self::Policy(service) => write!(f, "policy of service `{service}`"),
            Self::Overlay(service, overlay) => write!(f, "overlay `{overlay}` of service `{service}`"),
            Self::Pin(tenant, service) => write!(f, "pin of tenant `{tenant}` to service `{service}`"),
            Self::Schema(tenant, service) => write!(f, "schema of tenant `{tenant}` for service `{service}`"),
            Self::Hold(tenant, service) => write!(f, "hold of tenant `{tenant}` for service `{service}`"),
            Self::Database(tenant, service) => {
                write!(f, "database of tenant `{tenant}` for service `{service}`")
            }
        }
    }
}

/// A key with its value.
///
/// What is large is boxed: of the facts that come by the ten thousand, pins, each takes as much room as the largest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// A tenant's attributes.
    Tenant(Box<Tenant>),
    /// A service's default.
    Service(Service),
    /// A version's schema window.
    Version(Box<ServiceVersion>),
    /// A service's policy.
    Policy(ServiceId, Policy),
    /// One experiment or canary of a service.
    Overlay(ServiceId, Box<Overlay>),
    /// Where a tenant is held.
    Pin(TenantId, ServiceId, Pin),
    /// The schema seen in a tenant's database.
    Schema(TenantId, ServiceId, Observation),
    /// That a tenant's calls of a service are refused while it is moved.
    Hold(TenantId, ServiceId, Hold),
    /// Where a tenant's database is.
    Database(TenantId, ServiceId, Box<Database>),
}

impl Fact {
    /// What the fact is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Tenant(tenant) => Key::Tenant(tenant.id.clone()),
            Self::Service(service) => Key::Service(service.id.clone()),
            Self::Version(version) => Key::Version(version.service.clone(), version.version.clone()),
            Self::Policy(service, _) => Key::Policy(service.clone()),
            Self::Overlay(service, overlay) => Key::Overlay(service.clone(), overlay.id.clone()),
            Self::Pin(tenant, service, _) => Key::Pin(tenant.clone(), service.clone()),
            Self::Schema(tenant, service, _) => Key::Schema(tenant.clone(), service.clone()),
            Self::Hold(tenant, service, _) => Key::Hold(tenant.clone(), service.clone()),
            Self::Database(tenant, service, _) => Key::Database(tenant.clone(), service.clone()),
        }
    }

    /// The level from which readers obey it. A value that says more than its kind of fact used to states so here.
    pub(crate) fn level(&self) -> FormatLevel {
        self.key().level()
    }
}
