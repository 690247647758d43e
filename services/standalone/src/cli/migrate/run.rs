//! `grey migrate up`, `undo` and `cancel`: upgrades, started and followed.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use grey_core::error::Reason;
use grey_proto::schema::{
    CancelUpgradeRequest, PlanRequest, RollbackRequest, StartUpgradeRequest, StartUpgradesRequest,
    StartUpgradesResponse, StartedUpgrade, Target, Upgrade, UpgradeDirection, UpgradeState,
};

use super::super::output::table;
use super::super::session::Session;
use super::super::{Failure, output};
use super::progress::{Progress, line};
use super::select::Selected;
use super::{Allowed, Consent, Goal, Tenants, follow, named_again, plan, text};

/// Tenants that one request may name.
const CHUNK: usize = 1_000;
/// How much longer than another call it may take to plan that many upgrades.
const PLANNING: Duration = Duration::from_secs(120);
/// Undoings that are asked for at once.
const AT_ONCE: usize = 8;

/// Whose upgrade, and where to.
#[derive(Debug, Args)]
pub struct Up {
    /// The service
    service: String,
    #[command(flatten)]
    tenants: Tenants,
    #[command(flatten)]
    goal: Goal,
    #[command(flatten)]
    allowed: Allowed,
    #[command(flatten)]
    consent: Consent,
    /// Do not wait until the upgrades have ended
    #[arg(long)]
    detach: bool,
}

/// Whose migrations, and back to where.
#[derive(Debug, Args)]
pub struct Undo {
    /// The service
    service: String,
    #[command(flatten)]
    tenants: Tenants,
    /// Back to this schema; 0: before the first migration, for which the tenant has to be named again
    #[arg(long, value_name = "SCHEMA")]
    to: String,
    /// Print what would be undone, without undoing anything
    #[arg(long)]
    dry_run: bool,
    /// The tenant once more, where all of its migrations are undone; may be given several times
    #[arg(long, value_name = "TENANT")]
    confirm: Vec<String>,
    #[command(flatten)]
    allowed: Allowed,
    #[command(flatten)]
    consent: Consent,
    /// Do not wait until all is undone
    #[arg(long)]
    detach: bool,
}

/// An upgrade.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The upgrade, from `grey migrate status`
    #[arg(value_name = "UPGRADE")]
    id: String,
}

impl Up {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, goal, allowed, consent, detach } = self;
        let selected = tenants.tenants.resolve(session).await?;
        consent.ask(&format!("upgrade {service}"), &selected)?;
        let mut client = session.schemas().await?;
        let (target, options, reason) = (goal.target(), allowed.options(), consent.reason);
        let started = if let [tenant] = selected.tenants.as_slice() {
            let attempted = format!("upgrade `{tenant}`'s {service}");
            let request = StartUpgradeRequest {
                tenant: tenant.clone(),
                service,
                target,
                options,
                reason,
                flip: None,
                idempotency_key: String::new(),
            };
            let request = session.request(request);
            let response = session.call(&attempted, client.start_upgrade(request)).await?;
            vec![StartedUpgrade { tenant: tenant.clone(), upgrade: response.upgrade, ..Default::default() }]
        } else {
            let mut started = Vec::new();
            for tenants in selected.tenants.chunks(CHUNK) {
                let request = StartUpgradesRequest {
                    tenants: tenants.to_vec(),
                    service: service.clone(),
                    target: target.clone(),
                    options: options.clone(),
                    reason: reason.clone(),
                };
                let request = session.request_waiting(request, PLANNING);
                let attempted = format!("upgrade {service} of {} tenants", tenants.len());
                let call = client.start_upgrades(request);
                started.extend(session.call_waiting(&attempted, PLANNING, call).await?.upgrades);
            }
            started
        };
        finish(session, &selected, started, detach).await
    }
}

