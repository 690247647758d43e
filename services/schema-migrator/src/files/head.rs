//! What a file says of itself at its top.

use std::fmt;
use std::time::Duration;

/// Which half of a change of a schema a file is, while two versions of a service work on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The version before works on.
    Expand,
    /// Only the new version works on: the one before must not run any more.
    Contract,
}

impl Phase {
    /// The name, as in directives.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Contract => "contract",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How long a file's statements may wait and run, where it says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileTimeouts {
    /// For a lock that another session holds.
    pub lock: Option<Duration>,
    /// For one statement.
    pub statement: Option<Duration>,
}

/// One thing that a file says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Setting {
    NoTransaction,
    NoPlaceholders,
    Timeouts(FileTimeouts),
    Phase(Phase),
}

impl Setting {
    fn name(self) -> &'static str {
        match self {
            Self::NoTransaction => "no-transaction",
            Self::NoPlaceholders => "no-placeholders",
            Self::Timeouts(_) => "timeout",
            Self::Phase(phase) => phase.as_str(),
        }
    }
}

/// What a file says of itself, once all before its first statement was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Head {
    /// The first statement was met.
    pub(super) over: bool,
    pub(super) no_transaction: bool,
    pub(super) no_placeholders: bool,
    pub(super) timeouts: Option<FileTimeouts>,
    pub(super) phase: Option<Phase>,
}

impl Head {
    /// Takes what is said.
    ///
    /// # Errors
    /// When it is said below a statement, or was said before.
    pub(super) fn take(&mut self, setting: Setting) -> Result<(), String> {
        let twice = match setting {
            Setting::NoTransaction => std::mem::replace(&mut self.no_transaction, true),
            Setting::NoPlaceholders => std::mem::replace(&mut self.no_placeholders, true),
            Setting::Timeouts(timeouts) => self.timeouts.replace(timeouts).is_some(),
            Setting::Phase(phase) => self.phase.replace(phase).is_some(),
        };
        if twice || self.over {
            return Err(format!("`{}` belongs to the top of the file, once", setting.name()));
        }
        Ok(())
    }
}
