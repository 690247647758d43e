//! The control database: two pools, so that no burst of reads can keep a write waiting for a connection.
//!
//! SQLite allows one writer at a time and PostgreSQL commands wait for the same row anyway: the writing pool has one
//! connection. Every statement has a deadline, on this side always and on the server's where it has one.

use std::future::Future;
use std::time::Duration;

use grey_core::change::{Generation, Position, Revision};
use grey_database::{Options, Pool, begin_write, connect};
use grey_migrations_control::migrate;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel,
    RuntimeErr, Statement, TransactionTrait, sqlx,
};

use crate::entity::unsigned;

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
        let Self::Failed { source, .. } = self else { return false };
        matches!(driver(source), Some(sqlx::Error::Database(refused)) if is_final(refused.as_ref()))
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

/// The connected, migrated control database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
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
        Ok(Self { writer, readers, statement_timeout: options.statement_timeout })
    }

    /// For single reads.
    pub(crate) fn readers(&self) -> &DatabaseConnection {
        &self.readers
    }

    /// Waits for a read with the statement deadline.
    pub(crate) async fn read<T>(
        &self,
        attempted: &'static str,
        read: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, Error> {
        within(attempted, self.statement_timeout, read).await
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

    /// Reads generation and newest revision.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn head(&self) -> Result<Position, Error> {
        self.read("read the log's head", head(&self.readers)).await?.try_into()
    }

    /// Starts a new generation if the present one is `present`; returns the head after that.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn start_generation(&self, present: &Generation) -> Result<Position, Error> {
        let sql = "UPDATE log_head SET generation = $1 WHERE id = 1 AND generation = $2";
        let fresh = uuid::Uuid::now_v7().to_string();
        let values = [fresh.into(), present.0.as_str().into()];
        let statement = Statement::from_sql_and_values(self.writer.get_database_backend(), sql, values);
        self.read("start a generation", self.writer.execute_raw(statement)).await?;
        self.head().await
    }
}

/// The head's row.
pub(crate) struct Head {
    pub(crate) revision: i64,
    pub(crate) generation: String,
}

impl TryFrom<Head> for Position {
    type Error = Error;

    fn try_from(head: Head) -> Result<Self, Error> {
        let revision = Revision(unsigned("log_head", head.revision)?);
        Ok(Self { generation: Generation(head.generation.into()), revision })
    }
}

/// Reads the head's row.
pub(crate) async fn head(connection: &impl ConnectionTrait) -> Result<Head, DbErr> {
    head_of(connection, "SELECT revision, generation FROM log_head WHERE id = 1").await
}

/// Takes the next revision. The row stays locked until the transaction ends, which puts commands in order.
pub(crate) async fn advance(transaction: &DatabaseTransaction) -> Result<Head, DbErr> {
    let sql = "UPDATE log_head SET revision = revision + 1 WHERE id = 1 RETURNING revision, generation";
    head_of(transaction, sql).await
}

async fn head_of(connection: &impl ConnectionTrait, sql: &str) -> Result<Head, DbErr> {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    let row = connection.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("log_head is empty".to_owned()))?;
    Ok(Head { revision: row.try_get("", "revision")?, generation: row.try_get("", "generation")? })
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
