//! The journal in a tenant's database: which steps of a migration that is not one transaction are done.
//!
//! Each step of such a migration has one record. A record is written by itself before a step that commits by itself,
//! and in the step's own transaction otherwise. Records stay unfinished until the history tells the outcome; unfinished
//! records without a session that holds the lock are what a crash leaves behind.

use super::connect::column;
use super::history::{integer, now_ms, version};
use super::{Connection, Error};
use crate::files::Checksum;
use crate::plan::Direction;
use grey_core::schema::SchemaVersion;
use sea_orm::ConnectionTrait;

/// How far a step is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mark {
    /// Step 0: the migration was begun. Its fingerprint is that of the whole catalog before.
    Begun,
    /// The step was begun, and commits by itself.
    Started,
    /// The step is done.
    Done,
}

impl Mark {
    /// The name, as in the journal table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Started => "started",
            Self::Done => "done",
        }
    }
}

/// One record of the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The upgrade that wrote it.
    pub upgrade: String,
    /// Who asked for that.
    pub actor: String,
    /// The migration's version.
    pub version: SchemaVersion,
    /// Whether it is applied or undone.
    pub direction: Direction,
    /// The step's number within its file, counted from 1; 0: the migration as a whole.
    pub step: u32,
    /// How far it is.
    pub mark: Mark,
    /// The line that the step begins on.
    pub line: u32,
    /// Checksum of the file; only with step 0.
    pub checksum: Option<Checksum>,
    /// What the catalog was like before: all of it with step 0, what the step names otherwise.
    pub fingerprint: Option<String>,
    /// The last key that a backfill has done, in a form of its own; of a build of an index without a name, the indexes that
    /// were invalid before.
    pub reached: Option<String>,
    /// When the step was first begun, in milliseconds since the epoch.
    pub started_at_ms: i64,
}

impl Connection {
    /// Reads the unfinished records, oldest first.
    ///
    /// # Errors
    /// When the database does not answer, or holds what was not written by a migrator.
    pub async fn unfinished(&self) -> Result<Vec<Record>, Error> {
        let query = format!(
            "SELECT * FROM {} WHERE unfinished = 1 ORDER BY seq",
            self.own_table(&self.names.journal)
        );
        let rows = self.ask("read the journal", query).await?;
        let mut records = Vec::new();
        for row in &rows {
            let row = Some(row);
            let checksum: Option<String> = column(row, "checksum")?;
            let checksum = checksum.map(|text| text.parse()).transpose();
            let mark: String = column(row, "state")?;
            let direction: String = column(row, "direction")?;
            let number = |name| integer(row, name).map(|number| u32::try_from(number).unwrap_or(0));
            records.push(Record {
                upgrade: column(row, "upgrade")?,
                actor: column(row, "actor")?,
                version: version(&column::<String>(row, "version")?)?,
                direction: if direction == "up" { Direction::Up } else { Direction::Down },
                step: number("step")?,
                mark: match mark.as_str() {
                    "begun" => Mark::Begun,
                    "done" => Mark::Done,
                    _ => Mark::Started,
                },
                line: number("line")?,
                checksum: checksum.map_err(|_| Error::Corrupt("a checksum in the journal".to_owned()))?,
                fingerprint: column(row, "fingerprint")?,
                reached: column(row, "reached")?,
                started_at_ms: column(row, "started_at")?,
            });
        }
        Ok(records)
    }

    /// Writes a record, in the place of the step's former one.
    ///
    /// # Errors
    /// When the database does not answer or refuses.
    pub(crate) async fn journal(&self, on: &impl ConnectionTrait, record: &Record) -> Result<(), Error> {
        let attempted = "write the journal";
        let journal = self.own_table(&self.names.journal);
        let (version, direction) = (record.version.to_string(), record.direction.as_str());
        let (step, line) = (number(record.step), number(record.line));
        let update = format!(
            "UPDATE {journal} SET state = $1, fingerprint = $2, reached = $3, changed_at = $4 \
             WHERE unfinished = 1 AND version = $5 AND direction = $6 AND step = $7"
        );
        let values = [
            record.mark.as_str().into(),
            record.fingerprint.clone().into(),
            record.reached.clone().into(),
            now_ms().into(),
            version.clone().into(),
            direction.into(),
            step.into(),
        ];
        if self.run(on, attempted, self.sql().with(&update, values)).await? > 0 {
            return Ok(());
        }
        let insert = format!(
            "INSERT INTO {journal} (upgrade, actor, version, direction, step, state, line, checksum, fingerprint, \
             reached, unfinished, started_at, changed_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $12)"
        );
        let values = [
            record.upgrade.chars().take(64).collect::<String>().into(),
            record.actor.chars().take(255).collect::<String>().into(),
            version.into(),
            direction.into(),
            step.into(),
            record.mark.as_str().into(),
            line.into(),
            record.checksum.as_ref().map(|it| it.as_str().to_owned()).into(),
            record.fingerprint.clone().into(),
            record.reached.clone().into(),
            record.started_at_ms.into(),
            now_ms().into(),
        ];
        self.run(on, attempted, self.sql().with(&insert, values)).await?;
        Ok(())
    }

    /// Takes a step's record away: the database has refused the step, which had no effect.
    pub(crate) async fn forget(&self, record: &Record) -> Result<(), Error> {
        let sql = format!(
            "DELETE FROM {} WHERE unfinished = 1 AND version = $1 AND direction = $2 AND step = $3",
            self.own_table(&self.names.journal)
        );
        let values =
            [record.version.to_string().into(), record.direction.as_str().into(), number(record.step).into()];
        self.run(&self.db, "write the journal", self.sql().with(&sql, values)).await?;
        Ok(())
    }

    /// Finishes the records of a version: the history tells its outcome now.
    pub(crate) async fn finish(
        &self,
        on: &impl ConnectionTrait,
        version: &SchemaVersion,
    ) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {} SET unfinished = 0, changed_at = $1 WHERE unfinished = 1 AND version = $2",
            self.own_table(&self.names.journal)
        );
        let values = [now_ms().into(), version.to_string().into()];
        self.run(on, "write the journal", self.sql().with(&sql, values)).await?;
        Ok(())
    }
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
