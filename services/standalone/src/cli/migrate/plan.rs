//! `grey migrate plan`: a dry run.

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use grey_core::error::Reason;
use grey_proto::schema::{PlanRequest, UpgradePlan};
use grey_proto::status::ErrorBody;
use serde::Serialize;

use super::super::Failure;
use super::super::session::Session;
use super::select::Selected;
use super::{Allowed, Goal, Tenants, text};

/// Plans that are asked for at once.
const AT_ONCE: usize = 8;

/// Whose upgrade, and where to.
#[derive(Debug, Args)]
pub struct Plan {
    /// The service
    service: String,
    #[command(flatten)]
    tenants: Tenants,
    #[command(flatten)]
    goal: Goal,
    #[command(flatten)]
    allowed: Allowed,
}

/// The document for programs.
#[derive(Serialize)]
struct Plans {
    plans: Vec<UpgradePlan>,
    failures: Vec<Unplanned>,
}

/// A tenant without a plan.
#[derive(Serialize)]
pub(super) struct Unplanned {
    tenant: String,
    #[serde(flatten)]
    body: ErrorBody,
}

impl Unplanned {
    pub(super) fn new((tenant, failure): &(String, Failure)) -> Self {
        Self { tenant: tenant.clone(), body: ErrorBody::from(&failure.told()) }
    }
}

impl Plan {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, goal, allowed } = self;
        let selected = tenants.tenants.resolve(session).await?;
        let request = PlanRequest {
            service,
            target: goal.target(),
            options: allowed.options(),
            ..PlanRequest::default()
        };
        let (plans, failures) = ask(session, &selected, &request).await?;
        show(session, plans, failures)
    }
}

/// The plans of tenants, and why others have none. Who was not named and has no database is left out.
///
/// # Errors
/// The migrator does not answer, so no tenant has a plan.
pub(super) async fn ask(
    session: &Session,
    selected: &Selected,
    request: &PlanRequest,
) -> Result<(Vec<UpgradePlan>, Vec<(String, Failure)>), Failure> {
    let client = session.schemas().await?;
    let plan = |tenant: String| {
        let (mut client, request) =
            (client.clone(), PlanRequest { tenant: tenant.clone(), ..request.clone() });
        async move {
            let attempted = format!("plan an upgrade of `{tenant}`'s {}", request.service);
            match session.call(&attempted, client.plan(session.request(request))).await {
                Ok(response) => Ok(Ok(response.plan.unwrap_or_default())),
                Err(Failure::Refused { error, .. })
                    if !selected.named && error.reason == Reason::UnknownDatabase =>
                {
                    Ok(Err(None))
                }
                Err(failure) if failure.reason() == Reason::Unavailable => Err(failure),
                Err(failure) => Ok(Err(Some((tenant, failure)))),
            }
        }
    };
    let asked: Vec<_> = selected.tenants.iter().cloned().map(plan).collect();
    let told: Vec<_> = futures::stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    let (mut plans, mut failures) = (Vec::new(), Vec::new());
    for told in told {
        match told {
            Ok(plan) => plans.push(plan),
            Err(Some(failure)) => failures.push(failure),
            Err(None) => {}
        }
    }
    Ok((plans, failures))
}

/// Prints plans.
///
/// # Errors
/// One of them is refused, or a tenant has none.
pub(super) fn show(
    session: &Session,
    plans: Vec<UpgradePlan>,
    failures: Vec<(String, Failure)>,
) -> Result<(), Failure> {
    if plans.is_empty() && failures.is_empty() {
        return Err(Failure::Input("none of the tenants has a database for the service".to_owned()));
    }
    let refused: Vec<String> =
        plans.iter().filter(|plan| plan.refused).map(|plan| plan.tenant.clone()).collect();
    let document = Plans { failures: failures.iter().map(Unplanned::new).collect(), plans };
    if !document.plans.is_empty() || session.json() {
        session.show(&document, || plans_text(&document.plans))?;
    }
    let refusals = (!refused.is_empty()).then_some(Failure::PlansRefused { tenants: refused });
    all_of(failures.into_iter().map(|(_, failure)| failure).chain(refusals).collect())
}

