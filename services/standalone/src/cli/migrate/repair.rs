//! `grey migrate repair`: what is half done, and what became of it by hand.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use grey_proto::schema::{
    AcceptFileRequest, GetJournalRequest, GetJournalResponse, HalfDone, JournalStep, ListSchemasResponse,
    RepairOutcome, RepairRequest, StepState, UpgradeDirection,
};

use super::super::Failure;
use super::super::output::plain;
use super::super::session::Session;
use super::each::{Told, each};
use super::select::Selected;
use super::{Consent, Tenants, text};

/// Which databases, and what became of what is half done there.
///
/// Without `--as`, only shows it. With it, the journal is closed and the history written, nothing else: mend the database
/// first.
#[derive(Debug, Args)]
pub struct Repair {
    /// The service
    service: String,
    #[command(flatten)]
    tenants: Tenants,
    /// What the half-done migration is now
    #[arg(long = "as", value_enum)]
    outcome: Option<Outcome>,
    /// The migration, where more than one is half done
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    /// Accept that this applied file was changed or is gone; the history keeps that, who said so and why
    #[arg(long, value_name = "FILE", conflicts_with_all = ["outcome", "schema"])]
    accept_checksum: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

/// What became of a migration.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Outcome {
    /// All of it is applied
    Applied,
    /// Nothing of it is left
    Undone,
}

impl Repair {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, outcome, schema, accept_checksum, consent } = self;
        let selected = tenants.tenants.resolve(session).await?;
        if let Some(file) = accept_checksum {
            return accept(session, &service, &selected, &file, &consent).await;
        }
        let mut told = journals(session, &service, &selected).await?;
        let mut half_done: Vec<_> = told.answers.drain(..).flat_map(|answer| answer.half_done).collect();
        half_done.retain(|it| schema.as_ref().is_none_or(|schema| it.schema == *schema));
        let Some(outcome) = outcome else {
            let response = GetJournalResponse { half_done };
            session.show(&response, || journal_text(&response.half_done))?;
            return told.end();
        };
        // What cannot be read is not repaired, and neither is the rest without it having been seen.
        told.end()?;
        let chosen = chosen(&half_done, &service, &selected)?;
        // Standard output is for what comes of it.
        io::stderr().write_all(journal_text(&half_done).as_bytes()).map_err(Failure::Output)?;
        let word = outcome.word();
        consent.ask_about(&format!("declare {word}"), &format!("{} half-done migrations", chosen.len()))?;
        let client = session.schemas().await?;
        let declare = |tenant: String| {
            let (mut client, service, reason) = (client.clone(), service.clone(), consent.reason.clone());
            let schema = chosen.get(&tenant).cloned().unwrap_or_default();
            async move {
                let attempted = format!("declare {schema} of `{tenant}`'s {service} {word}");
                let outcome = RepairOutcome::from(outcome).into();
                let request = RepairRequest { tenant, service, schema, outcome, reason };
                session.call(&attempted, client.repair(session.request(request))).await
            }
        };
        let repaired = Selected { tenants: chosen.keys().cloned().collect(), named: true };
        let mut told = each(&repaired, declare).await?;
        let schemas = told.answers.drain(..).filter_map(|answer| answer.schema).collect();
        let response = ListSchemasResponse { schemas, next_page_token: String::new() };
        if !response.schemas.is_empty() || session.json() {
            session.show(&response, || text::schemas(&response.schemas, text::now()))?;
        }
        told.end()
    }
}

/// Accepts a file as it is now, in each database.
async fn accept(
    session: &Session,
    service: &str,
    selected: &Selected,
    file: &str,
    consent: &Consent,
) -> Result<(), Failure> {
    if consent.reason.trim().is_empty() {
        let text = format!("accept {file}: say why, by --reason; the history keeps it");
        return Err(Failure::Input(text));
    }
    consent.ask(&format!("accept {file}"), selected)?;
    let client = session.schemas().await?;
    let accept = |tenant: String| {
        let (mut client, service) = (client.clone(), service.to_owned());
        let (file, reason) = (file.to_owned(), consent.reason.clone());
        async move {
            let attempted = format!("accept {file} for `{tenant}`'s {service}");
            let request = AcceptFileRequest { tenant, service, file, reason };
            session.call(&attempted, client.accept_file(session.request(request))).await
        }
    };
    let mut told = each(selected, accept).await?;
    let schemas = told.answers.drain(..).filter_map(|answer| answer.schema).collect();
    let response = ListSchemasResponse { schemas, next_page_token: String::new() };
    if !response.schemas.is_empty() || session.json() {
        session.show(&response, || text::schemas(&response.schemas, text::now()))?;
    }
    told.end()
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Undone => "undone",
        }
    }
}

impl From<Outcome> for RepairOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied => Self::Applied,
            Outcome::Undone => Self::Undone,
        }
    }
}

