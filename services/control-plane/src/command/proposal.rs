//! What someone wants to be changed, and what became of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use grey_core::change::{Change, Epoch, FormatLevel, Position, Principal};
use grey_core::error::Reason;
use grey_core::ids::{OverlayId, ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::moves::Moves;
use grey_core::selector::Selector;
use grey_core::service::Pin;
use grey_core::text::{NOT_PLAIN, is_plain};
use grey_proto::status::ApiError;
use grey_runtime::Secret;
use grey_vault::Vault;

/// Most changes that one command may state.
pub const MAX_CHANGES: usize = 5_000;
/// Most tenants that one command may select.
pub const MAX_SELECTED: usize = 100_000;
/// Longest reason, in bytes.
pub const MAX_REASON: usize = 500;

/// What someone wants to be changed, all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// Who asks.
    pub principal: Principal,
    /// Why, in their words.
    pub reason: String,
    /// What led to it, such as `upgrade/<id>`; empty for a command of its own.
    pub cause: String,
    /// What shall be changed.
    pub intent: Intent,
    /// The format level that a reader needs to obey it, if its changes alone do not tell.
    pub level: FormatLevel,
    /// The log's revision that the caller has seen; another refuses the command.
    pub expected_log: Option<u64>,
    /// The history that every expected revision belongs to; another refuses the command.
    pub expected_epoch: Option<Epoch>,
    /// At most so many tenants of a service may move; none: as many as the budget allows.
    pub max_moves: Option<u64>,
    /// Nothing is changed; only what would become of it is told.
    pub dry_run: bool,
    /// How to connect to the database that is registered; none if none is.
    pub credentials: Option<Credentials>,
}

/// How to connect to a database: sealed in the command's transaction, and in no event.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The URL, with user and password.
    pub url: Secret,
    /// The URL that migrations connect by; empty: the same.
    pub direct_url: Secret,
    /// What it is sealed with.
    pub vault: Arc<Vault>,
}

/// What shall be changed.
#[derive(Debug, Clone)]
pub enum Intent {
    /// This, in order; no two about the same key.
    Changes(Vec<Proposed>),
    /// The pins of all tenants that are meant at the log's head.
    Pins(SelectedPins),
    /// What makes an overlay's version the default there, and moves nobody.
    Promotion(Promotion),
}

/// Pins of many tenants.
#[derive(Debug, Clone)]
pub struct SelectedPins {
    /// Which tenants.
    pub selector: Selector,
    /// Of which service.
    pub service: ServiceId,
    /// The pin; none: none.
    pub pin: Option<Pin>,
}

/// An overlay whose version becomes the default.
#[derive(Debug, Clone)]
pub struct Promotion {
    /// Of which service.
    pub service: ServiceId,
    /// The overlay.
    pub overlay: OverlayId,
    /// The variant of an experiment that won; none for a canary.
    pub variant: Option<OverlayId>,
    /// The revision at which the caller saw the overlay change last.
    pub expected: Option<u64>,
}

impl Default for Intent {
    fn default() -> Self {
        Self::Changes(Vec::new())
    }
}

/// One change of a command.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// The change.
    pub change: Change,
    /// The revision at which the caller saw the key change last, for a tenant or a service with all that belongs to
    /// it; 0: it must not exist yet. Another refuses the command.
    pub expected: Option<u64>,
}

/// A command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where the log is: at the command's event, or where it was if nothing had to change.
    pub position: Position,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What became of each change, in order.
    pub applied: Vec<Applied>,
    /// Tenants that were meant, where the command selects some.
    pub selected: u64,
    /// Which tenants it moves.
    pub moves: Moves,
}

/// A change that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// When its key changed last, for a tenant or a service with all that belongs to it; 0 if it is gone.
    pub revision: u64,
    /// What holds now, where the rules completed what was asked for; none: exactly that.
    pub completed: Option<Fact>,
}

impl Command {
    /// A command of one change.
    #[must_use]
    pub fn single(principal: Principal, change: Change) -> Self {
        let intent = Intent::Changes(vec![Proposed { change, expected: None }]);
        Self { principal, intent, ..Self::default() }
    }

    /// Checks what needs no database.
    pub(super) fn validate(&self) -> Result<(), ApiError> {
        if self.reason.len() > MAX_REASON {
            let message =
                format!("write.reason: has {} bytes, at most {MAX_REASON} are allowed", self.reason.len());
            return Err(invalid(message).with("field", "write.reason"));
        }
        for (field, text) in [("write.reason", &self.reason), ("write.cause", &self.cause)] {
            if !is_plain(text) {
                return Err(invalid(format!("{field}: {NOT_PLAIN}")).with("field", field));
            }
        }
        match &self.intent {
            Intent::Changes(changes) => check_changes(changes),
            Intent::Pins(_) | Intent::Promotion(_) => Ok(()),
        }
    }

    /// Whether it may be about far more than [`MAX_CHANGES`].
    pub(super) fn is_bulk(&self) -> bool {
        !matches!(self.intent, Intent::Changes(_))
    }
}

fn check_changes(changes: &[Proposed]) -> Result<(), ApiError> {
    if changes.is_empty() {
        return Err(invalid("changes: at least one is required".to_owned()).with("field", "changes"));
    }
    if changes.len() > MAX_CHANGES {
        let message = format!("changes: {} were given, at most {MAX_CHANGES} are allowed", changes.len());
        return Err(ApiError::new(Reason::TooLarge, message).with("field", "changes"));
    }
    let mut keys = BTreeSet::new();
    for (i, proposed) in changes.iter().enumerate() {
        let key = proposed.change.key();
        if keys.contains(&key) {
            let message = format!("changes[{i}]: {key} is changed twice");
            return Err(invalid(message).with("field", format!("changes[{i}]")));
        }
        keys.insert(key);
    }
    Ok(())
}

fn invalid(message: String) -> ApiError {
    ApiError::new(Reason::InvalidArgument, message)
}

/// The tenant, the service and the pin that a change is about; none if it is about something else.
pub(super) fn pin_of(change: &Change) -> Option<(&TenantId, &ServiceId, Option<&Pin>)> {
    match change {
        Change::Put(Fact::Pin(tenant, service, pin)) => Some((tenant, service, Some(pin))),
        Change::Removed(Key::Pin(tenant, service)) => Some((tenant, service, None)),
        Change::Put(_) | Change::Removed(_) => None,
    }
}