/// Fails with all of them.
pub(super) fn all_of(mut failures: Vec<Failure>) -> Result<(), Failure> {
    match failures.pop() {
        None => Ok(()),
        Some(failure) if failures.is_empty() => Err(failure),
        Some(failure) => {
            failures.push(failure);
            Err(Failure::Several(failures))
        }
    }
}

/// Each plan once, with all the tenants that have it.
fn plans_text(plans: &[UpgradePlan]) -> String {
    let mut groups: Vec<(UpgradePlan, Vec<String>)> = Vec::new();
    for plan in plans {
        let tenant = plan.tenant.clone();
        let same = UpgradePlan { tenant: String::new(), ..plan.clone() };
        match groups.iter_mut().find(|(group, _)| *group == same) {
            Some((_, tenants)) => tenants.push(tenant),
            None => groups.push((same, vec![tenant])),
        }
    }
    let texts: Vec<_> = groups.iter().map(|(plan, tenants)| text::plan(tenants, plan)).collect();
    texts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::schema::{Finding, FindingLevel, PlannedStep};

    fn plan(tenant: &str, from: &str) -> UpgradePlan {
        let step = PlannedStep {
            schema: "1.2".to_owned(),
            description: "add status".to_owned(),
            file: "V1.2__add_status.sql".to_owned(),
            checksum: "0123456789abcdef".to_owned(),
            transactional: true,
            undoable: false,
            statements: vec![
                "ALTER TABLE orders\n    ADD COLUMN status text".to_owned(),
                "UPDATE orders SET status = '\u{1b}[2J'; -- all".to_owned(),
            ],
            checks: vec!["SELECT id FROM orders WHERE status IS NULL".to_owned()],
            findings: vec![Finding {
                level: FindingLevel::Warning.into(),
                rule: "missing_undo".to_owned(),
                message: "has no undo file".to_owned(),
                file: "V1.2__add_status.sql".to_owned(),
                line: 3,
            }],
        };
        UpgradePlan {
            tenant: tenant.to_owned(),
            service: "orders".to_owned(),
            dialect: "postgres".to_owned(),
            from_schema: from.to_owned(),
            to_schema: "1.2".to_owned(),
            steps: if from == "1.2" { Vec::new() } else { vec![step] },
            findings: Vec::new(),
            refused: false,
            stopped_before: String::new(),
        }
    }

    #[test]
    fn equal_plans_are_printed_once_with_the_exact_statements() {
        let plans = [plan("acme", "1.1"), plan("b", "1.2"), plan("c", "1.1")];
        insta::assert_snapshot!(plans_text(&plans), @"
        -- tenants   acme, c
        -- orders    1.1 -> 1.2 (postgres)

        -- 1.2 add status: V1.2__add_status.sql 0123456789ab, one transaction, cannot be undone
        -- warning: V1.2__add_status.sql:3: has no undo file [missing_undo]
        ALTER TABLE orders
            ADD COLUMN status text;
        UPDATE orders SET status = ' [2J'; -- all
        ;
        -- then each of these must return no row
        SELECT id FROM orders WHERE status IS NULL;

        -- tenants   b
        -- orders    at 1.2 (postgres)
        -- nothing to do
        ");
    }

    #[test]
    fn a_refused_plan_says_so() {
        let finding = Finding {
            level: FindingLevel::Error.into(),
            rule: "checksum".to_owned(),
            message: "the file was changed after it was applied".to_owned(),
            file: "V1.1__create.sql".to_owned(),
            line: 0,
        };
        let plan = UpgradePlan { refused: true, findings: vec![finding], ..plan("acme", "1.2") };
        insta::assert_snapshot!(plans_text(&[plan]), @"
        -- tenants   acme
        -- orders    at 1.2 (postgres)
        -- ERROR: V1.1__create.sql: the file was changed after it was applied [checksum]

        -- REFUSED: see what speaks against it above
        ");
    }
}
