//! The closed set of ways a request can end badly, and what each means to the caller.

use crate::version::Version;
use std::time::Duration;

/// What kind of failure it is: decides the gRPC status and the HTTP code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorKind {
    /// The request can never succeed as it is.
    Invalid,
    /// A thing it names does not exist.
    NotFound,
    /// It collides with the present state.
    Conflict,
    /// A stated precondition (an expected revision) does not hold.
    Precondition,
    /// It does not say who asks.
    Unauthenticated,
    /// Who asks may not do this.
    Denied,
    /// It is more than a limit allows.
    Exhausted,
    /// It took too long.
    Timeout,
    /// It cannot be served now; asking again later may help.
    Unavailable,
    /// A fault of ours.
    Internal,
}

/// The stable, machine-readable reason inside an error's details.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Reason {
    /// An argument is missing, malformed or out of range.
    InvalidArgument,
    /// The request is larger than allowed.
    TooLarge,
    /// The tenant is not declared.
    UnknownTenant,
    /// The service is not declared.
    UnknownService,
    /// The version is not declared.
    UnknownVersion,
    /// The pin does not exist.
    UnknownPin,
    /// The overlay does not exist.
    UnknownOverlay,
    /// The held change does not exist, or no longer.
    UnknownChange,
    /// The upgrade does not exist.
    UnknownUpgrade,
    /// No database is registered for the tenant and service.
    UnknownDatabase,
    /// No such router is known.
    UnknownRouter,
    /// Another upgrade of the tenant's database is queued or runs.
    UpgradeRunning,
    /// The migration files, or what they would do, do not allow it.
    MigrationRefused,
    /// The tenant's database refuses the credentials or the request.
    DatabaseRefused,
    /// The tenant's database does not answer.
    DatabaseUnavailable,
    /// The tenant is suspended.
    TenantSuspended,
    /// The tenant is under maintenance.
    Maintenance,
    /// The tenant is being moved to another version of the service.
    TenantMoving,
    /// No version fits the tenant's schema.
    NoLegalVersion,
    /// No instance can serve the version.
    NoInstance,
    /// The asked revision was not reached in time.
    Stale,
    /// The asked revision is no longer, or not yet, at hand.
    RevisionUnavailable,
    /// Too many requests.
    RateLimited,
    /// The expected revision is not the present one.
    RevisionMismatch,
    /// More tenants would move than is allowed without saying so.
    MovesOverBudget,
    /// Something still refers to what should be removed.
    InUse,
    /// The credentials are missing or wrong.
    Unauthenticated,
    /// The role does not allow it.
    Denied,
    /// Not every router reported in time.
    RoutersBehind,
    /// A router that serves would not obey it: its release is too old.
    RoutersTooOld,
    /// The service is starting, draining or cut off from what it needs.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl Reason {
    /// Every reason, for documentation and tests.
    pub const ALL: [Self; 32] = [
        Self::InvalidArgument,
        Self::TooLarge,
        Self::UnknownTenant,
        Self::UnknownService,
        Self::UnknownVersion,
        Self::UnknownPin,
        Self::UnknownOverlay,
        Self::UnknownChange,
        Self::UnknownUpgrade,
        Self::UnknownDatabase,
        Self::UnknownRouter,
        Self::UpgradeRunning,
        Self::MigrationRefused,
        Self::DatabaseRefused,
        Self::DatabaseUnavailable,
        Self::TenantSuspended,
        Self::Maintenance,
        Self::TenantMoving,
        Self::NoLegalVersion,
        Self::NoInstance,
        Self::Stale,
        Self::RevisionUnavailable,
        Self::RateLimited,
        Self::RevisionMismatch,
        Self::MovesOverBudget,
        Self::InUse,
        Self::Unauthenticated,
        Self::Denied,
        Self::RoutersBehind,
        Self::RoutersTooOld,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The text that callers may match on; it never changes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::TooLarge => "TOO_LARGE",
            Self::UnknownTenant => "UNKNOWN_TENANT",
            Self::UnknownService => "UNKNOWN_SERVICE",
            Self::UnknownVersion => "UNKNOWN_VERSION",
            Self::UnknownPin => "UNKNOWN_PIN",
            Self::UnknownOverlay => "UNKNOWN_OVERLAY",
            Self::UnknownChange => "UNKNOWN_CHANGE",
            Self::UnknownUpgrade => "UNKNOWN_UPGRADE",
            Self::UnknownDatabase => "UNKNOWN_DATABASE",
            Self::UnknownRouter => "UNKNOWN_ROUTER",
            Self::UpgradeRunning => "UPGRADE_RUNNING",
            Self::MigrationRefused => "MIGRATION_REFUSED",
            Self::DatabaseRefused => "DATABASE_REFUSED",
            Self::DatabaseUnavailable => "DATABASE_UNAVAILABLE",
            Self::TenantSuspended => "TENANT_SUSPENDED",
            Self::Maintenance => "MAINTENANCE",
            Self::TenantMoving => "TENANT_MOVING",
            Self::NoLegalVersion => "NO_LEGAL_VERSION",
            Self::NoInstance => "NO_INSTANCE",
            Self::Stale => "STALE",
            Self::RevisionUnavailable => "REVISION_UNAVAILABLE",
            Self::RateLimited => "RATE_LIMITED",
            Self::RevisionMismatch => "REVISION_MISMATCH",
            Self::MovesOverBudget => "MOVES_OVER_BUDGET",
            Self::InUse => "IN_USE",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Denied => "DENIED",
            Self::RoutersBehind => "ROUTERS_BEHIND",
            Self::RoutersTooOld => "ROUTERS_TOO_OLD",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::InvalidArgument => ErrorKind::Invalid,
            Self::TooLarge | Self::RateLimited => ErrorKind::Exhausted,
            Self::UnknownTenant
            | Self::UnknownService
            | Self::UnknownVersion
            | Self::UnknownPin
            | Self::UnknownOverlay
            | Self::UnknownChange
            | Self::UnknownUpgrade
            | Self::UnknownDatabase
            | Self::UnknownRouter => ErrorKind::NotFound,
            Self::TenantSuspended | Self::Denied => ErrorKind::Denied,
            Self::NoLegalVersion
            | Self::MovesOverBudget
            | Self::InUse
            | Self::RoutersTooOld
            | Self::UpgradeRunning
            | Self::MigrationRefused
            | Self::DatabaseRefused => ErrorKind::Conflict,
            Self::RevisionMismatch => ErrorKind::Precondition,
            Self::Unauthenticated => ErrorKind::Unauthenticated,
            Self::RoutersBehind | Self::Stale => ErrorKind::Timeout,
            Self::Maintenance
            | Self::TenantMoving
            | Self::NoInstance
            | Self::RevisionUnavailable
            | Self::DatabaseUnavailable
            | Self::Unavailable => ErrorKind::Unavailable,
            Self::Internal => ErrorKind::Internal,
        }
    }

    /// When asking again is likely to help, where that can be told.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        matches!(self, Self::TenantMoving | Self::RateLimited).then_some(Duration::from_secs(1))
    }
}

