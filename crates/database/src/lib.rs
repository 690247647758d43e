//! A service's own database, PostgreSQL or SQLite: how it is reached.
//!
//! The control plane and the schema migrator each have one, reached through sea-orm. Statements have a deadline on the
//! server where it has one; the services give each one besides.
//!
//! What it does *not* do: it knows no table, judges no failure, and has no part in the databases of tenants.

use std::time::Duration;

use grey_runtime::Secret;
use grey_runtime::config::{Faults, Validate, duration};
use sea_orm::sqlx::sqlite::{SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, Connection};
use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};
use serde::{Deserialize, Serialize};

/// How the database is reached, as an operator sets it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `postgres://…`, or `sqlite://path`, or `sqlite::memory:`.
    pub url: Secret,
    /// Connections; what a service adds or leaves unused, its own reference tells.
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

impl Options {
    /// Whether it is SQLite, which has one writer at a time.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.url.expose().starts_with("sqlite")
    }

    /// Whether each connection would have a database of its own, which ends with it.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.is_sqlite() && self.url.expose().contains(":memory:")
    }
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

/// What a service wants of its connections.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// Whose they are, as the server shows them.
    pub application: &'static str,
    /// How many there are at most.
    pub connections: u32,
    /// Whether SQLite overwrites what is deleted, keys above all, and does not just forget it.
    pub overwrites: bool,
}

/// Connects. On SQLite a file is made where there is none, and what was committed survives a power cut.
///
/// # Errors
/// The database is away, or refuses the credentials.
pub async fn connect(options: &Options, pool: Pool) -> Result<DatabaseConnection, DbErr> {
    let statement_timeout = options.statement_timeout;
    let mut connect = ConnectOptions::new(options.url.expose());
    connect
        .max_connections(pool.connections)
        .min_connections(1)
        .acquire_timeout(options.acquire_timeout)
        .connect_timeout(options.acquire_timeout)
        .test_before_acquire_if_idle_for(Duration::from_secs(5))
        .sqlx_logging(false)
        .set_application_name(pool.application)
        .statement_timeout(statement_timeout)
        .map_sqlx_sqlite_opts(move |sqlite| {
            let sqlite = sqlite
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(statement_timeout);
            if pool.overwrites { sqlite.pragma("secure_delete", "ON") } else { sqlite }
        });
    connect.map_sqlx_sqlite_pool_opts(|pool| {
        pool.after_release(|connection, _| Box::pin(async move { is_outside_transactions(connection).await }))
    });
    if options.is_in_memory() {
        // The database ends with its connection.
        connect.idle_timeout(None).max_lifetime(None);
    }
    Box::pin(Database::connect(connect)).await
}

/// Whether a connection may be used again. When SQLite takes a transaction back by itself, as on a full disk, the
/// driver's count of transactions does not follow: whatever came next would be a part of a transaction that nobody
/// commits, however often it is acknowledged. Such a connection is closed.
async fn is_outside_transactions(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // A rollback that a dropped transaction has left behind is done by then.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Begins a transaction that writes; on SQLite it has the write lock at once.
///
/// # Errors
/// What the driver says.
pub async fn begin_write(pool: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
    let options = TransactionOptions { sqlite_transaction_mode, ..TransactionOptions::default() };
    pool.begin_with_options(options).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use sea_orm::{ConnectionTrait, Statement};

    use super::*;

    const POOL: Pool = Pool { application: "grey-database", connections: 1, overwrites: true };

    fn options(url: &str) -> Options {
        let long = Duration::from_secs(60);
        let (url, connections) = (Secret::new(url), 1);
        Options { url, connections, acquire_timeout: long, statement_timeout: long, migrate_timeout: long }
    }

    fn faults(options: &Options) -> Vec<String> {
        let mut faults = Faults::default();
        faults.section("database", options);
        faults.found().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_unusable_setting_is_named_and_no_credential_is() {
        for good in ["postgres://me:secret@db/x", "postgresql://db/x", "sqlite://file.db", "sqlite::memory:"]
        {
            assert!(faults(&options(good)).is_empty(), "{good}");
        }
        let short = Duration::from_millis(9);
        let bad = Options {
            connections: 0,
            acquire_timeout: short,
            statement_timeout: short,
            migrate_timeout: short,
            ..options("mysql://me:secret@db/x")
        };
        let found = faults(&bad);
        let keys = ["url", "connections", "acquire_timeout", "statement_timeout", "migrate_timeout"];
        assert_eq!(found.len(), keys.len(), "{found:?}");
        for (fault, key) in found.iter().zip(keys) {
            assert!(fault.starts_with(&format!("database.{key}: ")) && !fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn only_sqlite_can_be_in_memory() {
        let kind = |url: &str| (options(url).is_sqlite(), options(url).is_in_memory());
        assert_eq!(kind("sqlite::memory:"), (true, true));
        assert_eq!(kind("sqlite://file.db"), (true, false));
        assert_eq!(kind("postgres://db/:memory:"), (false, false));
    }

    #[tokio::test]
    async fn database_in_memory_lasts_as_long_as_its_connection() {
        let db = connect(&options("sqlite::memory:"), POOL).await.unwrap();
        db.execute_unprepared("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        db.execute_unprepared("INSERT INTO t VALUES (1)").await.unwrap();
        assert!(connect(&options("sqlite:///nowhere/file.db"), POOL).await.is_err());
    }

    #[tokio::test]
    async fn transaction_that_writes_has_the_lock_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("own.db").display());
        let options = Options { statement_timeout: Duration::from_millis(50), ..options(&url) };
        let one = connect(&options, POOL).await.unwrap();
        let other = connect(&options, POOL).await.unwrap();
        let held = begin_write(&one).await.unwrap();
        let refused = begin_write(&other).await.unwrap_err();
        assert!(refused.to_string().contains("locked"), "{refused}");
        held.rollback().await.unwrap();
        begin_write(&other).await.unwrap().rollback().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_acknowledged_is_committed_whatever_was_taken_back_before() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("own.db").display());
        let options = Options { statement_timeout: Duration::from_millis(50), ..options(&url) };
        let one = connect(&options, POOL).await.unwrap();
        let other = connect(&options, POOL).await.unwrap();
        one.execute_unprepared("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        for id in 2..5 {
            let taken_back = begin_write(&one).await.unwrap();
            // As a full disk does, this ends the transaction itself.
            assert!(taken_back.execute_unprepared("INSERT OR ROLLBACK INTO t VALUES (1)").await.is_err());
            drop(taken_back.rollback().await);

            let held = begin_write(&one).await.unwrap();
            assert!(begin_write(&other).await.is_err(), "the next transaction is one of its own");
            held.execute_unprepared(&format!("INSERT INTO t VALUES ({id})")).await.unwrap();
            held.commit().await.unwrap();
            let ask = "SELECT COUNT(*) FROM t";
            let ask = Statement::from_string(other.get_database_backend(), ask);
            let row = other.query_one_raw(ask).await.unwrap().unwrap();
            assert_eq!(row.try_get_by_index::<i64>(0).unwrap(), id, "the others see what was committed");
        }
    }

    #[tokio::test]
    async fn deleted_rows_are_overwritten_where_that_is_wanted() {
        for (overwrites, expected) in [(true, 1), (false, 0)] {
            let db = connect(&options("sqlite::memory:"), Pool { overwrites, ..POOL }).await.unwrap();
            let ask = Statement::from_string(db.get_database_backend(), "PRAGMA secure_delete");
            let row = db.query_one_raw(ask).await.unwrap().unwrap();
            assert_eq!(row.try_get_by_index::<i64>(0).unwrap(), expected);
        }
    }
}
