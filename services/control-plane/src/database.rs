//! The control database: pools for writes, for reads, for reads of the past and for listings, so that no burst of one kind
//! can keep another waiting for a connection.
//!
//! SQLite allows one writer at a time and PostgreSQL commands wait for the same row anyway: the writing pool has one
//! connection. Every statement has a deadline, on this side always and on the server's where it has one.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use grey_core::change::{EntryHash, Epoch, FormatLevel, Position, Revision};
use grey_database::{Options, Pool, begin_write, connect};
use grey_migrations_control::migrate;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel,
    QueryResult, RuntimeErr, Statement, TransactionTrait, sqlx,
};

use uuid::Uuid;

use crate::entity::{signed, unsigned};

/// Bytes that are written to see whether there is room.
const PROBE_BYTES: usize = 64 << 10;

/// Why the database did not answer as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database is away or refused the statement.
    #[error("{attempted}")]
    Failed {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// The driver's error.
        #[source]
        source: DbErr,
    },
    /// The database did not answer in time.
    #[error("{attempted}: no answer within {deadline:?}")]
    Timeout {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// How long was waited.
        deadline: Duration,
    },
    /// A row does not read back: something else has written to the database.
    #[error("read a row of {table}: {why}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What is wrong with the row.
        why: String,
    },
}

impl Error {
    /// Whether asking again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Failed { source, .. } => match driver(source) {
                Some(sqlx::Error::Database(refused)) => !is_final(refused.as_ref()),
                Some(error) => matches!(
                    error,
                    sqlx::Error::Io(_)
                        | sqlx::Error::Tls(_)
                        | sqlx::Error::Protocol(_)
                        | sqlx::Error::PoolTimedOut
                        | sqlx::Error::PoolClosed
                        | sqlx::Error::WorkerCrashed
                ),
                None => matches!(source, DbErr::Conn(_) | DbErr::ConnectionAcquire(_)),
            },
            Self::Timeout { .. } => true,
            Self::Corrupt { .. } => false,
        }
    }

    /// Whether the server itself refused the statement, which then certainly had no effect.
    pub(crate) fn is_refusal(&self) -> bool {
        self.refused().is_some_and(|refused| is_final(refused) || has_no_room(refused))
    }

    /// Whether the database has no room left on its disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.refused().is_some_and(has_no_room)
    }

    /// What the server itself said.
    fn refused(&self) -> Option<&dyn sqlx::error::DatabaseError> {
        let Self::Failed { source, .. } = self else { return None };
        match driver(source) {
            Some(sqlx::Error::Database(refused)) => Some(refused.as_ref()),
            _ => None,
        }
    }
}

fn driver(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

/// Whether the server would refuse the same statement again.
fn is_final(refused: &dyn sqlx::error::DatabaseError) -> bool {
    let code = refused.code().unwrap_or_default();
    match code.len() {
        // SQLSTATE. Class 57 is the server shutting down or giving up on a statement, 08 a lost connection, 53 a lack
        // of resources, 40 a conflict with another transaction, 55 a lock that was not to be had.
        5 => !["57", "08", "53", "40", "55"].iter().any(|class| code.starts_with(class)),
        // SQLite's extended codes: the lowest byte says busy (5) or locked (6).
        _ => !code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6)),
    }
}

/// Whether there is no room on the server's disk: PostgreSQL's `disk_full`, SQLite's `SQLITE_FULL`.
fn has_no_room(refused: &dyn sqlx::error::DatabaseError) -> bool {
    let code = refused.code().unwrap_or_default();
    code == "53100" || (code.len() != 5 && code.parse::<u32>().is_ok_and(|code| code & 0xff == 13))
}

/// The connected, migrated control database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    /// Whether a write found no room, and none has since found some.
    full: Arc<AtomicBool>,
    writer: DatabaseConnection,
    readers: DatabaseConnection,
    statement_timeout: Duration,
}

impl Database {
    /// Connects and brings the schema up to date; several replicas may do so at once.
    ///
    /// # Errors
    /// When the database is away, or was migrated by a newer release.
    pub async fn open(options: &Options) -> Result<Self, Error> {
        let writer = Box::pin(pool(options, 1)).await?;
        let deadline = options.migrate_timeout;
        within("migrate the control database", deadline, migrate(&writer)).await?;
        // Each connection to a database in memory would have one of its own.
        let readers = match options.is_in_memory() {
            true => writer.clone(),
            false => Box::pin(pool(options, options.connections)).await?,
        };
        let full = Arc::new(AtomicBool::new(false));
        Ok(Self { full, writer, readers, statement_timeout: options.statement_timeout })
    }

