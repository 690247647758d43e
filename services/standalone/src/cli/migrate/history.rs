//! `grey migrate history` and `drift`: what was done to databases, and whether they are still as that has left them.

use clap::Args;
use grey_proto::schema::{
    AcceptDriftRequest, DriftChange, GetDriftRequest, GetDriftResponse, GetHistoryRequest,
    GetHistoryResponse, ListSchemasRequest, Upgrade,
};
use pbjson_types::Timestamp;
use serde::Serialize;

use super::super::Failure;
use super::super::output::{plain, table, word};
use super::super::session::{Session, pages};
use super::each::each;
use super::{Consent, Tenants, text};

/// Whose databases.
#[derive(Debug, Args)]
pub struct History {
    /// The tenant
    tenant: String,
    /// Only that of this service; else of every service
    service: Option<String>,
}

/// Which databases.
#[derive(Debug, Args)]
pub struct Drift {
    /// The service
    service: String,
    #[command(flatten)]
    tenants: Tenants,
    /// Take what the databases are like now for what their last upgrades have left
    #[arg(long)]
    accept: bool,
    #[command(flatten)]
    consent: Consent,
}

/// The document for programs.
#[derive(Serialize)]
struct Histories {
    histories: Vec<GetHistoryResponse>,
}

/// The document for programs.
#[derive(Serialize)]
struct Drifts {
    databases: Vec<GetDriftResponse>,
}

impl History {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { tenant, service } = self;
        let mut client = session.schemas().await?;
        let services = match service {
            Some(service) => vec![service],
            None => {
                let page = async |page_size, page_token| {
                    let tenants = vec![tenant.clone()];
                    let request = ListSchemasRequest {
                        tenants,
                        page_size,
                        page_token,
                        ..ListSchemasRequest::default()
                    };
                    let response =
                        session.call("list schemas", client.list_schemas(session.request(request))).await?;
                    Ok((response.schemas, response.next_page_token))
                };
                let (schemas, _) = pages(usize::MAX, page).await?;
                schemas.into_iter().map(|schema| schema.service).collect()
            }
        };
        if services.is_empty() {
            return Err(Failure::Input(format!("`{tenant}` has no database; see `grey database list`")));
        }
        let mut histories = Vec::with_capacity(services.len());
        for service in services {
            let attempted = format!("read the history of `{tenant}`'s {service}");
            let request = session.request(GetHistoryRequest { tenant: tenant.clone(), service });
            histories.push(session.call(&attempted, client.get_history(request)).await?);
        }
        let document = Histories { histories };
        session.show(&document, || histories_text(&document.histories))
    }
}

impl Drift {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, accept, consent } = self;
        let selected = tenants.tenants.resolve(session).await?;
        let client = session.schemas().await?;
        let compare = |tenant: String| {
            let (mut client, service) = (client.clone(), service.clone());
            async move {
                let attempted = format!("compare `{tenant}`'s {service}");
                let request = session.request(GetDriftRequest { tenant, service });
                session.call(&attempted, client.get_drift(request)).await
            }
        };
        let mut told = each(&selected, compare).await?;
        let document = Drifts { databases: told.answers.drain(..).collect() };
        session.show(&document, || drift_text(&document.databases))?;
        told.end()?;
        let drifted: Vec<_> = document.databases.iter().filter(|it| has_drifted(it)).collect();
        if !accept {
            let tenants: Vec<_> = drifted.iter().map(|it| it.tenant.clone()).collect();
            return if tenants.is_empty() { Ok(()) } else { Err(Failure::Drifted { tenants }) };
        }
        if drifted.is_empty() {
            return Ok(());
        }
        let attempted = format!("accept what {service} is like");
        consent.ask_about(&attempted, &format!("{} databases", drifted.len()))?;
        let mut client = client.clone();
        for it in drifted {
            let request = AcceptDriftRequest {
                tenant: it.tenant.clone(),
                service: service.clone(),
                reason: consent.reason.clone(),
            };
            let attempted = format!("accept what `{}`'s {service} is like", it.tenant);
            session.call(&attempted, client.accept_drift(session.request(request))).await?;
        }
        Ok(())
    }
}

fn has_drifted(it: &GetDriftResponse) -> bool {
    !it.differences.is_empty() || !it.invalid_indexes.is_empty()
}

fn drift_text(databases: &[GetDriftResponse]) -> String {
    let mut lines = String::new();
    for it in databases {
        let schema = if it.schema.is_empty() { "nothing" } else { it.schema.as_str() };
        let head = format!("{} {} at {schema}", it.tenant, it.service);
        let what = match (&it.left_at, has_drifted(it)) {
            (None, _) => "nothing is known to compare with; the next upgrade keeps it".to_owned(),
            (Some(_), false) => "as it was left".to_owned(),
            (Some(at), true) => format!("DRIFTED since {}", time(Some(at))),
        };
        lines.push_str(&plain(&format!("{head}: {what}")));
        lines.push('\n');
        for difference in &it.differences {
            let object = if difference.object.is_empty() { "something" } else { difference.object.as_str() };
            let change = match difference.change() {
                DriftChange::Added => "added",
                DriftChange::Removed => "removed",
                DriftChange::Changed | DriftChange::Unspecified => "changed",
            };
            lines.push_str(&format!("  {change:8} {}\n", plain(object)));
        }
        for index in &it.invalid_indexes {
            lines.push_str(&format!("  invalid  {}\n", plain(index)));
        }
    }
    lines
}

