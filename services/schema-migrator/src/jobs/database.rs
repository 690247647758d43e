//! The migrator's own database: PostgreSQL, or SQLite where one replica is enough.
//!
//! Times of leases are the database's own, so replicas need not agree on theirs.

use grey_migrations_migrator::migrate;
use grey_runtime::Secret;
use grey_runtime::config::{Faults, Validate, duration};
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, SqlErr, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, TryGetable,
    Value,
};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::time::Duration;

/// How the migrator's own database is reached.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `postgres://…`, or `sqlite://path`, or `sqlite::memory:`.
    pub url: Secret,
    /// Connections; SQLite always has one.
    pub connections: u32,
    /// For a connection, new or from the pool.
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
    /// For one statement.
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
    /// For bringing the schema up to date at the start, while another replica may be doing so.
    #[serde(with = "duration")]
    pub migrate_timeout: Duration,
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        let url = self.url.expose();
        let known = ["postgres://", "postgresql://", "sqlite:"].iter().any(|scheme| url.starts_with(scheme));
        faults.check(known, "url", "must start with postgres:// or sqlite:");
        faults.check((1..=1_000).contains(&self.connections), "connections", "must be between 1 and 1000");
        for (key, value) in [
            ("acquire_timeout", self.acquire_timeout),
            ("statement_timeout", self.statement_timeout),
            ("migrate_timeout", self.migrate_timeout),
        ] {
            faults.check(value >= Duration::from_millis(10), key, "must be at least 10ms");
        }
    }
}

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
        let pool = connect(options).await?;
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
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode, ..TransactionOptions::default() };
        self.within("begin a transaction", self.pool.begin_with_options(options)).await
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

async fn connect(options: &Options) -> Result<DatabaseConnection, Error> {
    let statement_timeout = options.statement_timeout;
    let url = options.url.expose();
    let sqlite = url.starts_with("sqlite");
    let mut connect = ConnectOptions::new(url);
    connect
        // SQLite has one writer, and what this service reads it mostly writes as well.
        .max_connections(if sqlite { 1 } else { options.connections })
        .min_connections(1)
        .acquire_timeout(options.acquire_timeout)
        .connect_timeout(options.acquire_timeout)
        .test_before_acquire_if_idle_for(Duration::from_secs(5))
        .sqlx_logging(false)
        .set_application_name("grey-schema-migrator")
        .statement_timeout(statement_timeout)
        .map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(statement_timeout)
        });
    if sqlite && url.contains(":memory:") {
        // The database ends with its connection.
        connect.idle_timeout(None).max_lifetime(None);
    }
    let deadline = options.acquire_timeout;
    within("connect to the migrator's database", deadline, Box::pin(sea_orm::Database::connect(connect)))
        .await
}
