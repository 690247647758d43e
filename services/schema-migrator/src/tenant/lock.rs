//! The lock on a tenant's history: held by one session at a time, gone with it.
//!
//! PostgreSQL: an advisory lock of the session. MySQL family: `GET_LOCK`, twice: a connection that does nothing else keeps
//! the lock while files run in one session after the other, each of which has the second one. Locks are the server's, so
//! they outlive neither the connection nor the process, and one is still held while a statement of a dead client runs on. SQLite has no sessions:
//! there it is the operating system's lock on a file beside the database, which ends with the process. That one is for
//! all services of the file, of which only one can write at a time anyway.

use super::connect::{OWN_DEADLINE, column};
use super::pool::sqlite_file;
use super::{Connection, Error, Stop, names};
use crate::files::Dialect;
use sea_orm::{ConnectionTrait as _, DatabaseConnection};
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
    /// The MySQL family's two.
    Named {
        /// The name of the one that is kept.
        kept: String,
        /// The name of the one that the working session has.
        working: String,
        /// The server's number for the session that keeps it.
        keeper: i64,
        /// That session.
        _session: DatabaseConnection,
    },
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

    /// Takes a lock of the server that only whoever makes or removes something of this name wants, waiting at most the lock
    /// timeout. It goes with the session.
    ///
    /// # Errors
    /// With [`Error::Locked`] when another session holds it for longer.
    pub(crate) async fn lock_name(&self, name: &str) -> Result<(), Error> {
        let (attempted, waited) = ("lock the name of what is made", self.timeouts.lock);
        match self.target.dialect {
            Dialect::Postgres => {
                let key = names::number(&["grey-provision", name]).cast_signed();
                let lock = format!("SELECT pg_catalog.pg_advisory_lock({key})");
                match self.command(attempted, &lock).await {
                    Err(error) if error.is_lock_timeout() => Err(Error::Locked { waited }),
                    locked => locked,
                }
            }
            Dialect::MySql => {
                let lock = format!("grey-provision-{}", names::short_hash(&[name]));
                let locked = self.get_working(&lock, waited.as_secs().max(1)).await?;
                if locked { Ok(()) } else { Err(Error::Locked { waited }) }
            }
            Dialect::Sqlite => Ok(()),
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
            Dialect::MySql => self.try_lock_named(attempted).await,
            Dialect::Sqlite => self.try_lock_file(attempted),
        }
    }

    async fn try_lock_named(&self, attempted: &'static str) -> Result<Option<Lock>, Error> {
        let hash = names::short_hash(&[self.target.service.as_str(), self.place()]);
        let (kept, working) = (format!("grey-schema-{hash}"), working_name(&hash));
        let free = format!(
            "SELECT CAST(COALESCE(IS_FREE_LOCK('{kept}') + IS_FREE_LOCK('{working}'), 0) AS SIGNED) AS free"
        );
        let rows = self.rows(&self.db, attempted, self.sql().plain(free)).await?;
        if column::<i64>(rows.first(), "free")? != 2 {
            return Ok(None);
        }
        let session = self.another(attempted, "keep").await?;
        // It has nothing else to say for as long as files run.
        let patience = session.execute_unprepared("SET SESSION wait_timeout = 31536000");
        self.own(attempted, OWN_DEADLINE, patience).await?;
        let query = format!(
            "SELECT CAST(CONNECTION_ID() AS SIGNED) AS number, \
             CAST(COALESCE(GET_LOCK('{kept}', 0), 0) AS SIGNED) AS held"
        );
        let rows = self.rows(&session, attempted, self.sql().plain(query)).await?;
        if column::<i64>(rows.first(), "held")? != 1 || !self.get_working(&working, 0).await? {
            return Ok(None);
        }
        let keeper = column(rows.first(), "number")?;
        Ok(Some(Lock::Named { kept, working, keeper, _session: session }))
    }

    /// Takes the working session's lock of the MySQL family in a new session. Nobody else can want it: they wait for the one
    /// that is kept.
    pub(super) async fn take_working_lock(&self) -> Result<(), Error> {
        let Some(Lock::Named { working, .. }) = &self.lock else { return Ok(()) };
        let waited = self.timeouts.lock;
        if self.get_working(working, waited.as_secs().max(1)).await? {
            return Ok(());
        }
        Err(Error::Locked { waited })
    }

    async fn get_working(&self, name: &str, seconds: u64) -> Result<bool, Error> {
        let query = format!("SELECT CAST(COALESCE(GET_LOCK('{name}', {seconds}), 0) AS SIGNED) AS held");
        let rows = self.ask("lock the migration history", query).await?;
        Ok(column::<i64>(rows.first(), "held")? == 1)
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

    /// Asks the server whether this session still holds the lock, and works where it began.
    ///
    /// # Errors
    /// With [`Error::Unreachable`] if it does not hold it, [`Error::Pooled`] if it is another session's, and
    /// [`Error::Conflict`] if a file has led it elsewhere.
    pub async fn verify_lock(&self) -> Result<(), Error> {
        self.verify(&self.db).await
    }
}

fn working_name(hash: &str) -> String {
    format!("grey-schema-work-{hash}")
}
