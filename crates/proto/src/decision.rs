//! Decisions and explanations as messages.

mod frame;

pub use frame::frame;

use crate::router::{self, DecisionReason, RouteOutcome, RouteResponse, route_outcome};
use crate::status::ApiError;
use grey_core::decide::{Decision, Detour, Rule};
use grey_core::explain::{Rejected, Step};
use grey_core::table::Table;

/// The decision, taken on `table`.
#[must_use]
pub fn response(table: &Table, decision: &Decision<'_>, stale: bool) -> RouteResponse {
    let instance = decision.instance;
    let text = |name: &Option<grey_core::ids::Name>| {
        name.as_ref().map_or_else(String::new, |name| name.as_str().to_owned())
    };
    RouteResponse {
        version: decision.version.as_str().to_owned(),
        instance: Some(router::Instance {
            id: instance.id.as_str().to_owned(),
            address: instance.address.as_str().to_owned(),
            region: text(&instance.region),
            zone: text(&instance.zone),
            metadata: instance.metadata.clone(),
            // The decision tells its version once, and the rest is not the caller's business.
            ..router::Instance::default()
        }),
        reason: reason(decision).into(),
        rule: rule(decision),
        wanted_version: decision.detour.map_or_else(String::new, |(wanted, _)| wanted.as_str().to_owned()),
        schema: decision.schema.map_or_else(String::new, ToString::to_string),
        revision: table.position().revision.0,
        epoch: table.position().epoch.0,
        stale,
    }
}

/// Which rule decided.
#[must_use]
pub fn reason(decision: &Decision<'_>) -> DecisionReason {
    match (decision.detour, decision.rule) {
        (Some((_, Detour::Schema)), _) => DecisionReason::Schema,
        (Some((_, Detour::Failover)), _) => DecisionReason::Failover,
        (None, Rule::Pin) => DecisionReason::Pin,
        (None, Rule::Default) => DecisionReason::Default,
        (None, Rule::UnknownTenant) => DecisionReason::UnknownTenant,
        (None, Rule::Override) => DecisionReason::Override,
        (None, Rule::Experiment { .. }) => DecisionReason::Experiment,
        (None, Rule::Canary { .. }) => DecisionReason::Canary,
    }
}

fn rule(decision: &Decision<'_>) -> String {
    match decision.rule {
        Rule::Experiment { overlay, variant } => format!("{overlay}/{variant}"),
        Rule::Canary { overlay } => overlay.as_str().to_owned(),
        Rule::Pin | Rule::Default | Rule::UnknownTenant | Rule::Override => String::new(),
    }
}

/// A decision or why there is none.
#[must_use]
pub fn outcome(result: Result<RouteResponse, ApiError>) -> RouteOutcome {
    let outcome = match result {
        Ok(decision) => route_outcome::Outcome::Decision(decision),
        Err(error) => route_outcome::Outcome::Error((&error).into()),
    };
    RouteOutcome { outcome: Some(outcome) }
}

/// The steps of a decision on `table`, and what came of it.
#[must_use]
pub fn explanation(
    table: &Table,
    result: Result<RouteResponse, ApiError>,
    steps: Vec<Step>,
) -> router::Explanation {
    router::Explanation {
        outcome: Some(outcome(result)),
        steps: steps.into_iter().map(step).collect(),
        revision: table.position().revision.0,
        epoch: table.position().epoch.0,
    }
}

fn step(step: Step) -> router::ExplainStep {
    let rejected = |Rejected { what, why }| router::Rejected { what, why };
    router::ExplainStep {
        name: step.name.to_owned(),
        outcome: step.outcome,
        rejected: step.rejected.into_iter().map(rejected).collect(),
    }
}

#[cfg(test)]
mod tests;
