//! Upgrades, plans and schemas in words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grey_proto::schema::{
    Finding, FindingLevel, PlannedStep, StepState, TenantSchema, Upgrade, UpgradeDirection, UpgradePlan,
    UpgradeState, UpgradeStep,
};
use pbjson_types::Timestamp;

use super::super::output::{plain, table, word};

/// `1.1 -> 1.2`, with the schema that was asked for where the present one is not there yet.
pub(super) fn way(from: &str, to: &str) -> String {
    let named = |schema: &str| if schema.is_empty() { "nothing".to_owned() } else { schema.to_owned() };
    if from == to { format!("at {}", named(to)) } else { format!("{} -> {}", named(from), named(to)) }
}

/// What became of an upgrade, on one line.
pub(super) fn outcome(upgrade: &Upgrade) -> String {
    let state = state(upgrade.state());
    let way = way(&upgrade.from_schema, &upgrade.schema);
    let took = took(upgrade).map(|took| format!(" in {took:.1?}")).unwrap_or_default();
    let backup = match upgrade.backup.as_str() {
        "" => String::new(),
        path => format!(", backup {path}"),
    };
    let error = match upgrade.error.as_str() {
        "" => String::new(),
        error => format!(": {error}"),
    };
    let stopped = match stopped(upgrade) {
        Some(step) if ended(upgrade) => format!("; {}", step.error),
        _ => String::new(),
    };
    plain(&format!("{state}, {way}{took}{backup}{error}{stopped}"))
}

/// The step that the upgrade stops before.
fn stopped(upgrade: &Upgrade) -> Option<&UpgradeStep> {
    upgrade.steps.iter().find(|step| step.state() == StepState::Waiting && !step.error.is_empty())
}

/// A state as people read it; the ones that a person must not overlook in capitals.
pub(super) fn state(state: UpgradeState) -> String {
    match state {
        UpgradeState::Failed => "FAILED".to_owned(),
        UpgradeState::NeedsRepair => "NEEDS REPAIR".to_owned(),
        state => word(state.as_str_name(), "UPGRADE_STATE_"),
    }
}

/// Whether nothing more will happen.
pub(super) fn ended(upgrade: &Upgrade) -> bool {
    !matches!(upgrade.state(), UpgradeState::Unspecified | UpgradeState::Queued | UpgradeState::Running)
}

/// The step that runs, with its number, or none.
pub(super) fn running(upgrade: &Upgrade) -> Option<(usize, &UpgradeStep)> {
    upgrade.steps.iter().enumerate().find(|(_, step)| step.state() == StepState::Running)
}

/// `up 1.2 add index, 2/5 statements`.
pub(super) fn step(direction: UpgradeDirection, step: &UpgradeStep) -> String {
    let verb = if direction == UpgradeDirection::Down { "undo" } else { "run" };
    let rows = match (step.rows_done, step.rows_total) {
        (0, 0) => String::new(),
        (done, 0) => format!(", {done} rows"),
        (done, total) => format!(", {done} of about {total} rows"),
    };
    let (done, all) = (step.statements_done, step.statements);
    plain(&format!("{verb} {} {}, {done}/{all} statements{rows}", step.schema, step.description))
}

fn took(upgrade: &Upgrade) -> Option<Duration> {
    let millis = |at: &Timestamp| at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000;
    let (from, to) = (upgrade.started_at.as_ref()?, upgrade.ended_at.as_ref()?);
    Some(Duration::from_millis(u64::try_from(millis(to) - millis(from)).ok()?))
}

/// A plan for `tenants`, all of which have the same.
pub(super) fn plan(tenants: &[String], plan: &UpgradePlan) -> String {
    let mut text = format!("-- tenants   {}\n", listed(tenants));
    let way = way(&plan.from_schema, &plan.to_schema);
    text.push_str(&plain(&format!("-- {:9} {way} ({})", plan.service, plan.dialect)));
    text.push('\n');
    if plan.steps.is_empty() && !plan.refused {
        text.push_str("-- nothing to do\n");
    }
    findings(&mut text, &plan.findings);
    for step in &plan.steps {
        text.push('\n');
        planned(&mut text, step);
    }
    if plan.refused {
        text.push_str("\n-- REFUSED: see what speaks against it above\n");
    }
    text
}

fn planned(text: &mut String, step: &PlannedStep) {
    let PlannedStep { schema, description, file, .. } = step;
    let transaction = if step.transactional { "one transaction" } else { "no transaction" };
    let undo = match (schema.as_str(), step.undoable) {
        ("", _) => "run whenever it changes",
        (_, true) => "can be undone",
        (_, false) => "cannot be undone",
    };
    let schema = if schema.is_empty() { "repeatable" } else { schema.as_str() };
    let checksum: String = step.checksum.chars().take(12).collect();
    text.push_str(&plain(&format!("-- {schema} {description}: {file} {checksum}, {transaction}, {undo}")));
    text.push('\n');
    findings(text, &step.findings);
    let statement = |sql: &String| format!("{}\n", shown(sql));
    text.extend(step.statements.iter().map(statement));
    if !step.checks.is_empty() {
        text.push_str("-- then each of these must return no row\n");
        text.extend(step.checks.iter().map(statement));
    }
}

