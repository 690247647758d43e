//! Going on after a crash.

use super::script::Script;
use super::{Ended, Failure, Outcome, Worker};
use crate::plan::Direction;
use crate::tenant::{Error, Record};
use grey_core::schema::SchemaVersion;

impl Worker<'_> {
    /// Finishes or takes back one version of which these records are unfinished.
    pub(super) async fn recover(
        &mut self,
        version: &SchemaVersion,
        records: &[Record],
    ) -> Result<Ended, Error> {
        let going = |direction| records.iter().any(|record| record.direction == direction);
        let (up, down) = (going(Direction::Up), going(Direction::Down));
        let direction = if up { Direction::Up } else { Direction::Down };
        let Some(migration) = self.job.scripts.get(version).cloned() else {
            let text = format!("go on with {version}: its file is gone");
            return self.needs_repair(version, version.to_string(), Error::Conflict(text), records).await;
        };
        let Some(script) = Script::of(&migration, direction) else {
            let text = format!("go on undoing {version}: its undo file is gone");
            return self.needs_repair(version, migration.file.clone(), Error::Conflict(text), records).await;
        };
        if up && down {
            let text = "an earlier run of it failed, and taking it back was interrupted";
            return Box::pin(self.back_out(&script, Error::Conflict(text.to_owned()))).await;
        }
        let begun = records.iter().find(|record| record.step == 0);
        if begun.and_then(|record| record.checksum.as_ref()) != Some(script.checksum) {
            let text = format!("go on with {}: it was changed since it was begun", script.file);
            return Box::pin(self.back_out(&script, Error::Conflict(text))).await;
        }
        match Box::pin(self.apply(&script, records)).await {
            Ok(()) => self.ended(Outcome::Succeeded).await,
            Err(error) => Box::pin(self.back_out(&script, error)).await,
        }
    }

    /// Ends without touching anything: the journal keeps what is known.
    pub(super) async fn needs_repair(
        &self,
        version: &SchemaVersion,
        file: String,
        error: Error,
        records: &[Record],
    ) -> Result<Ended, Error> {
        let left = super::back::left(records);
        self.ended(Outcome::NeedsRepair(Failure { version: version.clone(), file, error, left })).await
    }
}
