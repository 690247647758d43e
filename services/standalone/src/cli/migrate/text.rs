//! Upgrades, plans and schemas in words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grey_proto::schema::{
    Finding, FindingLevel, PlannedStep, TenantSchema, Upgrade, UpgradeDirection, UpgradePlan, UpgradeState,
    UpgradeStep,
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
    plain(&format!("{state}, {way}{took}{backup}{error}"))
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
    use grey_proto::schema::StepState;
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
    let undo = if step.undoable { "can be undone" } else { "cannot be undone" };
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
            seen.unwrap_or_else(|| "never".to_owned()),
            schema.upgrade.clone(),
            schema.error.clone(),
        ]
    });
    table(["TENANT", "SERVICE", "SCHEMA", "PENDING", "SEEN", "UPGRADE", "ERROR"], rows)
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
