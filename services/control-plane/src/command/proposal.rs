//! What someone wants to be changed, and what became of it.

use std::collections::BTreeSet;

use grey_core::change::{Change, Epoch, Position, Principal};
use grey_core::error::Reason;
use grey_core::key::Fact;
use grey_proto::status::ApiError;

/// Most changes of one command.
pub const MAX_CHANGES: usize = 1_000;
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
    /// In order; no two about the same key.
    pub changes: Vec<Proposed>,
    /// The log's revision that the caller has seen; another refuses the command.
    pub expected_log: Option<u64>,
    /// The history that every expected revision belongs to; another refuses the command.
    pub expected_epoch: Option<Epoch>,
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
    /// What became of each change, in order.
    pub applied: Vec<Applied>,
}

/// A change that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let changes = vec![Proposed { change, expected: None }];
        Self { principal, changes, ..Self::default() }
    }

    /// Checks what needs no database.
    pub(super) fn validate(&self) -> Result<(), ApiError> {
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
        let mut keys = BTreeSet::new();
        for (i, proposed) in self.changes.iter().enumerate() {
            let key = proposed.change.key();
            if keys.contains(&key) {
                let message = format!("changes[{i}]: {key} is changed twice");
                return Err(invalid(message).with("field", format!("changes[{i}]")));
            }
            keys.insert(key);
        }
        Ok(())
    }
}
