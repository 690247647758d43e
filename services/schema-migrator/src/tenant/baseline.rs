//! Declaring where a database is that was migrated before this history began.

use super::connect::column;
use super::history::{NewEntry, now_ms, version};
use super::{Connection, Error, classify};
use crate::files::Dialect;
use crate::plan::Outcome;
use grey_core::schema::SchemaVersion;

/// The newest version that a Flyway history says is applied; `None`: there is no such history, or it is empty.
///
/// # Errors
/// When the database does not answer, or Flyway's last migration failed.
pub async fn flyway(connection: &Connection) -> Result<Option<SchemaVersion>, Error> {
    let success = match connection.dialect() {
        Dialect::Postgres => "CASE WHEN success THEN 1 ELSE 0 END",
        Dialect::MySql | Dialect::Sqlite => "CASE WHEN success <> 0 THEN 1 ELSE 0 END",
    };
    // Undone versions have a row of their own, which is newer.
    let query = format!(
        "SELECT version, type AS kind, {success} AS fine FROM flyway_schema_history \
         WHERE version IS NOT NULL ORDER BY installed_rank"
    );
    let attempted = "read Flyway's history";
    let rows = match connection.rows(connection.db(), attempted, connection.sql().plain(query)).await {
        Ok(rows) => rows,
        Err(error) if classify::is_missing_table(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut applied = std::collections::BTreeSet::new();
    let mut failed = None;
    for row in &rows {
        let row = Some(row);
        let version = version(&column::<String>(row, "version")?.replace('_', "."))?;
        let kind: String = column(row, "kind")?;
        if super::history::integer(row, "fine")? == 0 {
            failed = Some(version);
        } else if kind.starts_with("UNDO") || kind == "DELETE" {
            applied.remove(&version);
        } else {
            if failed.as_ref() == Some(&version) {
                failed = None;
            }
            applied.insert(version);
        }
    }
    match failed {
        Some(version) => Err(Error::Conflict(format!(
            "take Flyway's history over: its migration {version} failed; repair that with Flyway first"
        ))),
        None => Ok(applied.pop_last()),
    }
}

/// Declares that the database is at `schema`; without one, where Flyway's history says. Returns where it is.
///
/// The connection must hold the lock.
///
/// # Errors
/// With [`Error::Conflict`] when there is a history already, or neither a schema nor a Flyway history.
pub async fn baseline(
    connection: &Connection,
    schema: Option<&SchemaVersion>,
    actor: &str,
    upgrade: &str,
) -> Result<SchemaVersion, Error> {
    connection.verify_lock().await?;
    let history = connection.history().await?;
    if !history.applied().is_empty() || !history.leftovers.is_empty() {
        return Err(Error::Conflict("declare a baseline: the database has a history already".to_owned()));
    }
    let (schema, description) = match schema {
        Some(schema) => (schema.clone(), "declared"),
        None => match flyway(connection).await? {
            Some(schema) => (schema, "taken over from Flyway"),
            None => {
                let text = "declare a baseline: there is no Flyway history, so name the schema";
                return Err(Error::Conflict(text.to_owned()));
            }
        },
    };
    connection.prepare().await?;
    let entry = NewEntry {
        version: &schema,
        description,
        checksum: None,
        undo_checksum: None,
        actor,
        upgrade,
        started_at_ms: now_ms(),
        outcome: Outcome::Baseline,
    };
    connection.record(connection.db(), &entry).await?;
    Ok(schema)
}
