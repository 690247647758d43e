//! Explanations as messages.

use grey_core::decide::{Decision, Detour, Rule};
use grey_core::explain::{Explanation, Rejected, Step};
use grey_core::ids::Name;
use grey_core::table::Table;
use grey_proto::router::{self, DecisionReason, RouteOutcome, RouteResponse, route_outcome};
use grey_proto::status::ApiError;

/// The explanation of a decision on `table`.
pub(super) fn explanation(table: &Table, explanation: Explanation<'_>) -> router::Explanation {
    let outcome = match explanation.outcome {
        Ok(decision) => route_outcome::Outcome::Decision(response(table, &decision)),
        Err(refusal) => route_outcome::Outcome::Error((&ApiError::from(refusal)).into()),
    };
    router::Explanation {
        outcome: Some(RouteOutcome { outcome: Some(outcome) }),
        steps: explanation.steps.into_iter().map(step).collect(),
        revision: table.position().revision.0,
        generation: table.position().generation.to_string(),
    }
}

fn response(table: &Table, decision: &Decision<'_>) -> RouteResponse {
    let instance = decision.instance;
    let text = |name: &Option<Name>| name.as_ref().map(Name::to_string).unwrap_or_default();
    RouteResponse {
        version: decision.version.to_string(),
        instance: Some(router::Instance {
            id: instance.id.to_string(),
            address: instance.address.to_string(),
            region: text(&instance.region),
            zone: text(&instance.zone),
            metadata: instance.metadata.clone(),
            ..router::Instance::default()
        }),
        reason: reason(decision).into(),
        rule: match decision.rule {
            Rule::Experiment { overlay, variant } => format!("{overlay}/{variant}"),
            Rule::Canary { overlay } => overlay.to_string(),
            Rule::Pin | Rule::Default | Rule::UnknownTenant | Rule::Override => String::new(),
        },
        wanted_version: decision.detour.map(|(wanted, _)| wanted.to_string()).unwrap_or_default(),
        schema: decision.schema.map(ToString::to_string).unwrap_or_default(),
        revision: table.position().revision.0,
        generation: table.position().generation.to_string(),
        stale: false,
    }
}

fn reason(decision: &Decision<'_>) -> DecisionReason {
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

fn step(step: Step) -> router::ExplainStep {
    let rejected = |Rejected { what, why }| router::Rejected { what, why };
    router::ExplainStep {
        name: step.name.to_owned(),
        outcome: step.outcome,
        rejected: step.rejected.into_iter().map(rejected).collect(),
    }
}