/// The statement as it would be sent, but for what a terminal would obey.
fn shown(sql: &str) -> String {
    let sql = sql.trim_end();
    // A comment at the end would swallow it.
    let commented = sql.lines().next_back().is_some_and(|line| line.contains("--"));
    let end = if sql.ends_with(';') {
        ""
    } else if commented {
        "\n;"
    } else {
        ";"
    };
    let kept = |c: char| c == '\n' || c == '\t' || grey_core::text::is_plain(c.encode_utf8(&mut [0; 4]));
    let sql: String = sql.chars().map(|c| if kept(c) { c } else { ' ' }).collect();
    format!("{sql}{end}")
}

fn findings(text: &mut String, findings: &[Finding]) {
    for finding in findings {
        text.push_str(&plain(&format!("-- {}", self::finding(finding))));
        text.push('\n');
    }
}

/// One finding on one line.
pub(super) fn finding(finding: &Finding) -> String {
    let Finding { rule, message, file, line, .. } = finding;
    let place = match (file.as_str(), line) {
        ("", _) => String::new(),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}: "),
    };
    plain(&format!("{}: {place}{message} [{rule}]", level(finding.level())))
}

pub(super) fn level(level: FindingLevel) -> &'static str {
    match level {
        FindingLevel::Unspecified | FindingLevel::Warning => "warning",
        FindingLevel::Refusal => "refused",
        FindingLevel::Error => "ERROR",
    }
}

/// Where databases are, in columns, as of `now`, in seconds since 1970.
pub(super) fn schemas(schemas: &[TenantSchema], now: i64) -> String {
    let rows = schemas.iter().map(|schema| {
        let seen = schema.seen_at.as_ref().map(|at| format!("{} ago", span(now - at.seconds)));
        [
            schema.tenant.clone(),
            schema.service.clone(),
            schema.schema.clone(),
            schema.pending.to_string(),
            standing(schema),
            seen.unwrap_or_else(|| "never".to_owned()),
            if schema.upgrade.is_empty() { schema.last_upgrade.clone() } else { schema.upgrade.clone() },
            if schema.error.is_empty() { schema.last_error.clone() } else { schema.error.clone() },
        ]
    });
    table(["TENANT", "SERVICE", "SCHEMA", "PENDING", "STATE", "SEEN", "UPGRADE", "ERROR"], rows)
}

/// How a database stands, in a word or two.
fn standing(schema: &TenantSchema) -> String {
    match schema.last_state() {
        _ if !schema.upgrade.is_empty() => "upgrading".to_owned(),
        failed @ (UpgradeState::Failed | UpgradeState::NeedsRepair) => state(failed),
        _ if !schema.error.is_empty() => "not known".to_owned(),
        _ if schema.seen_at.is_none() => "never seen".to_owned(),
        _ if schema.pending > 0 => "behind".to_owned(),
        _ => "up to date".to_owned(),
    }
}

/// How many databases stand how.
pub(super) fn standings(schemas: &[TenantSchema]) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for schema in schemas {
        *counts.entry(standing(schema)).or_default() += 1;
    }
    let parts: Vec<_> = counts.into_iter().map(|(standing, count)| format!("{count} {standing}")).collect();
    match schemas.len() {
        0 => "no databases\n".to_owned(),
        1 => format!("1 database: {}\n", parts.join(", ")),
        count => format!("{count} databases: {}\n", parts.join(", ")),
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// The largest unit is exact enough. Clocks that differ do not make a span negative.
fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The first few, and how many more.
fn listed(tenants: &[String]) -> String {
    let shown: Vec<_> = tenants.iter().take(8).map(|tenant| plain(tenant)).collect();
    match tenants.len().saturating_sub(8) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_whose_last_upgrade_failed_says_so_and_why() {
        let schema = |tenant: &str| TenantSchema {
            tenant: tenant.to_owned(),
            service: "shop".to_owned(),
            schema: "1.1".to_owned(),
            seen_at: Some(Timestamp { seconds: 50, nanos: 0 }),
            ..TenantSchema::default()
        };
        let mut failed = TenantSchema { pending: 1, ..schema("b") };
        failed.set_last_state(UpgradeState::Failed);
        (failed.last_upgrade, failed.last_error) = ("u-1".to_owned(), "V2__x.sql: line 3: no".to_owned());
        let running = TenantSchema { upgrade: "u-2".to_owned(), ..failed.clone() };
        let all = [schema("a"), failed, running];
        insta::assert_snapshot!(schemas(&all, 60), @"
        TENANT  SERVICE  SCHEMA  PENDING  STATE       SEEN     UPGRADE  ERROR
        a       shop     1.1     0        up to date  10s ago  -        -
        b       shop     1.1     1        FAILED      10s ago  u-1      V2__x.sql: line 3: no
        b       shop     1.1     1        upgrading   10s ago  u-2      V2__x.sql: line 3: no
        ");
        assert_eq!(standings(&all), "3 databases: 1 FAILED, 1 up to date, 1 upgrading\n");
    }

    #[test]
    fn an_upgrade_that_stops_before_a_step_says_so() {
        let step = UpgradeStep {
            schema: "1.2".to_owned(),
            state: StepState::Waiting.into(),
            error: "stopped before 1.2, which contracts".to_owned(),
            ..UpgradeStep::default()
        };
        let upgrade = Upgrade {
            state: UpgradeState::Succeeded.into(),
            from_schema: "1.1".to_owned(),
            schema: "1.1".to_owned(),
            steps: vec![step],
            ..Upgrade::default()
        };
        assert_eq!(outcome(&upgrade), "succeeded, at 1.1; stopped before 1.2, which contracts");
    }
}
