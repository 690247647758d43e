//! Declaring what became of a half-done migration, after someone has mended the database by hand.

use super::history::{NewEntry, now_ms};
use super::{Connection, Error, Record, Stop, classify};
use crate::files::{Migration, Scripts};
use crate::plan::Outcome;
use grey_core::schema::SchemaVersion;
use tokio_util::sync::CancellationToken;

/// What a half-done migration is declared to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Declared {
    /// All of it is applied.
    Applied,
    /// Nothing of it is left.
    Undone,
}

/// What is declared, by whom.
#[derive(Clone, Debug)]
pub struct Repair<'a> {
    /// The migration; `None`: the only one that is half done.
    pub version: Option<&'a SchemaVersion>,
    /// What became of it.
    pub declared: Declared,
    /// The files.
    pub scripts: &'a Scripts,
    /// Who says so.
    pub actor: &'a str,
    /// What the history names in the place of an upgrade. At most 64 bytes.
    pub id: &'a str,
}

/// The journal's unfinished records, oldest first; none in a database that was never migrated.
///
/// # Errors
/// When the database does not answer, or holds what was not written by a migrator.
pub async fn half_done(connection: &Connection) -> Result<Vec<Record>, Error> {
    match connection.unfinished().await {
        Err(error) if classify::is_missing_table(&error) => Ok(Vec::new()),
        result => result,
    }
}

/// Closes the journal's records of one migration and tells the history what became of it. Returns its version.
///
/// The connection must hold the lock. Nothing but history and journal is changed.
///
/// # Errors
/// With [`Error::Conflict`] when that migration is not half done, more than one is and none is named, or it is declared
/// applied while its file is gone or one of its checks finds a row.
pub async fn repair(connection: &Connection, repair: &Repair<'_>) -> Result<SchemaVersion, Error> {
    connection.verify_lock().await?;
    let records = half_done(connection).await?;
    let version = chosen(&records, repair.version)?;
    let migration = repair.scripts.get(version);
    // Undoing it was begun and came to nothing: the row that applied it still counts.
    let stands = connection.history().await?.applied().contains_key(version);
    let outcome = match (repair.declared, migration) {
        (Declared::Undone, _) => Outcome::Undone,
        (Declared::Applied, Some(migration)) => {
            check(connection, migration).await?;
            if stands { Outcome::Failed } else { Outcome::Applied }
        }
        (Declared::Applied, None) => {
            let text = format!("declare {version} applied: its file is gone, which the history must name");
            return Err(Error::Conflict(text));
        }
    };
    let of_it = records.iter().filter(|record| record.version == *version);
    let entry = NewEntry {
        version,
        description: migration.map(|it| it.description.as_str()).unwrap_or_default(),
        checksum: migration.map(|it| &it.checksum),
        undo_checksum: migration.and_then(|it| it.undo.as_ref()).map(|undo| &undo.checksum),
        actor: repair.actor,
        upgrade: repair.id,
        started_at_ms: of_it.map(|record| record.started_at_ms).min().unwrap_or_else(now_ms),
        outcome,
    };
    let transaction = connection.begin().await?;
    let both = async {
        connection.record(&transaction, &entry).await?;
        connection.finish(&transaction, version).await
    };
    match Box::pin(both).await {
        Ok(()) => connection.commit(transaction).await?,
        Err(error) => {
            connection.roll_back(transaction).await;
            return Err(error);
        }
    }
    Ok(version.clone())
}

/// Which of the half-done migrations is meant.
fn chosen<'a>(records: &'a [Record], named: Option<&'a SchemaVersion>) -> Result<&'a SchemaVersion, Error> {
    let mut versions: Vec<&SchemaVersion> = records.iter().map(|record| &record.version).collect();
    versions.dedup();
    let refuse = |why: String| Err(Error::Conflict(format!("repair: {why}")));
    match (named, versions.as_slice()) {
        (_, []) => refuse("nothing is half done".to_owned()),
        (Some(named), _) if versions.contains(&named) => Ok(named),
        (Some(named), _) => refuse(format!("{named} is not half done")),
        (None, [only]) => Ok(only),
        (None, several) => {
            let several: Vec<_> = several.iter().map(ToString::to_string).collect();
            refuse(format!("{} are half done; name one", several.join(" and ")))
        }
    }
}

/// Runs the migration's checks.
async fn check(connection: &Connection, migration: &Migration) -> Result<(), Error> {
    let stop = Stop::within(connection.timeouts().statement, CancellationToken::new());
    for check in &migration.checks {
        if connection.first_row(connection.db(), &check.sql, check.line, &stop).await?.is_some() {
            let (version, line) = (&migration.schema, check.line);
            let text = format!("declare {version} applied: its check on line {line} finds a row");
            return Err(Error::Conflict(text));
        }
    }
    Ok(())
}