/// Why a call gets no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The tenant is not declared and the service's policy refuses such calls.
    #[error("tenant is not known; create it, or let the service's policy accept unknown tenants")]
    UnknownTenant,
    /// The service is not declared.
    #[error("service is not known; create it with its default version")]
    UnknownService,
    /// The call names a version that is not declared.
    #[error("the version asked for is not declared for this service")]
    UnknownVersion,
    /// The tenant is suspended.
    #[error("tenant is suspended; activate it to route its calls")]
    Suspended,
    /// The tenant is under maintenance.
    #[error("tenant is under maintenance; retry later")]
    Maintenance,
    /// The tenant is between two versions, neither of which may serve it now.
    #[error("tenant is being moved to version {to} of the service; retry shortly")]
    Moving {
        /// The version that it is moved to.
        to: Version,
    },
    /// The tenant's schema is outside the window of every version.
    #[error("no version of the service works on the tenant's schema; version {wanted} needs a migration")]
    NoLegalVersion {
        /// The version that the rules chose.
        wanted: Version,
    },
    /// Neither the version nor any that its failover allows has a routable instance.
    #[error("version {version} has no routable instance, nor has any that its failover allows")]
    NoInstance {
        /// The version that the rules chose.
        version: Version,
    },
}

impl Refusal {
    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::UnknownTenant => Reason::UnknownTenant,
            Self::UnknownService => Reason::UnknownService,
            Self::UnknownVersion => Reason::UnknownVersion,
            Self::Suspended => Reason::TenantSuspended,
            Self::Maintenance => Reason::Maintenance,
            Self::Moving { .. } => Reason::TenantMoving,
            Self::NoLegalVersion { .. } => Reason::NoLegalVersion,
            Self::NoInstance { .. } => Reason::NoInstance,
        }
    }
}
