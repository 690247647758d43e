//! One session with a tenant's database.

use super::lock::Lock;
use super::pool::{Beside, pool};
use super::{Error, Names, Sql, Stop, Target, Timeouts, classify};
use crate::files::Dialect;
use futures::TryFutureExt as _;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, QueryResult, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, sqlx,
};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often a statement is told to stop; the last time, its session is ended.
const STOP_ATTEMPTS: u32 = 5;
/// How long a statement that was told to stop may take to do so.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Longer than any statement of ours takes on a database that is well.
const OWN_DEADLINE: Duration = Duration::from_secs(30);

/// One session with a tenant's database, with the migrator's settings.
#[derive(Debug)]
pub struct Connection {
    pub(super) db: DatabaseConnection,
    pub(super) target: Target,
    pub(super) timeouts: Timeouts,
    pub(super) names: Names,
    pub(super) lock: Option<Lock>,
    /// The server's number for the session; 0 for SQLite.
    session: i64,
    /// The schema or database that statements work in.
    place: String,
    pub(super) server: Option<crate::plan::Server>,
    pub(super) beside: Arc<Beside>,
    lost: AtomicBool,
}

impl Connection {
    /// Connects, and sets the session up: timeouts, and the schema that names without one mean.
    ///
    /// # Errors
    /// When the database does not answer or does not let the migrator in.
    pub async fn open(target: &Target, timeouts: &Timeouts) -> Result<Self, Error> {
        let beside = Arc::<Beside>::default();
        let attempted = "connect to the tenant's database";
        // Its own deadline does not count a server that takes the connection and then says nothing.
        let limit = timeouts.connect + Duration::from_millis(200);
        let db = timeout(limit, Box::pin(pool(target, timeouts, &beside)))
            .await
            .map_err(|_| Error::Unreachable { attempted, why: "no answer in time".to_owned() })??;
        let mut connection = Self {
            db,
            names: Names::of(&target.service),
            target: target.clone(),
            timeouts: *timeouts,
            lock: None,
            session: 0,
            place: "main".to_owned(),
            server: None,
            beside,
            lost: AtomicBool::new(false),
        };
        timeout(limit, Box::pin(connection.set_up()))
            .await
            .map_err(|_| Error::Unreachable { attempted, why: "no answer in time".to_owned() })??;
        Ok(connection)
    }

