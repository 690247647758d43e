//! Running repeatable files: after the versions, whenever their text has changed.
//!
//! They keep no journal. Such a file can be run again by its nature, and the history's row, which comes last, tells whether
//! it was run to its end.

use super::{Ended, Failure, Progress, Worker};
use crate::files::{Repeatable, Step};
use crate::plan::Outcome;
use crate::tenant::{Error, NewEntry, Verified, now_ms};
use grey_core::schema::SchemaVersion;
use sea_orm::ConnectionTrait;

impl Worker<'_> {
    /// Runs a repeatable file on a database that is at `schema`.
    ///
    /// # Errors
    /// With [`Error::Unreachable`] when the connection is lost; with any other, a file that is one transaction has had no
    /// effect.
    pub(super) async fn repeat(&mut self, it: &Repeatable, schema: &SchemaVersion) -> Result<(), Error> {
        self.stop.check()?;
        self.connection.verify_lock().await?;
        self.connection.renew().await?;
        self.connection.limit(it.timeouts).await?;
        let entry = NewEntry {
            version: schema,
            description: &it.description,
            checksum: Some(&it.checksum),
            undo_checksum: None,
            actor: &self.actor,
            upgrade: &self.upgrade,
            started_at_ms: now_ms(),
            outcome: Outcome::Repeated,
        };
        if it.transactional && self.rolls_back(&it.steps).await? {
            let transaction = self.connection.begin().await?;
            match Box::pin(self.repeat_on(&transaction, it, &entry, false)).await {
                Ok(verified) => self.connection.commit_verified(transaction, verified).await?,
                Err(error) => {
                    self.connection.roll_back(transaction).await;
                    return Err(error);
                }
            }
        } else {
            let _verified = Box::pin(self.repeat_on(self.connection.db(), it, &entry, true)).await?;
        }
        self.tell(Progress::Repeated { description: it.description.clone(), error: None });
        Ok(())
    }

    /// Runs its statements and tells the history. `apart`: each is a transaction of its own.
    async fn repeat_on(
        &self,
        on: &impl ConnectionTrait,
        it: &Repeatable,
        entry: &NewEntry<'_>,
        apart: bool,
    ) -> Result<Verified, Error> {
        for step in &it.steps {
            let Step::Sql(statement) = step else {
                return Err(Error::Conflict(format!("the step on line {} cannot be repeated", step.line())));
            };
            if apart {
                // The one before may have led elsewhere.
                self.connection.verify_lock().await?;
            }
            self.connection.execute(on, &statement.sql, statement.line, &self.stop).await?;
        }
        let verified = self.connection.verified(on).await?;
        self.connection.record(on, entry).await?;
        Ok(verified)
    }

    /// Takes back what the upgrade has done before a repeatable file failed.
    ///
    /// # Errors
    /// With [`Error::Unreachable`] when the connection is lost.
    pub(super) async fn not_repeated(
        &mut self,
        it: &Repeatable,
        schema: &SchemaVersion,
        error: Error,
    ) -> Result<Ended, Error> {
        if error.ends_connection() {
            return Err(error);
        }
        self.tell(Progress::Repeated { description: it.description.clone(), error: Some(error.clone()) });
        self.take_time();
        let mut failure =
            Failure { version: schema.clone(), file: it.file.clone(), error, left: String::new() };
        if !it.transactional {
            failure.left = "its statements before that one stay".to_owned();
        }
        Box::pin(self.take_back(failure)).await
    }
}
