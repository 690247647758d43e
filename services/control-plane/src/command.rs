//! The one path of every write: a command is one transaction, one event, one revision.
//!
//! A command checks what the caller expects and what the rules demand, appends its event, updates the tables of the
//! present state and commits; or it leaves nothing behind. [`Commands`] is the handle, [`Writer`] does the work, one
//! command after another: they would wait for each other in the database anyway, and there a waiting command would
//! hold a connection.

mod catalog;
mod pin;
mod policy;
mod schema;
mod tenant;
mod transaction;
mod writer;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use grey_core::change::{Change, Position};
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::version::Version;
use grey_proto::status::ApiError;

use crate::database;

pub(crate) use catalog::unknown_service;
pub(crate) use tenant::unknown as unknown_tenant;
pub(crate) use transaction::now_ms;
pub use writer::{Commands, Options, Writer};

/// Most changes of one command.
pub const MAX_CHANGES: usize = 1_000;
/// Longest reason, in bytes.
pub const MAX_REASON: usize = 500;

/// What someone wants to be changed, all of it or nothing.
#[derive(Debug, Clone)]
pub struct Command {
    /// Who asks.
    pub actor: String,
    /// Why, in their words.
    pub reason: String,
    /// In order; no two about the same thing.
    pub changes: Vec<Proposed>,
    /// The log's revision that the caller has seen; another refuses the command.
    pub expected_log: Option<u64>,
}

/// One change of a command.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// The change.
    pub change: Change,
    /// The revision at which the caller saw the thing change last; 0: it must not exist yet. Another refuses the command.
    pub expected: Option<u64>,
}

/// A command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where the log is: at the command's event, or where it was if nothing had to change.
    pub position: Position,
    /// For each change, the revision at which its thing changed last; 0 if the thing is gone.
    pub things: Vec<u64>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller expects something else, or a rule forbids it. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The database failed before the commit. Nothing was changed.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The connection was lost while the database was committing: it may have committed.
    #[error("commit a command: the outcome is unknown")]
    Unknown(#[source] database::Error),
    /// The command waited too long for those before it. Nothing was changed.
    #[error("carry out a command: not begun within {0:?}")]
    Late(Duration),
    /// Too many commands are waiting. Nothing was changed.
    #[error("take a command: too many are waiting")]
    Busy,
    /// The writer has ended. Nothing was changed.
    #[error("take a command: shutting down")]
    Stopped,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal,
            Error::Database(error) => error.into(),
            Error::Unknown(_) => Self::new(
                Reason::Unavailable,
                "the database did not confirm the commit: the write may have been applied; read it back, or repeat \
                 the write with its expected_revision",
            ),
            Error::Late(_) | Error::Busy => Self::new(
                Reason::RateLimited,
                "too many writes are waiting; nothing was changed, retry later",
            ),
            Error::Stopped => Self::new(Reason::Unavailable, "shutting down; nothing was changed"),
        }
    }
}

impl From<database::Error> for ApiError {
    fn from(error: database::Error) -> Self {
        let reason = if error.is_transient() { Reason::Unavailable } else { Reason::Internal };
        tracing::error!(error = %chain(&error), "control database failed");
        Self::new(reason, "the control database does not answer; retry later")
    }
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        // Drivers repeat their cause in their own text.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

/// What a change is about. A command changes each thing once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing {
    Tenant(TenantId),
    Service(ServiceId),
    Version(ServiceId, Version),
    Policy(ServiceId),
    Pin(TenantId, ServiceId),
    Schema(TenantId, ServiceId),
}

impl Thing {
    /// What `change` is about.
    pub(crate) fn of(change: &Change) -> Self {
        match change {
            Change::TenantPut(tenant) => Self::Tenant(tenant.id.clone()),
            Change::TenantRemoved(tenant) => Self::Tenant(tenant.clone()),
            Change::ServicePut(service) => Self::Service(service.id.clone()),
            Change::ServiceRemoved(service) => Self::Service(service.clone()),
            Change::VersionPut(version) => Self::Version(version.service.clone(), version.version.clone()),
            Change::VersionRemoved { service, version } => Self::Version(service.clone(), version.clone()),
            Change::PolicyPut { service, .. } => Self::Policy(service.clone()),
            Change::PinPut { tenant, service, .. } | Change::PinRemoved { tenant, service } => {
                Self::Pin(tenant.clone(), service.clone())
            }
            Change::SchemaObserved { tenant, service, .. } => Self::Schema(tenant.clone(), service.clone()),
        }
    }

    /// Refuses the command unless the caller expects what is there. 0 is "does not exist".
    fn expect(&self, expected: Option<u64>, present: u64) -> Result<(), ApiError> {
        match expected {
            Some(expected) if expected != present => Err(mismatch(self, expected, present)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant `{tenant}`"),
            Self::Service(service) => write!(f, "service `{service}`"),
            Self::Version(service, version) => write!(f, "version {version} of service `{service}`"),
            Self::Policy(service) => write!(f, "policy of service `{service}`"),
            Self::Pin(tenant, service) => write!(f, "pin of tenant `{tenant}` to service `{service}`"),
            Self::Schema(tenant, service) => write!(f, "schema of tenant `{tenant}` for service `{service}`"),
        }
    }
}

fn mismatch(what: impl fmt::Display, expected: u64, present: u64) -> ApiError {
    let message = match (expected, present) {
        (0, _) => format!("{what} exists already, changed last at revision {present}"),
        (_, 0) => format!("{what} does not exist, but revision {expected} of it was expected"),
        _ => format!("{what} was changed last at revision {present}, not {expected}"),
    };
    ApiError::new(Reason::RevisionMismatch, message).with("present", present.to_string())
}

impl Command {
    /// A command of one change.
    #[must_use]
    pub fn single(
        actor: impl Into<String>,
        reason: impl Into<String>,
        change: Change,
        expected: Option<u64>,
    ) -> Self {
        let changes = vec![Proposed { change, expected }];
        Self { actor: actor.into(), reason: reason.into(), changes, expected_log: None }
    }

    /// Checks what needs no database.
    fn validate(&self) -> Result<(), ApiError> {
        let invalid = |message: String| ApiError::new(Reason::InvalidArgument, message);
        if self.changes.is_empty() {
            return Err(invalid("changes: at least one is required".to_owned()).with("field", "changes"));
        }
        if self.changes.len() > MAX_CHANGES {
            let given = self.changes.len();
            let message = format!("changes: {given} were given, at most {MAX_CHANGES} are allowed");
            return Err(ApiError::new(Reason::TooLarge, message).with("field", "changes"));
        }
        if self.reason.len() > MAX_REASON {
            let message =
                format!("write.reason: has {} bytes, at most {MAX_REASON} are allowed", self.reason.len());
            return Err(invalid(message).with("field", "write.reason"));
        }
        let mut things = BTreeSet::new();
        for (i, proposed) in self.changes.iter().enumerate() {
            let thing = Thing::of(&proposed.change);
            if things.contains(&thing) {
                let message = format!("changes[{i}]: {thing} is changed twice");
                return Err(invalid(message).with("field", format!("changes[{i}]")));
            }
            things.insert(thing);
        }
        Ok(())
    }
}
