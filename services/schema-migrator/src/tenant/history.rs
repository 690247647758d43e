//! The history in a tenant's database: what was applied, undone, declared and tried.

use super::connect::column;
use super::{Connection, Error, Names, Sql, classify};
use crate::files::{Checksum, Dialect};
use crate::plan::{Direction, Entry, History, Leftover, Outcome};
use grey_core::schema::SchemaVersion;
use sea_orm::{ConnectionTrait, QueryResult};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// A row to be written into the history.
#[derive(Clone, Debug)]
pub(crate) struct NewEntry<'a> {
    pub(crate) version: &'a SchemaVersion,
    pub(crate) description: &'a str,
    pub(crate) checksum: Option<&'a Checksum>,
    pub(crate) undo_checksum: Option<&'a Checksum>,
    pub(crate) actor: &'a str,
    pub(crate) upgrade: &'a str,
    pub(crate) started_at_ms: i64,
    pub(crate) outcome: Outcome,
}

/// A row of the history with everything that it keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entered {
    /// The version.
    pub version: SchemaVersion,
    /// What it is about: the migration's description, or why it was accepted.
    pub description: String,
    /// Of the file.
    pub checksum: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Who asked for it.
    pub actor: String,
    /// The upgrade that wrote it.
    pub upgrade: String,
    /// In milliseconds since the epoch.
    pub started_at_ms: i64,
    /// In milliseconds since the epoch.
    pub ended_at_ms: i64,
}