impl Undo {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, to: schema, dry_run, confirm, allowed, consent, detach } = self;
        let selected = tenants.tenants.resolve(session).await?;
        if dry_run {
            let request = PlanRequest {
                tenant: String::new(),
                service,
                target: Some(Target { schema, service_version: String::new() }),
                options: allowed.options(),
                direction: UpgradeDirection::Down.into(),
            };
            let (plans, failures) = plan::ask(session, &selected, &request).await?;
            return plan::show(session, plans, failures);
        }
        let attempted = format!("undo {service} to {schema}");
        if schema == "0" {
            named_again(&attempted, &selected, &confirm)?;
        }
        consent.ask(&attempted, &selected)?;
        let client = session.schemas().await?;
        let undo = |tenant: String| {
            let (mut client, service, schema) = (client.clone(), service.clone(), schema.clone());
            let (options, reason) = (allowed.options(), consent.reason.clone());
            async move {
                let attempted = format!("undo `{tenant}`'s {service} to {schema}");
                let request = RollbackRequest { tenant: tenant.clone(), service, schema, options, reason };
                let request = session.request(request);
                (tenant, session.call(&attempted, client.rollback(request)).await)
            }
        };
        let asked: Vec<_> = selected.tenants.iter().cloned().map(undo).collect();
        let mut answers: Vec<_> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
        if answers.len() == 1
            && let Some((_, Err(failure))) = answers.pop_if(|(_, answer)| answer.is_err())
        {
            return Err(failure);
        }
        let started = answers.into_iter().map(|(tenant, answer)| match answer {
            Ok(response) => StartedUpgrade { tenant, upgrade: response.upgrade, ..Default::default() },
            Err(failure) => {
                let error = failure.told();
                let reason = error.reason.as_str().to_owned();
                StartedUpgrade { tenant, upgrade: None, reason, error: error.message }
            }
        });
        let started = started.collect();
        finish(session, &selected, started, detach).await
    }
}

impl Cancel {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let mut client = session.schemas().await?;
        let attempted = format!("cancel upgrade `{}`", self.id);
        let request = session.request(CancelUpgradeRequest { id: self.id });
        let response = session.call(&attempted, client.cancel_upgrade(request)).await?;
        session.show(&response, || {
            let upgrade = response.upgrade.clone().unwrap_or_default();
            let what = match upgrade.state() {
                UpgradeState::Running => "stops after the present step, which is undone".to_owned(),
                _ => text::outcome(&upgrade),
            };
            line(&upgrade.tenant, &what)
        })
    }
}

/// Follows what was started, and prints what became of each tenant.
async fn finish(
    session: &Session,
    selected: &Selected,
    mut started: Vec<StartedUpgrade>,
    detach: bool,
) -> Result<(), Failure> {
    let asked = started.len();
    if !selected.named {
        // Whoever asks for all means those that there are.
        started.retain(|one| one.reason != Reason::UnknownDatabase.as_str());
    }
    let without = asked - started.len();
    if detach {
        let response = StartUpgradesResponse { upgrades: started };
        session.show(&response, || started_text(&response.upgrades))?;
        return refused(&response.upgrades);
    }
    let upgrades: Vec<Upgrade> = started.iter().filter_map(|one| one.upgrade.clone()).collect();
    let progress = Progress::new(session, upgrades.len());
    for one in started.iter().filter(|one| one.upgrade.is_none()) {
        progress.say(&line(&one.tenant, &format!("refused: {} ({})", one.error, one.reason)))?;
    }
    let mut ended: BTreeMap<String, Upgrade> = follow::all(session, upgrades, &progress)
        .await?
        .into_iter()
        .map(|upgrade| (upgrade.id.clone(), upgrade))
        .collect();
    for one in &mut started {
        let last = one.upgrade.as_ref().and_then(|upgrade| ended.remove(&upgrade.id));
        one.upgrade = last.or(one.upgrade.take());
    }
    let response = StartUpgradesResponse { upgrades: started };
    if session.json() {
        session.show(&response, String::new)?;
    } else if asked > 1 {
        output::print(&summary(&response.upgrades, without))?;
    }
    refused(&response.upgrades)
}

/// Fails if something was refused, or has ended without success.
fn refused(started: &[StartedUpgrade]) -> Result<(), Failure> {
    let bad = |one: &&StartedUpgrade| {
        one.upgrade
            .as_ref()
            .is_none_or(|upgrade| text::ended(upgrade) && upgrade.state() != UpgradeState::Succeeded)
    };
    let tenants: Vec<_> = started.iter().filter(bad).map(|one| one.tenant.clone()).collect();
    if tenants.is_empty() { Ok(()) } else { Err(Failure::Upgrades { tenants, total: started.len() }) }
}

