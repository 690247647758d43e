//! The same decision with every step and every rejected alternative.

use crate::balance::Moment;
use crate::decide::{self, Call, Decision, Recorder};
use crate::error::Refusal;
use crate::table::Table;

/// One step of a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Which step: tenant, hold, base, override, overlay, schema, instances, failover.
    pub name: &'static str,
    /// What came out of it.
    pub outcome: String,
    /// What was considered and not taken.
    pub rejected: Vec<Rejected>,
}

/// An alternative that was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// What it was: a version, an overlay or an instance.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// A decision with everything that led to it.
#[derive(Debug)]
pub struct Explanation<'t> {
    /// What [`decide::decide`] answers.
    pub outcome: Result<Decision<'t>, Refusal>,
    /// In order.
    pub steps: Vec<Step>,
}

/// Explains a call's decision without counting it: live figures and turns stay as they are.
#[must_use]
pub fn explain<'t>(table: &'t Table, call: &Call<'_>, moment: &Moment) -> Explanation<'t> {
    let mut recorder = Recorder::default();
    let outcome = decide::run(table, call, moment, &mut recorder);
    Explanation { outcome, steps: recorder.steps }
}
