//! Services, their versions, and the pins that tie tenants to versions.

use crate::ids::ServiceId;
use crate::schema::SchemaWindow;
use crate::version::Version;

/// Most services.
pub const MAX_SERVICES: u64 = 10_000;
/// Most versions of one service.
pub const MAX_VERSIONS: u64 = 500;

/// A service. It always has a default version, so "no rule" can never mean "no answer".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// The id that callers send.
    pub id: ServiceId,
    /// The version of every tenant without a pin.
    pub default: Version,
}

/// A version of a service that tenants may be routed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceVersion {
    /// The service.
    pub service: ServiceId,
    /// The version.
    pub version: Version,
    /// The tenant schemas that it works on.
    pub window: SchemaWindow,
}

/// The version that a tenant is held to for one service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pin {
    /// The version.
    pub version: Version,
    /// A locked pin is left alone by experiments and canaries.
    pub locked: bool,
}

/// A tenant's calls of one service are refused while a strict move takes it to another version.
///
/// Every router refuses them from the moment it has the hold until it is removed, so the version before and the
/// version after never serve at the same time, whichever router is cut off in between. No router ends a hold by
/// itself: the deadline tells the control plane when to take back one that was left behind.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Hold {
    /// The version that the tenant is moved to.
    pub to: Version,
    /// When a hold whose move did not end is taken back, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}