fn started_text(started: &[StartedUpgrade]) -> String {
    let rows = started.iter().map(|one| match &one.upgrade {
        Some(upgrade) => {
            [one.tenant.clone(), upgrade.id.clone(), text::state(upgrade.state()), String::new()]
        }
        None => {
            let why = format!("{} ({})", one.error, one.reason);
            [one.tenant.clone(), String::new(), "refused".to_owned(), why]
        }
    });
    table(["TENANT", "UPGRADE", "STATE", "ERROR"], rows)
}

/// How many ended how.
fn summary(started: &[StartedUpgrade], without: usize) -> String {
    let mut counts: BTreeMap<i32, (String, usize)> = BTreeMap::new();
    for one in started {
        let (order, what) = match &one.upgrade {
            Some(upgrade) => (upgrade.state, text::state(upgrade.state())),
            None => (i32::MAX, "refused".to_owned()),
        };
        counts.entry(order).or_insert((what, 0)).1 += 1;
    }
    let parts: Vec<_> = counts.into_values().map(|(what, count)| format!("{count} {what}")).collect();
    // Those without a database for the service have nothing to upgrade.
    let none = match without {
        0 => String::new(),
        1 => "; 1 tenant has none".to_owned(),
        without => format!("; {without} tenants have none"),
    };
    format!("{}, of {} databases{none}\n", parts.join(", "), started.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    fn upgrade(tenant: &str, state: UpgradeState, error: &str) -> StartedUpgrade {
        let upgrade = Upgrade {
            id: format!("u-{tenant}"),
            tenant: tenant.to_owned(),
            state: state.into(),
            from_schema: "1.1".to_owned(),
            schema: if state == UpgradeState::Succeeded { "1.2" } else { "1.1" }.to_owned(),
            error: error.to_owned(),
            started_at: Some(pbjson_types::Timestamp { seconds: 9, nanos: 900_000_000 }),
            ended_at: Some(pbjson_types::Timestamp { seconds: 11, nanos: 0 }),
            ..Upgrade::default()
        };
        StartedUpgrade { tenant: tenant.to_owned(), upgrade: Some(upgrade), ..Default::default() }
    }

    fn busy() -> StartedUpgrade {
        StartedUpgrade {
            tenant: "c".to_owned(),
            upgrade: None,
            reason: "UPGRADE_RUNNING".to_owned(),
            error: "upgrade u-9 of it runs".to_owned(),
        }
    }

    #[test]
    fn outcomes_are_counted() {
        let started = [
            upgrade("a", UpgradeState::Succeeded, ""),
            upgrade("b", UpgradeState::Failed, "no such table"),
            busy(),
            upgrade("d", UpgradeState::Succeeded, ""),
        ];
        assert_eq!(
            summary(&started, 3),
            "2 succeeded, 1 FAILED, 1 refused, of 4 databases; 3 tenants have none\n"
        );
        let failure = refused(&started).unwrap_err();
        insta::assert_snapshot!(failure, @"2 of 4 upgrades did not succeed: b, c");
        assert!(refused(&started[..1]).is_ok());
    }

    #[test]
    fn outcomes_are_lines() {
        let text = |one: StartedUpgrade| text::outcome(&one.upgrade.unwrap_or_default());
        insta::assert_snapshot!(text(upgrade("a", UpgradeState::Succeeded, "")), @"succeeded, 1.1 -> 1.2 in 1.1s");
        insta::assert_snapshot!(text(upgrade("b", UpgradeState::Failed, "no such\ntable")), @"FAILED, at 1.1 in 1.1s: no such table");
        insta::assert_snapshot!(text(upgrade("b", UpgradeState::NeedsRepair, "undo failed")), @"NEEDS REPAIR, at 1.1 in 1.1s: undo failed");
    }

    #[test]
    fn what_goes_on_is_listed_with_its_upgrade() {
        insta::assert_snapshot!(started_text(&[upgrade("a", UpgradeState::Queued, ""), busy()]), @"
        TENANT  UPGRADE  STATE    ERROR
        a       u-a      queued   -
        c       -        refused  upgrade u-9 of it runs (UPGRADE_RUNNING)
        ");
    }
}
