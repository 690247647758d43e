//! The lock on a tenant's history: held by one session at a time, gone with it.
//!
//! PostgreSQL: an advisory lock of the session. MySQL family: `GET_LOCK`. Both are the server's, so they outlive neither
//! the connection nor the process, and are still held while a statement of a dead client runs on. SQLite has no sessions:
//! there it is the operating system's lock on a file beside the database, which ends with the process. That one is for
//! all services of the file, of which only one can write at a time anyway.

use super::connect::column;
use super::pool::sqlite_file;
use super::{Connection, Error, Stop, names};
use crate::files::Dialect;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Time between two tries.
const RETRY: Duration = Duration::from_millis(50);

/// A lock that is held.
#[derive(Debug)]
pub(super) enum Lock {
    /// PostgreSQL's key.
    Advisory(i64),
    /// The MySQL family's name.
    Named(String),
    /// SQLite's file, locked while it is open; the connection's worker thread has it too.
    Beside,
}

impl Connection {
    /// Takes the lock on the history, waiting at most the lock timeout. Taking it twice does nothing.
    ///
    /// # Errors
    /// With [`Error::Locked`] when another session holds it for longer.
    pub async fn lock(&mut self, stop: &Stop) -> Result<(), Error> {
        if self.lock.is_some() {
            return Ok(());
        }
        let waited = self.timeouts.lock;
        let end = Instant::now() + waited;
        loop {
            stop.check()?;
            if let Some(lock) = self.try_lock().await? {
                self.lock = Some(lock);
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Error::Locked { waited });
            }
            sleep(RETRY).await;
        }
    }

    async fn try_lock(&self) -> Result<Option<Lock>, Error> {
        let attempted = "lock the migration history";
        match self.target.dialect {
            Dialect::Postgres => {
                let key = names::number(&["grey", self.target.service.as_str(), self.place()]).cast_signed();
                let query = format!("SELECT pg_try_advisory_lock({key}) AS held");
                let rows = self.ask(attempted, query).await?;
                Ok(column::<bool>(rows.first(), "held")?.then_some(Lock::Advisory(key)))
            }
            Dialect::MySql => {
                let hash = names::short_hash(&[self.target.service.as_str(), self.place()]);
                let name = format!("grey-schema-{hash}");
                let query = format!("SELECT CAST(COALESCE(GET_LOCK('{name}', 0), 0) AS SIGNED) AS held");
                let rows = self.ask(attempted, query).await?;
                Ok((column::<i64>(rows.first(), "held")? == 1).then_some(Lock::Named(name)))
            }
            Dialect::Sqlite => self.try_lock_file(attempted),
        }
    }

    fn try_lock_file(&self, attempted: &'static str) -> Result<Option<Lock>, Error> {
        let mut path = sqlite_file(&self.target)?.into_os_string();
        path.push("-grey-lock");
        let refused = |error: std::io::Error| Error::Refused { attempted, why: error.to_string() };
        let open = File::options().create(true).append(true).open(PathBuf::from(path));
        let file = open.map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {
                *self.beside.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
                Ok(Some(Lock::Beside))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(refused(error)),
        }
    }

    /// Asks the server whether this session still holds the lock, as it would not behind a proxy that shares sessions.
    ///
    /// # Errors
    /// With [`Error::Unreachable`] if it does not.
    pub async fn verify_lock(&self) -> Result<(), Error> {
        let attempted = "verify the lock on the migration history";
        let query = match &self.lock {
            Some(Lock::Advisory(key)) => {
                let (high, low) = (key.cast_unsigned() >> 32, key.cast_unsigned() & 0xffff_ffff);
                format!(
                    "SELECT count(*) AS held FROM pg_locks WHERE locktype = 'advisory' AND granted \
                     AND pid = pg_backend_pid() AND classid::bigint = {high} AND objid::bigint = {low}"
                )
            }
            Some(Lock::Named(name)) => {
                format!(
                    "SELECT CAST(COALESCE(IS_USED_LOCK('{name}') = CONNECTION_ID(), 0) AS SIGNED) AS held"
                )
            }
            Some(Lock::Beside) => return Ok(()),
            None => return Err(Error::Unreachable { attempted, why: "it was not taken".to_owned() }),
        };
        let rows = self.ask(attempted, query).await?;
        if column::<i64>(rows.first(), "held")? == 1 {
            Ok(())
        } else {
            Err(Error::Unreachable { attempted, why: "it is no longer held".to_owned() })
        }
    }
}
