//! The driver's side of a connection: its options, by what the URL says, and a pool that holds just the one.

use super::pinned::{Tunnel, is_own_authority, tunnel};
use super::{Error, Target, Timeouts, classify};
use crate::files::Dialect;
use grey_database_url::{DatabaseUrl, Encryption, Host, Place, Server, Strength, is_never_a_database};
use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm::sqlx::{self, ConnectOptions as _, Database, Pool};
use sea_orm::{DatabaseConnection, SqlxMySqlConnector, SqlxPostgresConnector, SqlxSqliteConnector};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A path that nothing is at: where a pool would find a second connection.
const NOWHERE: &str = "/nonexistent/grey";

/// SQLite's instructions between two looks at whether to stop.
const SQLITE_STEPS: i32 = 10_000;

/// The setting by which a PostgreSQL session is known to be the one that was asked for.
pub(super) const TAG: &str = "grey.session";

const CONNECT: &str = "connect to the tenant's database";

/// What the driver's side of a session has a share of, for SQLite until its worker thread has really ended.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// An answer was left before all of it was there; see [`Answer`](super::answer::Answer).
    pub(super) cut_short: AtomicBool,
    /// Tells it to stop the present statement.
    pub(super) interrupt: AtomicBool,
    /// The locked file: what a dropped connection has begun is over before someone else gets the lock.
    pub(super) lock: Mutex<Option<File>>,
}

/// The file of a SQLite URL.
pub(crate) fn sqlite_file(target: &Target) -> Result<PathBuf, Error> {
    match parsed(target)?.place {
        Place::File { path, .. } => Ok(path),
        Place::Server(_) => Err(unusable("is of no file")),
    }
}

/// What the URL of a database on a server says.
pub(crate) fn server(target: &Target) -> Result<(Server, DatabaseUrl), Error> {
    let url = parsed(target)?;
    match &url.place {
        Place::Server(server) => Ok((server.clone(), url)),
        Place::File { .. } => Err(unusable("is of a file")),
    }
}

fn parsed(target: &Target) -> Result<DatabaseUrl, Error> {
    let url = DatabaseUrl::parse(target.url.expose()).map_err(|why| unusable(&why.to_string()))?;
    let fits = matches!(
        (url.dialect(), target.dialect),
        (grey_core::database::Dialect::Postgres, Dialect::Postgres)
            | (grey_core::database::Dialect::MySql, Dialect::MySql)
            | (grey_core::database::Dialect::Sqlite, Dialect::Sqlite)
    );
    if fits { Ok(url) } else { Err(unusable("is of another kind of database")) }
}

fn unusable(why: &str) -> Error {
    Error::Refused { attempted: CONNECT, why: format!("the registered url {why}") }
}

/// PostgreSQL's options. All settings of ours travel with the start of the session: they are what RESET leads back to, and
/// a pooler, which lends sessions that others have begun, cannot pass them on.
pub(super) fn postgres_options(
    target: &Target,
    timeouts: &Timeouts,
    tag: &str,
) -> Result<PgConnectOptions, Error> {
    let (Server { host, port, user, password, database }, url) = server(target)?;
    let Encryption { strength, authority, certificate, key } = url.encryption;
    let mut options = PgConnectOptions::new_without_pgpass()
        .port(port)
        .username(&user)
        .database(&database)
        .application_name("grey-schema-migrator")
        .options([(TAG, tag), ("standard_conforming_strings", "on"), ("client_min_messages", "warning")])
        .options([("lock_timeout", timeouts.lock), ("statement_timeout", timeouts.statement)].map(millis))
        .disable_statement_logging();
    if let Some(schema) = &target.schema {
        options = options.options([("search_path", super::Sql(Dialect::Postgres).quoted(schema))]);
    }
    options = match &host {
        Host::Socket(folder) => options.socket(folder),
        other => options.host(&other.bare()),
    };
    if !password.expose().is_empty() {
        options = options.password(password.expose());
    }
    options = options.ssl_mode(match strength {
        Strength::Off => PgSslMode::Disable,
        Strength::Preferred => PgSslMode::Prefer,
        Strength::Required => PgSslMode::Require,
        Strength::Authority => PgSslMode::VerifyCa,
        Strength::Identity => PgSslMode::VerifyFull,
    });
    if let Some(file) = authority {
        options = options.ssl_root_cert(file);
    }
    if let (Some(certificate), Some(key)) = (certificate, key) {
        options = options.ssl_client_cert(certificate).ssl_client_key(key);
    }
    Ok(options)
}

