//! Services, their versions, and the pins that tie tenants to versions.

use crate::ids::ServiceId;
use crate::schema::SchemaWindow;
use crate::version::Version;

/// Most services: a table counts them in 16 bits, and tenants' assignments of each as well.
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
