//! Watching a decision without slowing it down.

use crate::explain::{Rejected, Step};

/// Told of each step. The closures run only where something is recorded.
pub(crate) trait Trace {
    /// Whether this is a look and not a call: live figures then stay as they are.
    const PEEK: bool;
    /// A step came to `outcome`, after rejecting what was told since the step before.
    fn step(&mut self, name: &'static str, outcome: impl FnOnce() -> String);
    /// Something was considered and not taken.
    fn rejected(&mut self, what: impl FnOnce() -> String, why: impl FnOnce() -> String);
}

/// Records nothing, at no cost.
pub(crate) struct NoTrace;

impl Trace for NoTrace {
    const PEEK: bool = false;
    fn step(&mut self, _name: &'static str, _outcome: impl FnOnce() -> String) {}
    fn rejected(&mut self, _what: impl FnOnce() -> String, _why: impl FnOnce() -> String) {}
}

/// Records everything.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) steps: Vec<Step>,
    rejected: Vec<Rejected>,
}

impl Trace for Recorder {
    const PEEK: bool = true;

    fn step(&mut self, name: &'static str, outcome: impl FnOnce() -> String) {
        let rejected = std::mem::take(&mut self.rejected);
        self.steps.push(Step { name, outcome: outcome(), rejected });
    }

    fn rejected(&mut self, what: impl FnOnce() -> String, why: impl FnOnce() -> String) {
        self.rejected.push(Rejected { what: what(), why: why() });
    }
}
