//! How long statements may wait and run, where a file says so.

use super::{Connection, Error, Timeouts};
use crate::files::{Dialect, FileTimeouts};
use std::sync::PoisonError;

const ATTEMPTED: &str = "set the file's timeouts";

impl Connection {
    /// How long is waited, as the present file says or as configured.
    pub(super) fn limits(&self) -> Timeouts {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has statements wait and run as long as a file says; where it does not say, as configured.
    ///
    /// # Errors
    /// When the database does not answer or refuses.
    pub(crate) async fn limit(&self, file: FileTimeouts) -> Result<(), Error> {
        let Timeouts { connect, lock, statement } = self.timeouts;
        let wanted = Timeouts {
            connect,
            lock: file.lock.unwrap_or(lock),
            statement: file.statement.unwrap_or(statement),
        };
        // What a file has said is said anew for the next one, whatever became of the session between them.
        if wanted == self.limits() && file == FileTimeouts::default() {
            return Ok(());
        }
        let Timeouts { lock, statement, .. } = wanted;
        let seconds = lock.as_secs().max(1);
        let settings = match self.dialect() {
            Dialect::Postgres => vec![
                format!("SET lock_timeout = {}", lock.as_millis()),
                format!("SET statement_timeout = {}", statement.as_millis()),
            ],
            Dialect::MySql => {
                let mut settings = vec![
                    format!("SET SESSION lock_wait_timeout = {seconds}"),
                    format!("SET SESSION innodb_lock_wait_timeout = {seconds}"),
                ];
                if self.is_mariadb() {
                    settings.push(format!("SET SESSION max_statement_time = {:.3}", statement.as_secs_f64()));
                }
                settings
            }
            Dialect::Sqlite => vec![format!("PRAGMA busy_timeout = {}", lock.as_millis())],
        };
        for setting in settings {
            self.run(self.db(), ATTEMPTED, self.sql().plain(setting)).await?;
        }
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        Ok(())
    }
}
