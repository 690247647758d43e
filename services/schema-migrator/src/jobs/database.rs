//! The migrator's own database: PostgreSQL, or SQLite where one replica is enough.
//!
//! Times of leases are the database's own, so replicas need not agree on theirs.

use grey_database::{Pool, begin_write, connect};
use grey_migrations_migrator::migrate;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult,
    SqlErr, Statement, TryGetable, Value,
};
use std::future::Future;
use std::time::Duration;

pub use grey_database::Options;

/// Why the migrator's own database did not answer as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It is away or refused the statement.
    #[error("{attempted}")]
    Failed {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// The driver's error.
        #[source]
        source: DbErr,
    },
    /// It did not answer in time.
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
    /// Whether a unique index refused the row.
    pub(super) fn is_duplicate(&self) -> bool {
        let Self::Failed { source, .. } = self else { return false };
        matches!(source.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
    }
}

/// The connected, migrated database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    pool: DatabaseConnection,
    statement_timeout: Duration,
}

impl Database {
    /// Connects and brings the schema up to date; several replicas may do so at once.
    ///
    /// # Errors
    /// When the database is away, or was migrated by a newer release.
    pub async fn open(options: &Options) -> Result<Self, Error> {
        // SQLite has one writer, and what this service reads it mostly writes as well.
        let connections = if options.is_sqlite() { 1 } else { options.connections };
        let pool = Pool { application: "grey-schema-migrator", connections, overwrites: false };
        let pool = Box::pin(connect(options, pool));
        let pool = within("connect to the migrator's database", options.acquire_timeout, pool).await?;
        within("migrate the migrator's database", options.migrate_timeout, migrate(&pool)).await?;
        Ok(Self { pool, statement_timeout: options.statement_timeout })
    }

    pub(super) fn backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }

    /// The database's time in milliseconds since the epoch, as an expression.
    pub(super) fn now(&self) -> &'static str {
        match self.backend() {
            DbBackend::Postgres => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
            _ => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
        }
    }

    /// Begins a transaction that writes; on SQLite it has the write lock at once.
    pub(super) async fn begin(&self) -> Result<DatabaseTransaction, Error> {
        self.within("begin a transaction", begin_write(&self.pool)).await
    }

    pub(super) async fn commit(&self, transaction: DatabaseTransaction) -> Result<(), Error> {
        self.within("commit a transaction", transaction.commit()).await
    }

    /// Runs a statement in a transaction; returns the rows that it changed.
    pub(super) async fn run_in(
        &self,
        on: &DatabaseTransaction,
        attempted: &'static str,
        sql: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<u64, Error> {
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        self.within(attempted, Box::pin(on.execute_raw(statement)))
            .await
            .map(|done: ExecResult| done.rows_affected())
    }

    /// Runs a query in a transaction.
    pub(super) async fn rows_in(
        &self,
        on: &DatabaseTransaction,
        attempted: &'static str,
        sql: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<QueryResult>, Error> {
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        self.within(attempted, Box::pin(on.query_all_raw(statement))).await
    }

    /// Runs a statement by itself; returns the rows that it changed.
    pub(super) async fn run(
        &self,
        attempted: &'static str,
        sql: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<u64, Error> {
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        self.within(attempted, Box::pin(self.pool.execute_raw(statement)))
            .await
            .map(|done: ExecResult| done.rows_affected())
    }

    /// Runs a query by itself.
    pub(super) async fn rows(
        &self,
        attempted: &'static str,
        sql: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<QueryResult>, Error> {
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        self.within(attempted, Box::pin(self.pool.query_all_raw(statement))).await
    }

    async fn within<T>(
        &self,
        attempted: &'static str,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, Error> {
        within(attempted, self.statement_timeout, work).await
    }
}

/// A column of a row.
pub(super) fn column<T: TryGetable>(row: &QueryResult, table: &'static str, name: &str) -> Result<T, Error> {
    row.try_get("", name).map_err(|error| Error::Corrupt { table, why: error.to_string() })
}

/// Waits for the database, but not for ever.
async fn within<T>(
    attempted: &'static str,
    deadline: Duration,
    work: impl Future<Output = Result<T, DbErr>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result.map_err(|source| Error::Failed { attempted, source }),
        Err(_) => Err(Error::Timeout { attempted, deadline }),
    }
}