    /// Which database it is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The dialect.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.target.dialect
    }

    /// How long is waited.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The names of the migrator's tables.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The schema (PostgreSQL) or database (MySQL family) that names without one mean.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether the server is MariaDB.
    #[must_use]
    pub fn is_mariadb(&self) -> bool {
        self.server.is_some_and(|server| server.mariadb)
    }

    pub(crate) fn sql(&self) -> Sql {
        Sql(self.target.dialect)
    }

    /// The session, for statements outside a transaction.
    pub(crate) fn db(&self) -> &DatabaseConnection {
        &self.db
    }

    /// Begins a transaction; in SQLite it has the write lock at once.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction, Error> {
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode, ..TransactionOptions::default() };
        // SQLite waits for its write lock here.
        let limit = OWN_DEADLINE + self.timeouts.lock;
        self.own("begin a transaction", limit, self.db.begin_with_options(options)).await
    }

    /// Commits. An error leaves it open whether the transaction took effect.
    pub(crate) async fn commit(&self, transaction: DatabaseTransaction) -> Result<(), Error> {
        // Deferred constraints are looked at now, which takes as long as a statement may.
        let limit = OWN_DEADLINE + self.timeouts.statement;
        self.own("commit a transaction", limit, transaction.commit()).await
    }

    /// Rolls back; if that fails, the session is lost and the database does it.
    pub(crate) async fn roll_back(&self, transaction: DatabaseTransaction) {
        if self.target.dialect == Dialect::Sqlite {
            // A statement that was stopped has ended the transaction, and where there is none, ending it is a fault.
            let begun = transaction.execute_unprepared("BEGIN");
            drop(self.own("roll a transaction back", OWN_DEADLINE, begun).await);
        }
        if let Err(error) = self.own("roll a transaction back", OWN_DEADLINE, transaction.rollback()).await {
            self.lost.store(true, Ordering::Relaxed);
            tracing::debug!(error = %error, "rollback was not answered");
        }
    }

    /// Runs one of the migrator's own statements; returns the rows that it changed.
    pub(crate) async fn run(
        &self,
        on: &impl ConnectionTrait,
        attempted: &'static str,
        statement: Statement,
    ) -> Result<u64, Error> {
        let result = self.own(attempted, OWN_DEADLINE, on.execute_raw(statement)).await?;
        Ok(result.rows_affected())
    }

    /// Runs one of the migrator's own queries.
    pub(crate) async fn rows(
        &self,
        on: &impl ConnectionTrait,
        attempted: &'static str,
        statement: Statement,
    ) -> Result<Vec<QueryResult>, Error> {
        self.own(attempted, OWN_DEADLINE, on.query_all_raw(statement)).await
    }

    /// Runs one of the migrator's own queries without values, outside a transaction. PostgreSQL also takes several
    /// statements, separated by semicolons, and answers with the rows of all.
    ///
    /// A session asks each of them once or twice, so on PostgreSQL they are not prepared: that is a round trip each.
    pub(crate) async fn ask(
        &self,
        attempted: &'static str,
        query: impl Into<String>,
    ) -> Result<Vec<QueryResult>, Error> {
        if self.target.dialect != Dialect::Postgres {
            return self.rows(&self.db, attempted, self.sql().plain(query)).await;
        }
        let script = sqlx::raw_sql(sqlx::AssertSqlSafe(query.into()));
        let rows = script.fetch_all(self.db.get_postgres_connection_pool());
        let rows = rows.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))));
        let rows = self.own(attempted, OWN_DEADLINE, rows).await?;
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }

    /// Runs a statement of a file; returns the rows that it changed. When it is time to stop, the statement is stopped.
    ///
    /// # Errors
    /// With [`Error::Unreachable`] if it is not known whether it took effect; any other: it did not.
    pub(crate) async fn execute(
        &self,
        on: &impl ConnectionTrait,
        sql: &str,
        line: u32,
        stop: &Stop,
    ) -> Result<u64, Error> {
        let running = Box::pin(on.execute_unprepared(sql));
        self.stoppable(running, line, stop).await.map(|result| result.rows_affected())
    }

    /// Runs a query of a check file; returns the first row.
    pub(crate) async fn first_row(
        &self,
        on: &impl ConnectionTrait,
        sql: &str,
        line: u32,
        stop: &Stop,
    ) -> Result<Option<QueryResult>, Error> {
        let running = Box::pin(on.query_one_raw(self.sql().plain(sql)));
        self.stoppable(running, line, stop).await
    }

    async fn stoppable<T>(
        &self,
        mut running: impl Future<Output = Result<T, DbErr>> + Unpin,
        line: u32,
        stop: &Stop,
    ) -> Result<T, Error> {
        stop.check()?;
        self.still_there("run a statement")?;
        let by_itself = Instant::now() + self.timeouts.statement;
        let cause = tokio::select! {
            result = &mut running => return self.known("run a statement", line, result),
            () = stop.token.cancelled() => Error::Cancelled,
            () = tokio::time::sleep_until(stop.deadline) => Error::OutOfTime,
            () = tokio::time::sleep_until(by_itself) => Error::Statement {
                attempted: "run a statement",
                code: "57014".to_owned(),
                message: format!("stopped after {:?}", self.timeouts.statement),
                line,
            },
        };
        let mut ended = Err(());
        for attempt in 1..=STOP_ATTEMPTS {
            self.stop_statement(attempt == STOP_ATTEMPTS).await;
            // A server that is told before it has begun the statement forgets it: it is told again.
            if let Ok(result) = timeout(STOP_PATIENCE, &mut running).await {
                ended = Ok(result);
                break;
            }
        }
        self.beside.interrupt.store(false, Ordering::Relaxed);
        match ended {
            // It had ended by itself: that is as good as never having been told to stop.
            Ok(Ok(value)) => Ok(value),
            Ok(result @ Err(_)) => match self.known("run a statement", line, result) {
                Err(error) if error.is_unreachable() => Err(error),
                _ => Err(cause),
            },
            Err(()) => {
                self.lost.store(true, Ordering::Relaxed);
                let why = "a statement did not stop when told to".to_owned();
                Err(Error::Unreachable { attempted: "stop a statement", why })
            }
        }
    }

    /// Tells the server, over another connection, to stop what this session runs, or to `end` the session.
    async fn stop_statement(&self, end: bool) {
        self.beside.interrupt.store(true, Ordering::Relaxed);
        let sql = match (self.target.dialect, end) {
            (Dialect::Postgres, false) => format!("SELECT pg_cancel_backend({})", self.session),
            (Dialect::Postgres, true) => format!("SELECT pg_terminate_backend({})", self.session),
            (Dialect::MySql, false) => format!("KILL QUERY {}", self.session),
            (Dialect::MySql, true) => format!("KILL CONNECTION {}", self.session),
            (Dialect::Sqlite, _) => return,
        };
        let kill = async {
            let other = pool(&self.target, &self.timeouts, &Arc::default()).await?;
            let told = other.execute_unprepared(&sql).await;
            told.map_err(|error| classify::statement("stop a statement", 0, &error))
        };
        match timeout(OWN_DEADLINE, Box::pin(kill)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "a statement could not be told to stop"),
            Err(_) => tracing::warn!("a statement could not be told to stop in time"),
        }
    }

    async fn own<T>(
        &self,
        attempted: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, Error> {
        self.still_there(attempted)?;
        match timeout(limit, Box::pin(work)).await {
            Ok(result) => self.known(attempted, 0, result),
            Err(_) => {
                self.lost.store(true, Ordering::Relaxed);
                Err(Error::Unreachable { attempted, why: format!("no answer within {limit:?}") })
            }
        }
    }

    fn known<T>(&self, attempted: &'static str, line: u32, result: Result<T, DbErr>) -> Result<T, Error> {
        result.map_err(|error| {
            let error = classify::statement(attempted, line, &error);
            if error.is_unreachable() {
                self.lost.store(true, Ordering::Relaxed);
            }
            error
        })
    }

    fn still_there(&self, attempted: &'static str) -> Result<(), Error> {
        if self.lost.load(Ordering::Relaxed) {
            Err(Error::Unreachable { attempted, why: "the connection is lost".to_owned() })
        } else {
            Ok(())
        }
    }

    async fn set_up(&mut self) -> Result<(), Error> {
        match self.target.dialect {
            Dialect::Postgres => self.set_up_postgres().await,
            Dialect::MySql => self.set_up_mysql().await,
            Dialect::Sqlite => {
                // Also finds out whether the file is a database.
                let attempted = "read the tenant's database";
                let rows = self
                    .rows(
                        &self.db,
                        attempted,
                        self.sql()
                            .plain("SELECT sqlite_version() AS v, (SELECT count(*) FROM sqlite_master) AS n"),
                    )
                    .await;
                let rows = rows.map_err(refused)?;
                let version: String = column(rows.first(), "v")?;
                self.server = server(&version, false);
                Ok(())
            }
        }
    }

    async fn set_up_postgres(&mut self) -> Result<(), Error> {
        let sql = self.sql();
        let Timeouts { lock, statement, .. } = self.timeouts;
        let mut settings = format!(
            "SET standard_conforming_strings = on; SET lock_timeout = {}; SET statement_timeout = {}; \
             SET client_min_messages = warning",
            lock.as_millis(),
            statement.as_millis()
        );
        if let Some(schema) = &self.target.schema {
            settings.push_str(&format!("; SET search_path = {}", sql.quoted(schema)));
        }
        settings.push_str(
            "; SELECT pg_backend_pid()::bigint AS pid, current_schema()::text AS place, \
             current_setting('server_version') AS version",
        );
        let rows = self.ask("set the session up", settings).await?;
        self.session = column(rows.first(), "pid")?;
        let place: Option<String> = column(rows.first(), "place")?;
        let attempted = "find the tenant's schema";
        self.place = place.ok_or_else(|| {
            let why = match &self.target.schema {
                Some(schema) => format!("schema {schema} does not exist"),
                None => "the search path names no schema".to_owned(),
            };
            Error::Refused { attempted, why }
        })?;
        self.server = server(&column::<String>(rows.first(), "version")?, false);
        Ok(())
    }

    async fn set_up_mysql(&mut self) -> Result<(), Error> {
        let sql = self.sql();
        let attempted = "set the session up";
        let query = "SELECT CAST(CONNECTION_ID() AS SIGNED) AS id, VERSION() AS version, DATABASE() AS place";
        let rows = self.rows(&self.db, attempted, sql.plain(query)).await?;
        self.session = column(rows.first(), "id")?;
        let version: String = column(rows.first(), "version")?;
        self.server = server(&version, version.to_ascii_lowercase().contains("mariadb"));
        let place: Option<String> = column(rows.first(), "place")?;
        let attempted_place = "find the tenant's database";
        let unnamed =
            || Error::Refused { attempted: attempted_place, why: "the URL names no database".to_owned() };
        self.place = place.ok_or_else(unnamed)?;
        let lock = self.timeouts.lock.as_secs().max(1);
        let mut settings = vec![
            format!("SET SESSION lock_wait_timeout = {lock}"),
            format!("SET SESSION innodb_lock_wait_timeout = {lock}"),
        ];
        if self.is_mariadb() {
            // MySQL has no such limit but for SELECT: there only this side's clock stops a statement.
            let seconds = self.timeouts.statement.as_secs_f64();
            settings.push(format!("SET SESSION max_statement_time = {seconds:.3}"));
        }
        for setting in settings {
            self.own(attempted, OWN_DEADLINE, self.db.execute_unprepared(&setting)).await?;
        }
        Ok(())
    }
}

/// A column of a row of one of the migrator's own queries.
pub(super) fn column<T: sea_orm::TryGetable>(row: Option<&QueryResult>, name: &str) -> Result<T, Error> {
    let row = row.ok_or_else(|| Error::Corrupt(format!("a query for {name} gave no row")))?;
    row.try_get("", name).map_err(|_| Error::Corrupt(format!("column {name} is not as it was written")))
}

fn refused(error: Error) -> Error {
    match error {
        Error::Statement { attempted, message, .. } => Error::Refused { attempted, why: message },
        other => other,
    }
}

/// Reads `10.11.6-MariaDB`, `15.4 (Debian …)`, `3.46.0`.
fn server(version: &str, mariadb: bool) -> Option<crate::plan::Server> {
    // Old clients are told that MariaDB is `5.5.5-10.…`.
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(crate::plan::Server { major, minor, mariadb })
}