    /// The same database, read through connections of its own: no other read waits for one of them.
    pub(crate) async fn apart(&self, options: &Options, connections: u32) -> Result<Self, Error> {
        let readers = match options.is_in_memory() {
            true => self.readers.clone(),
            false => Box::pin(pool(options, connections)).await?,
        };
        Ok(Self { readers, ..self.clone() })
    }

    /// For single reads.
    pub(crate) fn readers(&self) -> &DatabaseConnection {
        &self.readers
    }

    /// For single writes that are no commands.
    pub(crate) fn writer(&self) -> &DatabaseConnection {
        &self.writer
    }

    /// Waits for a read with the statement deadline.
    pub(crate) async fn read<T>(
        &self,
        attempted: &'static str,
        read: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, Error> {
        within(attempted, self.statement_timeout, read).await.inspect_err(|error| self.note(error))
    }

    /// Notes a write that found no room.
    pub(crate) fn note(&self, error: &Error) {
        if error.is_full() {
            self.full.store(true, Relaxed);
        }
    }

    /// Whether there is room for writes. After one that found none, this writes to find out.
    ///
    /// # Errors
    /// When the database is away, or there is still no room.
    pub(crate) async fn check_room(&self) -> Result<(), Error> {
        if !self.full.load(Relaxed) {
            return Ok(());
        }
        let backend = self.writer.get_database_backend();
        let transaction = self.begin_write().await?;
        let sql = "INSERT INTO room_probe (padding) VALUES ($1)";
        let probe = Statement::from_sql_and_values(backend, sql, [padding().into()]);
        self.read("write a probe", transaction.execute_raw(probe)).await?;
        self.read("commit a probe", transaction.commit()).await?;
        self.read("remove a probe", self.writer.execute_unprepared("DELETE FROM room_probe")).await?;
        self.full.store(false, Relaxed);
        Ok(())
    }

    /// Begins a transaction that writes; on SQLite it has the write lock at once.
    pub(crate) async fn begin_write(&self) -> Result<DatabaseTransaction, Error> {
        self.read("begin a command", begin_write(&self.writer)).await
    }

    /// Begins a transaction that sees one state of the database throughout.
    pub(crate) async fn begin_snapshot(&self) -> Result<DatabaseTransaction, Error> {
        let begin = async {
            match self.readers.get_database_backend() {
                DbBackend::Postgres => {
                    let (level, mode) = (IsolationLevel::RepeatableRead, AccessMode::ReadOnly);
                    self.readers.begin_with_config(Some(level), Some(mode)).await
                }
                _ => self.readers.begin().await,
            }
        };
        self.read("begin a snapshot", begin).await
    }

    /// Reads epoch and newest revision.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn head(&self) -> Result<Position, Error> {
        self.read("read the log's head", head(&self.readers)).await?.try_into()
    }

    /// Starts the epoch after `present` and `seen` if the log's is still `present`; returns the head after that.
    ///
    /// # Errors
    /// When the database is away, or no epoch is left.
    pub async fn start_epoch(&self, present: Epoch, seen: Epoch) -> Result<Position, Error> {
        let newest = present.max(seen).0;
        let why = || format!("epoch {newest} has been seen, which none can follow");
        let fresh = newest.checked_add(1).and_then(|fresh| i64::try_from(fresh).ok());
        let fresh = fresh.ok_or_else(|| Error::Corrupt { table: "log_head", why: why() })?;
        let sql = "UPDATE log_head SET epoch = $1 WHERE id = 1 AND epoch = $2";
        let values = [fresh.into(), signed(present.0).into()];
        let statement = Statement::from_sql_and_values(self.writer.get_database_backend(), sql, values);
        self.read("start an epoch", self.writer.execute_raw(statement)).await?;
        self.head().await
    }

    /// Notes that an epoch is published; true if no one had published it before.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn note_published(&self, epoch: Epoch) -> Result<bool, Error> {
        let sql = "UPDATE log_head SET published = $1 WHERE id = 1 AND published < $1";
        let backend = self.writer.get_database_backend();
        let statement = Statement::from_sql_and_values(backend, sql, [signed(epoch.0).into()]);
        let noted = self.read("note what is published", self.writer.execute_raw(statement)).await?;
        Ok(noted.rows_affected() > 0)
    }
}