async fn journals(
    session: &Session,
    service: &str,
    selected: &Selected,
) -> Result<Told<GetJournalResponse>, Failure> {
    let client = session.schemas().await?;
    let read = |tenant: String| {
        let (mut client, service) = (client.clone(), service.to_owned());
        async move {
            let attempted = format!("read the journal of `{tenant}`'s {service}");
            let request = session.request(GetJournalRequest { tenant, service });
            session.call(&attempted, client.get_journal(request)).await
        }
    };
    each(selected, read).await
}

/// The half-done migration of each tenant.
fn chosen(
    half_done: &[HalfDone],
    service: &str,
    selected: &Selected,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut chosen = BTreeMap::new();
    for it in half_done {
        if let Some(other) = chosen.insert(it.tenant.clone(), it.schema.clone()) {
            let (tenant, schema) = (&it.tenant, &it.schema);
            let text =
                format!("repair {service}: {other} and {schema} of `{tenant}` are half done; say --schema");
            return Err(Failure::Input(text));
        }
    }
    let well: Vec<_> = selected.tenants.iter().filter(|tenant| !chosen.contains_key(*tenant)).collect();
    match well.first() {
        Some(tenant) if selected.named => {
            Err(Failure::Input(format!("repair {service}: nothing is half done in `{tenant}`'s database")))
        }
        _ if chosen.is_empty() => {
            Err(Failure::Input(format!("repair {service}: nothing is half done in any of the databases")))
        }
        _ => Ok(chosen),
    }
}

fn journal_text(half_done: &[HalfDone]) -> String {
    if half_done.is_empty() {
        return "nothing is half done\n".to_owned();
    }
    let mut text = String::new();
    for it in half_done {
        let doing = if it.direction() == UpgradeDirection::Down { "undoing" } else { "applying" };
        let HalfDone { tenant, service, schema, description, upgrade, actor, .. } = it;
        let head =
            format!("{tenant} {service}: {doing} {schema} {description}, upgrade {upgrade} of {actor}");
        text.push_str(&plain(&head));
        text.push('\n');
        if it.file_changed {
            text.push_str(
                "  its file was changed since, or is gone; lines are those of the file that was run\n",
            );
        }
        for step in &it.steps {
            text.push_str(&step_text(step));
        }
    }
    text
}

fn step_text(step: &JournalStep) -> String {
    let state = match step.state() {
        StepState::Done => "done",
        StepState::Running => "UNKNOWN",
        _ => "not done",
    };
    let file = if step.direction() == UpgradeDirection::Down { "undo line" } else { "line" };
    format!("  {state:8}  {}\n", plain(&format!("{file} {}: {}", step.line, step.statement)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    fn half_done(tenant: &str, schema: &str) -> HalfDone {
        let step = |direction: UpgradeDirection, line, state: StepState, statement: &str| JournalStep {
            direction: direction.into(),
            line,
            state: state.into(),
            statement: statement.to_owned(),
        };
        use UpgradeDirection::{Down, Up};
        HalfDone {
            tenant: tenant.to_owned(),
            service: "shop".to_owned(),
            schema: schema.to_owned(),
            description: "add notes".to_owned(),
            direction: Up.into(),
            upgrade: "u-1".to_owned(),
            actor: "ann".to_owned(),
            steps: vec![
                step(Up, 1, StepState::Done, "CREATE TABLE notes (id INT)"),
                step(Up, 2, StepState::Running, "ALTER TABLE items\n  ADD note INT"),
                step(Up, 4, StepState::Waiting, "CREATE INDEX x ON notes (id)"),
                step(Down, 1, StepState::Done, "DROP TABLE notes"),
            ],
            ..HalfDone::default()
        }
    }

    #[test]
    fn a_journal_is_told_statement_by_statement() {
        insta::assert_snapshot!(journal_text(&[half_done("acme", "1.2")]), @"
        acme shop: applying 1.2 add notes, upgrade u-1 of ann
          done      line 1: CREATE TABLE notes (id INT)
          UNKNOWN   line 2: ALTER TABLE items   ADD note INT
          not done  line 4: CREATE INDEX x ON notes (id)
          done      undo line 1: DROP TABLE notes
        ");
    }

    #[test]
    fn one_migration_of_each_tenant_is_repaired() {
        let selected = |named, tenants: &[&str]| Selected {
            tenants: tenants.iter().map(|&tenant| tenant.to_owned()).collect(),
            named,
        };
        let text = |failure: Failure| failure.to_string();
        let one = [half_done("acme", "1.2")];
        assert_eq!(chosen(&one, "shop", &selected(true, &["acme"])).unwrap().len(), 1);
        assert_eq!(chosen(&one, "shop", &selected(false, &["acme", "bluth"])).unwrap().len(), 1);
        let refused = chosen(&one, "shop", &selected(true, &["acme", "bluth"])).unwrap_err();
        assert!(text(refused).contains("`bluth`"));
        let refused = chosen(&[], "shop", &selected(false, &["acme"])).unwrap_err();
        assert!(text(refused).contains("any of the databases"));
        let two = [half_done("acme", "1.2"), half_done("acme", "1.3")];
        let refused = chosen(&two, "shop", &selected(true, &["acme"])).unwrap_err();
        assert!(text(refused).contains("1.2 and 1.3"));
    }
}
