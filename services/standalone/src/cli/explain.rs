//! `grey explain`: why a call goes where it goes.

use std::fmt::Write as _;

use clap::Args;
use grey_proto::router::route_outcome::Outcome;
use grey_proto::router::{ExplainRequest, Explanation, RouteRequest};

use super::Failure;
use super::output::plain;
use super::route::{Call, reason_word};
use super::session::Session;

/// A call to be explained.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    call: Call,
    /// As of this revision of the log, asked of the control plane; else the present one of the router
    #[arg(long, value_name = "REVISION")]
    at: Option<u64>,
}

impl Explain {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let call = self.call.into_request(0);
        let attempted = format!("explain `{}`'s call of `{}`", call.tenant, call.service);
        match self.at {
            None => {
                let request = ExplainRequest { call: Some(call.clone()), revision: 0 };
                let mut client = session.router().await?;
                let response = session.call(&attempted, client.explain(session.request(request))).await?;
                session.show(&response, || tree(&call, response.explanation.as_ref()))
            }
            Some(revision) => {
                let request = grey_proto::control::ExplainAtRequest { call: Some(call.clone()), revision };
                let mut client = session.history().await?;
                let response = session.call(&attempted, client.explain_at(session.request(request))).await?;
                session.show(&response, || tree(&call, response.explanation.as_ref()))
            }
        }
    }
}

/// The steps as a tree, rejected alternatives below the step that rejected them.
pub(crate) fn tree(call: &RouteRequest, explanation: Option<&Explanation>) -> String {
    let explanation = explanation.cloned().unwrap_or_default();
    let mut text = String::new();
    let width = explanation.steps.iter().map(|step| step.name.len()).max().unwrap_or_default();
    let mut line = |line: &str| {
        text.push_str(&plain(line));
        text.push('\n');
    };
    line(&format!("{} calls {}, revision {}", call.tenant, call.service, explanation.revision));
    for step in &explanation.steps {
        line(&format!("├─ {:width$}  {}", step.name, step.outcome));
        for rejected in &step.rejected {
            line(&format!("│    {:width$}not {}: {}", "", rejected.what, rejected.why));
        }
    }
    line(&format!("└─ {}", outcome(&explanation)));
    text
}

fn outcome(explanation: &Explanation) -> String {
    match explanation.outcome.as_ref().and_then(|outcome| outcome.outcome.as_ref()) {
        Some(Outcome::Decision(decision)) => {
            let mut text = decision.version.clone();
            if let Some(instance) = &decision.instance {
                write!(text, " on {} ({})", instance.id, instance.address)
                    .expect("writing to a string does not fail");
            }
            let rule = if decision.rule.is_empty() { String::new() } else { format!(" {}", decision.rule) };
            format!("{text}, by {}{rule}", reason_word(decision))
        }
        Some(Outcome::Error(error)) => format!("refused: {} ({})", error.message, error.reason),
        None => "nothing was decided".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::router::{
        DecisionReason, ExplainStep, Instance, Rejected, RouteError, RouteOutcome, RouteResponse,
    };

    fn step(name: &str, outcome: &str, rejected: &[(&str, &str)]) -> ExplainStep {
        let rejected = rejected
            .iter()
            .map(|(what, why)| Rejected { what: (*what).to_owned(), why: (*why).to_owned() })
            .collect();
        ExplainStep { name: name.to_owned(), outcome: outcome.to_owned(), rejected }
    }

    fn explained(outcome: Outcome, steps: Vec<ExplainStep>) -> String {
        let call =
            RouteRequest { tenant: "acme".to_owned(), service: "orders".to_owned(), ..Default::default() };
        let outcome = Some(RouteOutcome { outcome: Some(outcome) });
        tree(&call, Some(&Explanation { outcome, steps, revision: 17, epoch: 1 }))
    }

    #[test]
    fn a_decision_is_a_tree_with_what_was_rejected() {
        let instance = Instance {
            id: "orders-1".to_owned(),
            address: "127.0.0.1:9001".to_owned(),
            ..Default::default()
        };
        let decision = RouteResponse {
            version: "v1.0".to_owned(),
            instance: Some(instance),
            reason: DecisionReason::Schema.into(),
            ..RouteResponse::default()
        };
        let steps = vec![
            step("tenant", "active", &[]),
            step("schema", "v1.0", &[("v2.0", "needs schema 2, the tenant has 1")]),
        ];
        insta::assert_snapshot!(explained(Outcome::Decision(decision), steps), @"
        acme calls orders, revision 17
        ├─ tenant  active
        ├─ schema  v1.0
        │          not v2.0: needs schema 2, the tenant has 1
        └─ v1.0 on orders-1 (127.0.0.1:9001), by schema
        ");
    }

    #[test]
    fn a_refusal_is_a_tree_that_ends_with_its_reason() {
        let error =
            RouteError { code: 5, reason: "UNKNOWN_TENANT".to_owned(), message: "no such tenant".to_owned() };
        let steps = vec![step("tenant", "unknown", &[])];
        insta::assert_snapshot!(explained(Outcome::Error(error), steps), @"
        acme calls orders, revision 17
        ├─ tenant  unknown
        └─ refused: no such tenant (UNKNOWN_TENANT)
        ");
    }
}
