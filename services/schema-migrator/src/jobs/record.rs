//! An upgrade as a row and as a message.

use super::database::{Error, column};
use grey_core::change::Principal;
use grey_proto::schema::{
    Flip, FlipState, Provision, Target, Upgrade, UpgradeDirection, UpgradeOptions, UpgradeState, UpgradeStep,
};
use pbjson_types::Timestamp;
use sea_orm::QueryResult;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

const TABLE: &str = "upgrades";

/// One upgrade with what only the migrator needs of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What callers see.
    pub upgrade: Upgrade,
    /// Who asked for it, and in which role: whatever follows from it is done on their behalf.
    pub asker: Principal,
    /// What it may do.
    pub options: UpgradeOptions,
    /// The database server, for the limit per server.
    pub server: String,
    /// Counts the changes of the row.
    pub change: i64,
    /// What was asked for, to recognise a repeated request.
    pub(super) request_hash: String,
}

/// What an upgrade's change looks like to those who follow it.
pub(super) type Changed = Arc<Job>;

pub(super) fn state_word(state: UpgradeState) -> &'static str {
    match state {
        UpgradeState::Unspecified | UpgradeState::Queued => "queued",
        UpgradeState::Running => "running",
        UpgradeState::Succeeded => "succeeded",
        UpgradeState::Failed => "failed",
        UpgradeState::Cancelled => "cancelled",
        UpgradeState::NeedsRepair => "needs_repair",
    }
}

fn state_of(word: &str) -> Option<UpgradeState> {
    [
        UpgradeState::Queued,
        UpgradeState::Running,
        UpgradeState::Succeeded,
        UpgradeState::Failed,
        UpgradeState::Cancelled,
        UpgradeState::NeedsRepair,
    ]
    .into_iter()
    .find(|state| state_word(*state) == word)
}

/// Whether an upgrade in this state changes no more.
#[must_use]
pub fn has_ended(state: UpgradeState) -> bool {
    !matches!(state, UpgradeState::Unspecified | UpgradeState::Queued | UpgradeState::Running)
}

pub(super) fn flip_word(flip: Option<&Flip>) -> &'static str {
    match flip.map(Flip::state) {
        None => "none",
        Some(FlipState::Unspecified | FlipState::Pending) => "pending",
        Some(FlipState::Done) => "done",
        Some(FlipState::Refused) => "refused",
    }
}

/// A message as text for a column.
pub(super) fn json(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("messages of the contract have no maps with odd keys")
}

fn parsed<T: DeserializeOwned>(row: &QueryResult, name: &str) -> Result<T, Error> {
    let text: String = column(row, TABLE, name)?;
    serde_json::from_str(&text)
        .map_err(|error| Error::Corrupt { table: TABLE, why: format!("column {name}: {error}") })
}

fn parsed_if_any<T: DeserializeOwned>(row: &QueryResult, name: &str) -> Result<Option<T>, Error> {
    let text: Option<String> = column(row, TABLE, name)?;
    let corrupt =
        |error: serde_json::Error| Error::Corrupt { table: TABLE, why: format!("column {name}: {error}") };
    text.map(|text| serde_json::from_str(&text).map_err(corrupt)).transpose()
}

/// Milliseconds since the epoch as a message.
pub(crate) fn timestamp(ms: i64) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1_000)).unwrap_or(0) * 1_000_000;
    Timestamp { seconds: ms.div_euclid(1_000), nanos }
}

/// Reads a row.
pub(super) fn read(row: &QueryResult) -> Result<Job, Error> {
    let text = |name: &str| column::<String>(row, TABLE, name);
    let time = |name: &str| Ok(column::<Option<i64>>(row, TABLE, name)?.map(timestamp));
    let word = text("state")?;
    let corrupt = |why: String| Error::Corrupt { table: TABLE, why };
    let state = state_of(&word).ok_or_else(|| corrupt(format!("`{word}` is no state")))?;
    let direction = match text("direction")?.as_str() {
        "down" => UpgradeDirection::Down,
        _ => UpgradeDirection::Up,
    };
    let flip: Option<Flip> = parsed_if_any(row, "flip")?;
    let provision: Option<Provision> = parsed_if_any(row, "provision")?;
    let attempts: i32 = column(row, TABLE, "attempts")?;
    let steps: Vec<UpgradeStep> = parsed(row, "steps")?;
    let asker = Principal { id: text("asker")?, role: text("asker_role")?, via: text("asker_via")? };
    let upgrade = Upgrade {
        id: text("id")?,
        tenant: text("tenant")?,
        service: text("service")?,
        direction: direction.into(),
        target: Some(Target { schema: text("target_schema")?, service_version: text("target_version")? }),
        state: state.into(),
        from_schema: text("from_schema")?,
        schema: text("schema_now")?,
        steps,
        error: text("error")?,
        actor: asker.to_string(),
        reason: text("reason")?,
        created_at: Some(timestamp(column(row, TABLE, "created_ms")?)),
        started_at: time("started_ms")?,
        ended_at: time("ended_ms")?,
        worker: text("worker")?,
        attempts: u32::try_from(attempts).unwrap_or(0),
        backup: text("backup")?,
        flip,
        cancelling: column(row, TABLE, "cancelling")?,
        error_reason: text("reason_code")?,
        provision,
    };
    Ok(Job {
        upgrade,
        asker,
        options: parsed(row, "options")?,
        server: text("server")?,
        change: column(row, TABLE, "change")?,
        request_hash: text("request_hash")?,
    })
}