/// About as much as a command of many changes takes, and nothing that a server could compress.
fn padding() -> Vec<u8> {
    (0..PROBE_BYTES / 16).flat_map(|_| Uuid::new_v4().into_bytes()).collect()
}

/// The head's row.
pub(crate) struct Head {
    epoch: i64,
    revision: i64,
}

impl TryFrom<Head> for Position {
    type Error = Error;

    fn try_from(head: Head) -> Result<Self, Error> {
        let epoch = Epoch(unsigned("log_head", head.epoch)?);
        Ok(Self { epoch, revision: Revision(unsigned("log_head", head.revision)?) })
    }
}

/// Reads the head's row.
pub(crate) async fn head(connection: &impl ConnectionTrait) -> Result<Head, DbErr> {
    let row = head_row(connection, "SELECT epoch, revision FROM log_head WHERE id = 1").await?;
    head_of(&row)
}

/// Takes the next revision; also gives the hash of the event before it. The row stays locked until the transaction
/// ends, which puts commands in order.
pub(crate) async fn advance(transaction: &DatabaseTransaction) -> Result<(Head, EntryHash), DbErr> {
    let sql = "UPDATE log_head SET revision = revision + 1 WHERE id = 1 RETURNING epoch, revision, hash";
    let row = head_row(transaction, sql).await?;
    Ok((head_of(&row)?, hash_of(&row)?))
}

/// Reads the head's row, and the hash of the newest event.
pub(crate) async fn head_with_hash(connection: &impl ConnectionTrait) -> Result<(Head, EntryHash), DbErr> {
    let row = head_row(connection, "SELECT epoch, revision, hash FROM log_head WHERE id = 1").await?;
    Ok((head_of(&row)?, hash_of(&row)?))
}

/// Reads the highest format level that an event needs.
pub(crate) async fn level(connection: &impl ConnectionTrait) -> Result<FormatLevel, DbErr> {
    let row = head_row(connection, "SELECT level FROM log_head WHERE id = 1").await?;
    let level: i64 = row.try_get("", "level")?;
    let level = u32::try_from(level).map_err(|_| DbErr::Type("log_head.level is no level".to_owned()))?;
    Ok(FormatLevel(level))
}

/// Notes the hash of the newest event, and the level that it needs.
pub(crate) async fn put_newest(
    transaction: &DatabaseTransaction,
    hash: &EntryHash,
    level: FormatLevel,
) -> Result<(), DbErr> {
    let sql =
        "UPDATE log_head SET hash = $1, level = CASE WHEN level < $2 THEN $2 ELSE level END WHERE id = 1";
    let values = [hash.0.to_vec().into(), i64::from(level.0).into()];
    let statement = Statement::from_sql_and_values(transaction.get_database_backend(), sql, values);
    transaction.execute_raw(statement).await.map(drop)
}

async fn head_row(connection: &impl ConnectionTrait, sql: &str) -> Result<QueryResult, DbErr> {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    let row = connection.query_one_raw(statement).await?;
    row.ok_or_else(|| DbErr::RecordNotFound("log_head is empty".to_owned()))
}

fn head_of(row: &QueryResult) -> Result<Head, DbErr> {
    Ok(Head { epoch: row.try_get("", "epoch")?, revision: row.try_get("", "revision")? })
}

/// The newest event's hash; all zeros while there is none.
fn hash_of(row: &QueryResult) -> Result<EntryHash, DbErr> {
    let Some(stored) = row.try_get::<Option<Vec<u8>>>("", "hash")? else { return Ok(EntryHash::default()) };
    let wrong = |_| DbErr::Type("log_head.hash is not of 32 bytes".to_owned());
    Ok(EntryHash(<[u8; 32]>::try_from(stored.as_slice()).map_err(wrong)?))
}

/// Waits for the database, but not for ever.
pub(crate) async fn within<T>(
    attempted: &'static str,
    deadline: Duration,
    work: impl Future<Output = Result<T, DbErr>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result.map_err(|source| Error::Failed { attempted, source }),
        Err(_) => Err(Error::Timeout { attempted, deadline }),
    }
}

async fn pool(options: &Options, connections: u32) -> Result<DatabaseConnection, Error> {
    // What is deleted, keys above all, is overwritten and not just forgotten.
    let pool = Pool { application: "grey-control-plane", connections, overwrites: true };
    within("connect to the control database", options.acquire_timeout, connect(options, pool)).await
}