fn histories_text(histories: &[GetHistoryResponse]) -> String {
    let texts: Vec<_> = histories.iter().map(history_text).collect();
    texts.join("\n")
}

fn history_text(history: &GetHistoryResponse) -> String {
    let mut lines = plain(&format!("{} {}", history.tenant, history.service));
    lines.push('\n');
    if history.entries.is_empty() {
        lines.push_str("no migration was ever run here\n");
    } else {
        let rows = history.entries.iter().map(|it| {
            [
                it.schema.clone(),
                word(it.outcome().as_str_name(), "HISTORY_OUTCOME_"),
                it.description.clone(),
                time(it.ended_at.as_ref()),
                it.actor.clone(),
                it.checksum.chars().take(12).collect(),
            ]
        });
        lines.push_str(&table(["SCHEMA", "OUTCOME", "WHAT", "WHEN", "WHO", "CHECKSUM"], rows));
    }
    if !history.upgrades.is_empty() {
        let rows = history.upgrades.iter().map(|it: &Upgrade| {
            [
                it.id.clone(),
                text::state(it.state()),
                text::way(&it.from_schema, &it.schema),
                time(it.ended_at.as_ref()),
                it.actor.clone(),
                it.reason.clone(),
                it.error.clone(),
            ]
        });
        lines.push('\n');
        lines.push_str(&table(["UPGRADE", "STATE", "WAY", "ENDED", "WHO", "REASON", "ERROR"], rows));
    }
    lines
}

/// A moment, as in `2026-11-30T17:09:06Z`; empty: none.
fn time(at: Option<&Timestamp>) -> String {
    let Some(at) = at else { return String::new() };
    let text = serde_json::to_value(Timestamp { seconds: at.seconds, nanos: 0 });
    text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::schema::{DriftDifference, HistoryEntry, UpgradeState};

    #[test]
    fn drift_is_told_object_by_object() {
        let left_at = Some(Timestamp { seconds: 1_700_000_000, nanos: 0 });
        let difference = |object: &str, change: DriftChange| DriftDifference {
            object: object.to_owned(),
            change: change.into(),
        };
        let well = GetDriftResponse {
            tenant: "acme".to_owned(),
            service: "orders".to_owned(),
            schema: "1.2".to_owned(),
            left_at,
            ..GetDriftResponse::default()
        };
        let drifted = GetDriftResponse {
            differences: vec![
                difference("items", DriftChange::Changed),
                difference("spare", DriftChange::Added),
                difference("", DriftChange::Changed),
            ],
            invalid_indexes: vec!["public.items_name".to_owned()],
            ..well.clone()
        };
        let unknown = GetDriftResponse { left_at: None, schema: String::new(), ..well.clone() };
        insta::assert_snapshot!(drift_text(&[well, drifted, unknown]), @"
        acme orders at 1.2: as it was left
        acme orders at 1.2: DRIFTED since 2023-11-14T22:13:20+00:00
          changed  items
          added    spare
          changed  something
          invalid  public.items_name
        acme orders at nothing: nothing is known to compare with; the next upgrade keeps it
        ");
    }

    #[test]
    fn a_history_has_files_and_upgrades() {
        let ended_at = Some(Timestamp { seconds: 1_700_000_000, nanos: 5 });
        let entry = HistoryEntry {
            schema: "1.1".to_owned(),
            description: "make notes".to_owned(),
            checksum: "0123456789abcdef".to_owned(),
            outcome: grey_proto::schema::HistoryOutcome::Applied.into(),
            actor: "ann".to_owned(),
            ended_at,
            ..HistoryEntry::default()
        };
        let upgrade = Upgrade {
            id: "u-1".to_owned(),
            state: UpgradeState::Failed.into(),
            from_schema: "1.1".to_owned(),
            schema: "1.1".to_owned(),
            error: "V1.2__x.sql: line 1: no".to_owned(),
            actor: "ann".to_owned(),
            ended_at,
            ..Upgrade::default()
        };
        let history = GetHistoryResponse {
            tenant: "acme".to_owned(),
            service: "orders".to_owned(),
            entries: vec![entry],
            upgrades: vec![upgrade],
        };
        insta::assert_snapshot!(history_text(&history), @"
        acme orders
        SCHEMA  OUTCOME  WHAT        WHEN                       WHO  CHECKSUM
        1.1     applied  make notes  2023-11-14T22:13:20+00:00  ann  0123456789ab

        UPGRADE  STATE   WAY     ENDED                      WHO  REASON  ERROR
        u-1      FAILED  at 1.1  2023-11-14T22:13:20+00:00  ann  -       V1.2__x.sql: line 1: no
        ");
    }
}
