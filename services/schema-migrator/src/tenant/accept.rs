//! Accepting that a file which was applied is another one now, or gone.

use super::history::{NewEntry, now_ms};
use super::{Connection, Error};
use crate::files::Scripts;
use crate::plan::Outcome;
use grey_core::schema::SchemaVersion;

/// What is accepted, by whom.
#[derive(Clone, Debug)]
pub struct Accepted<'a> {
    /// The file's name within the service's folder, that of a migration or of its undo file.
    pub file: &'a str,
    /// The files.
    pub scripts: &'a Scripts,
    /// Who says so.
    pub actor: &'a str,
    /// Why, for the history.
    pub reason: &'a str,
    /// What the history names in the place of an upgrade. At most 64 bytes.
    pub id: &'a str,
}

/// Writes into the history that the file, as it is now, is what was applied. Returns its version.
///
/// The connection must hold the lock. Nothing but the history is changed.
///
/// # Errors
/// With [`Error::Conflict`] when the file is of no applied version, or is what was applied already.
pub async fn accept(connection: &Connection, accepted: &Accepted<'_>) -> Result<SchemaVersion, Error> {
    connection.verify_lock().await?;
    let refuse = |why: String| Err(Error::Conflict(format!("accept `{}`: {why}", accepted.file)));
    let history = connection.history().await?;
    if !history.leftovers.is_empty() {
        return refuse("a migration is half done; repair it first".to_owned());
    }
    let of = |file: &str| file == accepted.file;
    let migration = accepted
        .scripts
        .migrations
        .iter()
        .find(|it| of(&it.file) || it.undo.as_ref().is_some_and(|undo| of(&undo.file)));
    let version = match (migration, version_of(accepted.file)) {
        (Some(migration), _) => migration.schema.clone(),
        (None, Some(version)) if accepted.scripts.get(&version).is_none() => version,
        (None, Some(version)) => {
            return refuse(format!("the file of {version} has another name; see `grey migrate validate`"));
        }
        (None, None) => return refuse("it is not the name of a migration, such as V1.1__add.sql".to_owned()),
    };
    let applied = history.applied();
    let Some(entry) = applied.get(&version) else {
        return refuse(format!("{version} is not applied"));
    };
    let checksum = migration.map(|it| &it.checksum);
    let undo_checksum = migration.and_then(|it| it.undo.as_ref()).map(|undo| &undo.checksum);
    if entry.outcome == Outcome::Baseline {
        return refuse(format!("{version} was there before the history began: its file does not matter"));
    }
    if entry.checksum.as_ref() == checksum && entry.undo_checksum.as_ref() == undo_checksum {
        return refuse("it is what was applied".to_owned());
    }
    let new = NewEntry {
        version: &version,
        description: accepted.reason,
        checksum,
        undo_checksum,
        actor: accepted.actor,
        upgrade: accepted.id,
        started_at_ms: now_ms(),
        outcome: Outcome::Accepted,
    };
    connection.record(connection.db(), &new).await?;
    Ok(version)
}

/// The version in the name of a file that need not exist.
fn version_of(file: &str) -> Option<SchemaVersion> {
    let rest = file.strip_prefix(['V', 'U']).filter(|_| file.ends_with(".sql"))?;
    SchemaVersion::new(&rest.split_once("__")?.0.replace('_', ".")).ok()
}