/// Reads the whole history, oldest first; none in a database that was never migrated.
///
/// # Errors
/// When the database does not answer, or holds what was not written by a migrator.
pub async fn entered(connection: &Connection) -> Result<Vec<Entered>, Error> {
    let query = format!(
        "SELECT version, description, checksum, outcome, actor, upgrade, started_at, ended_at FROM {} ORDER BY seq",
        connection.own_table(&connection.names.history)
    );
    let rows = match connection.ask("read the migration history", query).await {
        Ok(rows) => rows,
        Err(error) if classify::is_missing_table(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let read = |row: &QueryResult| {
        let row = Some(row);
        Ok(Entered {
            version: version(&column::<String>(row, "version")?)?,
            description: column(row, "description")?,
            checksum: column(row, "checksum")?,
            outcome: outcome(&column::<String>(row, "outcome")?)?,
            actor: column(row, "actor")?,
            upgrade: column(row, "upgrade")?,
            started_at_ms: column(row, "started_at")?,
            ended_at_ms: column(row, "ended_at")?,
        })
    };
    rows.iter().map(read).collect()
}

/// The present time, in milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Connection {
    /// Makes the history and the journal where they are missing.
    ///
    /// # Errors
    /// With [`Error::Refused`] when the migrator may not make tables.
    pub async fn prepare(&self) -> Result<(), Error> {
        let sql = self.sql();
        let (counter, engine, text) = (sql.counter(), sql.engine(), sql.long_text());
        let Names { history, journal } = &self.names;
        let (own_history, own_journal) = (self.own_table(history), self.own_table(journal));
        let tables = [
            format!(
                "CREATE TABLE IF NOT EXISTS {own_history} (seq {counter}, version VARCHAR(128) NOT NULL, \
                 description VARCHAR(255) NOT NULL, checksum VARCHAR(64), undo_checksum VARCHAR(64), \
                 actor VARCHAR(255) NOT NULL, upgrade VARCHAR(64) NOT NULL, started_at BIGINT NOT NULL, \
                 ended_at BIGINT NOT NULL, outcome VARCHAR(16) NOT NULL, catalog {text}){engine}"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {own_journal} (seq {counter}, upgrade VARCHAR(64) NOT NULL, \
                 actor VARCHAR(255) NOT NULL, version VARCHAR(128) NOT NULL, direction VARCHAR(8) NOT NULL, \
                 step INTEGER NOT NULL, state VARCHAR(16) NOT NULL, line INTEGER NOT NULL, \
                 checksum VARCHAR(64), fingerprint VARCHAR(64), reached TEXT, unfinished INTEGER NOT NULL, \
                 started_at BIGINT NOT NULL, changed_at BIGINT NOT NULL){engine}"
            ),
        ];
        let present = self.own_tables().await?;
        for (name, table) in [history, journal].into_iter().zip(tables) {
            if present.contains(name) {
                continue;
            }
            let attempted = "make the migration history";
            self.run(&self.db, attempted, sql.plain(table)).await.map_err(|error| {
                if !classify::is_want_of_rights(&error) {
                    return error;
                }
                Error::Refused { attempted, why: error.to_string() }
            })?;
        }
        Ok(())
    }

    async fn own_tables(&self) -> Result<Vec<String>, Error> {
        let sql = self.sql();
        let (history, journal) = (sql.literal(&self.names.history), sql.literal(&self.names.journal));
        let query = match self.target.dialect {
            // By the index of names: the same tables are in the schemas of thousands of other tenants.
            Dialect::Postgres => format!(
                "SELECT relname::text AS name FROM pg_class WHERE relnamespace = {}::regnamespace \
                 AND relkind IN ('r', 'p') AND relname IN ({history}, {journal})",
                sql.literal(&sql.quoted(self.place()))
            ),
            Dialect::MySql => format!(
                "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = {} \
                 AND table_name IN ({history}, {journal})",
                sql.literal(self.place())
            ),
            Dialect::Sqlite => format!(
                "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name IN ({history}, {journal})"
            ),
        };
        let rows = self.ask("look for the migration history", query).await?;
        rows.iter().map(|row| column(Some(row), "name")).collect()
    }

    /// Reads the history, in one query. A database without one was never migrated.
    ///
    /// # Errors
    /// When the database does not answer, or holds what was not written by a migrator.
    pub async fn history(&self) -> Result<History, Error> {
        Ok(self.present_history().await?.unwrap_or_default())
    }

    async fn present_history(&self) -> Result<Option<History>, Error> {
        let query = query(self.sql(), &self.names, self.place());
        match self.ask("read the migration history", query).await {
            Ok(rows) => read(rows.iter()).map(Some),
            Err(error) if classify::is_missing_table(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the history, and makes it and the journal where they are missing.
    ///
    /// # Errors
    /// As [`Self::history`] and [`Self::prepare`].
    pub(crate) async fn prepared_history(&self) -> Result<History, Error> {
        if let Some(history) = self.present_history().await? {
            return Ok(history);
        }
        self.prepare().await?;
        self.history().await
    }

    /// Writes a row, as part of a transaction or by itself.
    pub(crate) async fn record(&self, on: &impl ConnectionTrait, entry: &NewEntry<'_>) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO {} (version, description, checksum, undo_checksum, actor, upgrade, started_at, \
             ended_at, outcome) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            self.own_table(&self.names.history)
        );
        let text = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        let checksum = |it: Option<&Checksum>| it.map(|it| it.as_str().to_owned());
        let values = [
            entry.version.to_string().into(),
            text(entry.description, 255).into(),
            checksum(entry.checksum).into(),
            checksum(entry.undo_checksum).into(),
            text(entry.actor, 255).into(),
            text(entry.upgrade, 64).into(),
            entry.started_at_ms.into(),
            now_ms().into(),
            entry.outcome.as_str().into(),
        ];
        self.run(on, "write the migration history", self.sql().with(&sql, values)).await?;
        Ok(())
    }

    /// Versions that `upgrade` has applied and not undone, or undone and not applied again: newest change last.
    pub(crate) async fn changed_by(&self, upgrade: &str) -> Result<Vec<(SchemaVersion, Outcome)>, Error> {
        let sql = format!(
            "SELECT version, outcome, upgrade FROM {} ORDER BY seq",
            self.own_table(&self.names.history)
        );
        let rows = self.rows(&self.db, "read the migration history", self.sql().plain(sql)).await?;
        let mut changed: Vec<(SchemaVersion, Outcome)> = Vec::new();
        for row in &rows {
            let outcome = outcome(&column::<String>(Some(row), "outcome")?)?;
            if !matches!(outcome, Outcome::Applied | Outcome::Undone) {
                continue;
            }
            let version = version(&column::<String>(Some(row), "version")?)?;
            let before = changed.iter().position(|(other, _)| *other == version);
            let taken_back = before.map(|index| changed.remove(index)).is_some_and(|(_, was)| was != outcome);
            if !taken_back && column::<String>(Some(row), "upgrade")? == upgrade {
                changed.push((version, outcome));
            }
        }
        Ok(changed)
    }
}

/// One query for a history and what its journal has unfinished, of the schema or database `place`.
pub(super) fn query(sql: Sql, names: &Names, place: &str) -> String {
    let place = sql.quoted(place);
    let Names { history, journal } = names;
    // The journal's marks come last; their order does not matter.
    format!(
        "SELECT 0 AS kind, seq, version, checksum, undo_checksum, outcome AS what, ended_at AS at_ms, 0 AS step, \
         description AS about \
         FROM {place}.{history} UNION ALL \
         SELECT 1 AS kind, seq, version, state, NULL, direction, changed_at, step, NULL \
         FROM {place}.{journal} WHERE unfinished = 1 ORDER BY 1, 2"
    )
}

/// Reads the rows of [`query`].
pub(super) fn read<'a>(rows: impl Iterator<Item = &'a QueryResult>) -> Result<History, Error> {
    let mut history = History::default();
    let mut leftovers: BTreeMap<(SchemaVersion, &str), u32> = BTreeMap::new();
    for row in rows {
        let row = Some(row);
        let version = version(&column::<String>(row, "version")?)?;
        let what: String = column(row, "what")?;
        let checksum: Option<String> = column(row, "checksum")?;
        let kind = integer(row, "kind")?;
        if kind == 1 {
            let direction = if what == "up" { "up" } else { "down" };
            let done = leftovers.entry((version, direction)).or_default();
            *done += u32::from(checksum.as_deref() == Some("done"));
            continue;
        }
        let read = |text: Option<String>| {
            let parsed = text.map(|text| text.parse::<Checksum>()).transpose();
            parsed.map_err(|error| Error::Corrupt(error.to_string()))
        };
        history.entries.push(Entry {
            version,
            checksum: read(checksum)?,
            undo_checksum: read(column(row, "undo_checksum")?)?,
            outcome: outcome(&what)?,
            description: column(row, "about")?,
            at_ms: u64::try_from(column::<i64>(row, "at_ms")?).unwrap_or(0),
        });
    }
    for ((version, direction), steps_done) in leftovers {
        let direction = if direction == "up" { Direction::Up } else { Direction::Down };
        history.leftovers.push(Leftover { version, direction, steps_done });
    }
    Ok(history)
}

/// A number whose width depends on the dialect.
pub(super) fn integer(row: Option<&QueryResult>, name: &str) -> Result<i64, Error> {
    column::<i64>(row, name).or_else(|_| column::<i32>(row, name).map(i64::from))
}

pub(super) fn version(text: &str) -> Result<SchemaVersion, Error> {
    SchemaVersion::new(text).map_err(|error| Error::Corrupt(error.to_string()))
}

fn outcome(text: &str) -> Result<Outcome, Error> {
    Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or_else(|| {
        Error::Corrupt(format!("`{}` is no outcome", text.chars().take(32).collect::<String>()))
    })
}
