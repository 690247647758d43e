//! Declaring where a database is that was migrated before this history began.

use super::connect::column;
use super::history::{NewEntry, now_ms, version};
use super::{Connection, Error, classify};
use crate::files::{Dialect, Scripts};
use crate::plan::Outcome;
use grey_core::schema::SchemaVersion;
use std::collections::BTreeSet;

/// Most files that an error names.
const NAMED: usize = 10;

/// Every version that a Flyway history says is applied; `None`: there is no such history, or it is empty.
///
/// # Errors
/// When the database does not answer, or Flyway's last migration failed.
pub async fn flyway(connection: &Connection) -> Result<Option<BTreeSet<SchemaVersion>>, Error> {
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
    let mut applied = BTreeSet::new();
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
            // Whatever came before Flyway's own baseline was there as well.
            applied.insert(version);
        }
    }
    match failed {
        Some(version) => Err(Error::Conflict(format!(
            "take Flyway's history over: its migration {version} failed; repair that with Flyway first"
        ))),
        None => Ok(Some(applied).filter(|applied| !applied.is_empty())),
    }
}

/// The oldest version that a Flyway history knows of, if it began with a baseline: what is older was there before.
async fn flyway_began(connection: &Connection) -> Result<Option<SchemaVersion>, Error> {
    let query = "SELECT version FROM flyway_schema_history WHERE type IN ('BASELINE', 'SQL_BASELINE') \
                 AND version IS NOT NULL ORDER BY installed_rank DESC LIMIT 1";
    let rows = connection.ask("read Flyway's history", query).await?;
    match rows.first() {
        None => Ok(None),
        Some(row) => version(&column::<String>(Some(row), "version")?.replace('_', ".")).map(Some),
    }
}

/// What is declared of a database, by whom.
#[derive(Clone, Debug)]
pub struct Baseline<'a> {
    /// Where it is; `None`: where Flyway's history says.
    pub schema: Option<&'a SchemaVersion>,
    /// The files.
    pub scripts: &'a Scripts,
    /// Files that are accepted never to run, although Flyway's history does not say that they ran.
    pub skip: &'a [String],
    /// Who says so.
    pub actor: &'a str,
    /// What the history names in the place of an upgrade. At most 64 bytes.
    pub id: &'a str,
}

/// Where a database is declared to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declared {
    /// The schema.
    pub schema: SchemaVersion,
    /// Files that will never run here: the one of the schema and all older ones.
    pub covered: Vec<String>,
}

/// Declares that the database is at a schema; without one, where Flyway's history says.
///
/// The connection must hold the lock.
///
/// # Errors
/// With [`Error::Conflict`] when there is a history already, neither a schema nor a Flyway history, no file of the schema,
/// or a file up to it that Flyway has not run and that is not accepted to be skipped.
pub async fn baseline(connection: &Connection, wanted: &Baseline<'_>) -> Result<Declared, Error> {
    connection.verify_lock().await?;
    let refuse = |why: String| Err(Error::Conflict(format!("declare a baseline: {why}")));
    let history = connection.history().await?;
    if !history.applied().is_empty() || !history.leftovers.is_empty() {
        return refuse("the database has a history already".to_owned());
    }
    let flyway = flyway(connection).await?;
    let (schema, description) = match (wanted.schema, &flyway) {
        (Some(schema), _) => (schema.clone(), "declared"),
        (None, Some(applied)) => match applied.last() {
            Some(schema) => (schema.clone(), "taken over from Flyway"),
            None => return refuse("there is no Flyway history, so name the schema".to_owned()),
        },
        (None, None) => return refuse("there is no Flyway history, so name the schema".to_owned()),
    };
    if wanted.scripts.get(&schema).is_none() {
        let newest = wanted.scripts.newest().map_or_else(|| "none".to_owned(), ToString::to_string);
        return refuse(format!(
            "there is no file of {schema}, the newest is of {newest}: give its file, or name another schema"
        ));
    }
    let covered: Vec<_> = wanted.scripts.migrations.iter().filter(|it| it.schema <= schema).collect();
    if let Some(applied) = &flyway {
        let began = flyway_began(connection).await?;
        let gap = |it: &&&std::sync::Arc<crate::files::Migration>| {
            !applied.contains(&it.schema)
                && began.as_ref().is_none_or(|began| it.schema > *began)
                && !wanted.skip.contains(&it.file)
        };
        let gaps: Vec<&str> = covered.iter().filter(gap).map(|it| it.file.as_str()).collect();
        if !gaps.is_empty() {
            let shown = gaps.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            let more =
                if gaps.len() > NAMED { format!(" and {} more", gaps.len() - NAMED) } else { String::new() };
            return refuse(format!(
                "Flyway has not run {shown}{more}, which would never run here: run them with Flyway first, or accept \
                 each by name (--skip FILE) if what it does is in the database"
            ));
        }
    }
    connection.prepare().await?;
    let entry = NewEntry {
        version: &schema,
        description,
        checksum: None,
        undo_checksum: None,
        actor: wanted.actor,
        upgrade: wanted.id,
        started_at_ms: now_ms(),
        outcome: Outcome::Baseline,
    };
    connection.record(connection.db(), &entry).await?;
    Ok(Declared { schema, covered: covered.into_iter().map(|it| it.file.clone()).collect() })
}
