//! The driver's side of a connection: its options, read from the URL, and a pool that holds just the one.

use super::{Error, Target, Timeouts, classify};
use crate::files::Dialect;
use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm::{DatabaseConnection, SqlxMySqlConnector, SqlxPostgresConnector, SqlxSqliteConnector};
use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A path that nothing is at: where a pool would find a second connection.
const NOWHERE: &str = "/nonexistent/grey";

/// SQLite's instructions between two looks at whether to stop.
const SQLITE_STEPS: i32 = 10_000;

/// What SQLite's worker thread has a share of, until it has really ended.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Tells it to stop the present statement.
    pub(super) interrupt: AtomicBool,
    /// The locked file: what a dropped connection has begun is over before someone else gets the lock.
    pub(super) lock: Mutex<Option<File>>,
}

/// The file of a SQLite URL.
pub(crate) fn sqlite_file(target: &Target) -> Result<PathBuf, Error> {
    SqliteConnectOptions::from_str(target.url.expose())
        .map(|options| options.get_filename().to_path_buf())
        .map_err(|_| unusable())
}

/// The host, port, user and database of a PostgreSQL URL.
pub(crate) fn postgres_options(target: &Target) -> Result<PgConnectOptions, Error> {
    PgConnectOptions::from_str(target.url.expose()).map_err(|_| unusable())
}

/// The host, port, user and database of a MySQL URL.
pub(crate) fn mysql_options(target: &Target) -> Result<MySqlConnectOptions, Error> {
    MySqlConnectOptions::from_str(target.url.expose()).map_err(|_| unusable())
}

fn unusable() -> Error {
    Error::Refused { attempted: "connect to the tenant's database", why: "the URL is not usable".to_owned() }
}

/// A pool that only ever makes one connection: a second one would have neither the lock nor the settings.
pub(super) async fn pool(
    target: &Target,
    timeouts: &Timeouts,
    beside: &Arc<Beside>,
) -> Result<DatabaseConnection, Error> {
    macro_rules! one {
        ($pool:ty) => {
            <$pool>::new()
                .max_connections(1)
                .acquire_timeout(timeouts.connect)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
    }
    let failed = |error| classify::connecting(&error);
    match target.dialect {
        Dialect::Postgres => {
            let options = postgres_options(target)?
                .application_name("grey-schema-migrator")
                .disable_statement_logging();
            let pool = one!(PgPoolOptions).connect_with(options).await.map_err(failed)?;
            pool.set_connect_options(PgConnectOptions::new_without_pgpass().socket(NOWHERE));
            Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
        }
        Dialect::MySql => {
            // Files are written for the server's own mode and time zone.
            let options = mysql_options(target)?
                .pipes_as_concat(false)
                .no_engine_substitution(false)
                .timezone(None)
                .disable_statement_logging();
            let pool = one!(MySqlPoolOptions).connect_with(options).await.map_err(failed)?;
            pool.set_connect_options(MySqlConnectOptions::new().socket(NOWHERE));
            Ok(SqlxMySqlConnector::from_sqlx_mysql_pool(pool))
        }
        Dialect::Sqlite => {
            let options = SqliteConnectOptions::from_str(target.url.expose()).map_err(|_| unusable())?;
            // Rebuilding a table drops it, which with enforced foreign keys would delete the rows that refer to it.
            let options = options.busy_timeout(timeouts.lock).foreign_keys(false).disable_statement_logging();
            let beside = Arc::clone(beside);
            let pool = one!(SqlitePoolOptions)
                .after_connect(move |connection, _| {
                    let beside = Arc::clone(&beside);
                    Box::pin(async move {
                        let mut handle = connection.lock_handle().await?;
                        let go_on = move || !beside.interrupt.load(Ordering::Relaxed);
                        handle.set_progress_handler(SQLITE_STEPS, go_on);
                        Ok(())
                    })
                })
                .connect_with(options)
                .await
                .map_err(failed)?;
            pool.set_connect_options(SqliteConnectOptions::new().filename(NOWHERE));
            Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool))
        }
    }
}

/// Undoes the percent signs of a part of a URL.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|it| u8::try_from(it).ok());
            bytes.push(digit()? * 16 + digit()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