fn millis((name, time): (&'static str, std::time::Duration)) -> (&'static str, String) {
    (name, time.as_millis().to_string())
}

pub(super) fn mysql_options(target: &Target) -> Result<MySqlConnectOptions, Error> {
    let (Server { host, port, user, password, database }, url) = server(target)?;
    let DatabaseUrl { encryption, charset, collation, .. } = url;
    // Files are written for the server's own mode and time zone.
    let mut options = MySqlConnectOptions::new()
        .port(port)
        .username(&user)
        .database(&database)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .disable_statement_logging();
    options = match &host {
        Host::Socket(path) => options.socket(path),
        other => options.host(&other.bare()),
    };
    if !password.expose().is_empty() {
        options = options.password(password.expose());
    }
    options = options.ssl_mode(match encryption.strength {
        Strength::Off => MySqlSslMode::Disabled,
        Strength::Preferred => MySqlSslMode::Preferred,
        Strength::Required => MySqlSslMode::Required,
        Strength::Authority => MySqlSslMode::VerifyCa,
        Strength::Identity => MySqlSslMode::VerifyIdentity,
    });
    if let Some(file) = encryption.authority {
        options = options.ssl_ca(file);
    }
    if let (Some(certificate), Some(key)) = (encryption.certificate, encryption.key) {
        options = options.ssl_client_cert(certificate).ssl_client_key(key);
    }
    if let Some(charset) = charset {
        options = options.charset(&charset);
    }
    if let Some(collation) = collation {
        options = options.collation(&collation);
    }
    Ok(options)
}

fn sqlite_options(target: &Target, timeouts: &Timeouts) -> Result<SqliteConnectOptions, Error> {
    let Place::File { path, create } = parsed(target)?.place else { return Err(unusable("is of no file")) };
    // Rebuilding a table drops it, which with enforced foreign keys would delete the rows that refer to it.
    Ok(SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .busy_timeout(timeouts.lock)
        .foreign_keys(false)
        .disable_statement_logging())
}

/// A pool that only ever makes one connection: a second one would have neither the lock nor the settings. `tag` tells a
/// PostgreSQL session from others.
pub(super) async fn pool(
    target: &Target,
    timeouts: &Timeouts,
    tag: &str,
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
            let options = postgres_options(target, timeouts, tag)?;
            resolves_to_a_database(target).await?;
            let made = one!(PgPoolOptions).connect_with(options.clone()).await.map_err(failed);
            let pool = match made {
                Err(error) if is_own_authority(&error) => {
                    let tunnel = tunnel(target).await?;
                    let options = options.socket(tunnel.folder()).ssl_mode(PgSslMode::Disable);
                    one!(PgPoolOptions).connect_with(options).await.map_err(failed)?
                }
                made => made?,
            };
            pool.set_connect_options(PgConnectOptions::new_without_pgpass().socket(NOWHERE));
            Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
        }
        Dialect::MySql => {
            let options = mysql_options(target)?;
            resolves_to_a_database(target).await?;
            let beside = Arc::clone(beside);
            let one = one!(MySqlPoolOptions).after_release(move |_, _| {
                let is_whole = !beside.cut_short.load(Ordering::Acquire);
                Box::pin(async move { Ok(is_whole) })
            });
            let made = one.clone().connect_with(options.clone()).await.map_err(failed);
            let pool = match made {
                Err(error) if is_own_authority(&error) => {
                    let tunnel = tunnel(target).await?;
                    one.connect_with(led(options, &tunnel)).await.map_err(failed)?
                }
                made => made?,
            };
            pool.set_connect_options(MySqlConnectOptions::new().socket(NOWHERE));
            Ok(SqlxMySqlConnector::from_sqlx_mysql_pool(pool))
        }
        Dialect::Sqlite => {
            let options = sqlite_options(target, timeouts)?;
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

/// Ends the pool's only connection and makes another one, of which the server knows nothing yet. PostgreSQL's are kept:
/// there is a way to clear them, which costs less.
pub(super) async fn reconnect(
    db: &DatabaseConnection,
    target: &Target,
    timeouts: &Timeouts,
) -> Result<(), Error> {
    match target.dialect {
        Dialect::Postgres => Ok(()),
        Dialect::MySql => {
            let nowhere = MySqlConnectOptions::new().socket(NOWHERE);
            let (pool, options) = (db.get_mysql_connection_pool(), mysql_options(target)?);
            match exchange(pool, options.clone(), nowhere.clone()).await {
                Err(error) if is_own_authority(&error) => {
                    let tunnel = tunnel(target).await?;
                    make(pool, led(options, &tunnel), nowhere).await
                }
                made => made,
            }
        }
        Dialect::Sqlite => {
            let nowhere = SqliteConnectOptions::new().filename(NOWHERE);
            exchange(db.get_sqlite_connection_pool(), sqlite_options(target, timeouts)?, nowhere).await
        }
    }
}

async fn exchange<D: Database>(
    pool: &Pool<D>,
    options: <D::Connection as sqlx::Connection>::Options,
    nowhere: <D::Connection as sqlx::Connection>::Options,
) -> Result<(), Error> {
    let failed = |error: sqlx::Error| classify::connecting(&error);
    pool.acquire().await.map_err(failed)?.close().await.map_err(failed)?;
    make(pool, options, nowhere).await
}

/// Makes the pool's only connection.
async fn make<D: Database>(
    pool: &Pool<D>,
    options: <D::Connection as sqlx::Connection>::Options,
    nowhere: <D::Connection as sqlx::Connection>::Options,
) -> Result<(), Error> {
    pool.set_connect_options(options);
    let made = pool.acquire().await.map(drop).map_err(|error| classify::connecting(&error));
    pool.set_connect_options(nowhere);
    made
}

/// Through the tunnel, whose own end is encrypted.
fn led(options: MySqlConnectOptions, tunnel: &Tunnel) -> MySqlConnectOptions {
    options.socket(tunnel.socket()).ssl_mode(MySqlSslMode::Disabled)
}

/// Whether no address of a named host is one that no database has. The name may have meant another one when the URL was
/// registered.
async fn resolves_to_a_database(target: &Target) -> Result<(), Error> {
    let (Server { host, port, .. }, _) = server(target)?;
    let Host::Name(name) = host else { return Ok(()) };
    // What cannot be looked up is told by the driver, which looks it up again.
    let Ok(addresses) = tokio::net::lookup_host((name, port)).await else { return Ok(()) };
    if addresses.into_iter().any(|address| is_never_a_database(address.ip())) {
        let why =
            "the host's name leads to an address that no database has: link-local, unspecified or multicast";
        return Err(Error::Refused { attempted: CONNECT, why: why.to_owned() });
    }
    Ok(())
}
