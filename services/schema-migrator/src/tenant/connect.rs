//! One session with a tenant's database.

use super::answer::Answer;
use super::cause::cause;
use super::lock::Lock;
use super::pool::{Beside, pool};
use super::session::{Session, Verified};
use super::{Error, Names, Sql, Stop, Target, Timeouts, classify};
use crate::files::Dialect;
use futures::TryFutureExt as _;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, QueryResult, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, sqlx,
};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often a statement is told to stop; the last time, its session is ended.
const STOP_ATTEMPTS: u32 = 5;
/// How long a statement that was told to stop may take to do so.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Longer than any statement of ours takes on a database that is well.
pub(super) const OWN_DEADLINE: Duration = Duration::from_secs(30);

/// One session with a tenant's database, with the migrator's settings.
#[derive(Debug)]
pub struct Connection {
    pub(super) db: DatabaseConnection,
    pub(super) target: Target,
    pub(super) timeouts: Timeouts,
    /// How long is waited for the statements of the present file.
    pub(super) limits: Mutex<Timeouts>,
    pub(super) names: Names,
    pub(super) lock: Option<Lock>,
    /// What the session was like when it began.
    pub(super) session: Session,
    /// The server's number for the present session; 0 for SQLite.
    pub(super) number: AtomicI64,
    /// The schema or database that statements work in.
    pub(super) place: String,
    /// Whether statements of files have run in the session.
    pub(super) used: AtomicBool,
    /// How many times it was asked whether it is the same.
    pub(super) proofs: AtomicU64,
    pub(super) server: Option<crate::plan::Server>,
    pub(super) beside: Arc<Beside>,
    pub(super) lost: AtomicBool,
}

impl Connection {
    /// Connects, and sets the session up: timeouts, and the schema that names without one mean.
    ///
    /// # Errors
    /// When the database does not answer or does not let the migrator in, or a pooler stands between.
    pub async fn open(target: &Target, timeouts: &Timeouts) -> Result<Self, Error> {
        let beside = Arc::<Beside>::default();
        let attempted = "connect to the tenant's database";
        // Its own deadline does not count a server that takes the connection and then says nothing.
        let limit = timeouts.connect + Duration::from_millis(200);
        let late = || Error::Unreachable { attempted, why: "no answer in time".to_owned() };
        let tag = uuid::Uuid::new_v4().simple().to_string();
        let connected = timeout(limit, Box::pin(pool(target, timeouts, &tag, &beside))).await;
        let db = match connected.unwrap_or_else(|_| Err(late())) {
            Ok(db) => db,
            Err(error) if error == late() => return Err(Box::pin(cause(target, timeouts, error)).await),
            Err(error) => return Err(error),
        };
        let mut connection = Self {
            db,
            names: Names::of(&target.service),
            target: target.clone(),
            timeouts: *timeouts,
            limits: Mutex::new(*timeouts),
            lock: None,
            session: Session::default(),
            number: AtomicI64::new(0),
            place: "main".to_owned(),
            used: AtomicBool::new(false),
            proofs: AtomicU64::new(0),
            server: None,
            beside,
            lost: AtomicBool::new(false),
        };
        timeout(limit, Box::pin(connection.set_up(&tag)))
            .await
            .map_err(|_| Error::Unreachable { attempted, why: "no answer in time".to_owned() })??;
        connection.number.store(connection.session.number, Ordering::Relaxed);
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

    /// Whether the server keeps a comment with a database: MariaDB does since version 10.5.
    #[must_use]
    pub(crate) fn marks_databases(&self) -> bool {
        self.server.is_some_and(|server| server.mariadb && (server.major, server.minor) >= (10, 5))
    }

    /// A table of the migrator's own, wherever names without a schema may lead.
    pub(super) fn own_table(&self, name: &str) -> String {
        format!("{}.{name}", self.sql().quoted(&self.place))
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

    /// Commits, if it is still this session, with the lock, and where it began; see [`Self::verify`]. Otherwise it is rolled
    /// back. Another error leaves it open whether the transaction took effect.
    pub(crate) async fn commit(&self, transaction: DatabaseTransaction) -> Result<(), Error> {
        match Box::pin(self.verified(&transaction)).await {
            Ok(verified) => self.commit_verified(transaction, verified).await,
            Err(error) => {
                self.roll_back(transaction).await;
                Err(error)
            }
        }
    }

    /// Commits what was verified after the last statement of a file. Another error leaves it open whether the transaction took
    /// effect.
    pub(crate) async fn commit_verified(
        &self,
        transaction: DatabaseTransaction,
        _: Verified,
    ) -> Result<(), Error> {
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

    /// Another session with the same database.
    pub(super) async fn another(
        &self,
        attempted: &'static str,
        tag: &str,
    ) -> Result<DatabaseConnection, Error> {
        let limit = OWN_DEADLINE + self.timeouts.connect;
        let beside = match self.target.dialect {
            // What is cut short of one ends both.
            Dialect::MySql => Arc::clone(&self.beside),
            Dialect::Postgres | Dialect::Sqlite => Arc::default(),
        };
        let opened = timeout(limit, Box::pin(pool(&self.target, &self.timeouts, tag, &beside))).await;
        opened.unwrap_or_else(|_| {
            Err(Error::Unreachable { attempted, why: format!("no answer within {limit:?}") })
        })
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

    /// Runs one of the migrator's own statements as it is, without preparing it. PostgreSQL takes several, which are one
    /// transaction.
    pub(crate) async fn command(&self, attempted: &'static str, sql: &str) -> Result<(), Error> {
        self.own(attempted, OWN_DEADLINE, self.db.execute_unprepared(sql)).await.map(drop)
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
        self.used.store(true, Ordering::Relaxed);
        let running = Box::pin(on.execute_unprepared(sql));
        let result = self.stoppable(running, line, stop).await.map(|result| result.rows_affected());
        result.map_err(|error| error.about(sql, self.target.dialect))
    }

    /// Runs a query of a check file; returns the first row.
    pub(crate) async fn first_row(
        &self,
        on: &impl ConnectionTrait,
        sql: &str,
        line: u32,
        stop: &Stop,
    ) -> Result<Option<QueryResult>, Error> {
        self.used.store(true, Ordering::Relaxed);
        let running = Box::pin(on.query_one_raw(self.sql().plain(sql)));
        self.stoppable(running, line, stop).await.map_err(|error| error.about(sql, self.target.dialect))
    }

    async fn stoppable<T>(
        &self,
        running: impl Future<Output = Result<T, DbErr>> + Unpin,
        line: u32,
        stop: &Stop,
    ) -> Result<T, Error> {
        stop.check()?;
        self.still_there("run a statement")?;
        let mut running = Answer::to(running, &self.beside);
        let longest = self.limits().statement;
        let by_itself = Instant::now() + longest;
        let cause = tokio::select! {
            result = &mut running => return self.known("run a statement", line, result),
            () = stop.token.cancelled() => Error::Cancelled,
            () = tokio::time::sleep_until(stop.deadline) => Error::OutOfTime,
            () = tokio::time::sleep_until(by_itself) => Error::Statement {
                attempted: "run a statement",
                code: "57014".to_owned(),
                message: format!("stopped after {longest:?}"),
                line,
                text: String::new(),
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
        let number = self.number.load(Ordering::Relaxed);
        let sql = match (self.target.dialect, end) {
            (Dialect::Postgres, false) => format!("SELECT pg_cancel_backend({number})"),
            (Dialect::Postgres, true) => format!("SELECT pg_terminate_backend({number})"),
            (Dialect::MySql, false) => format!("KILL QUERY {number}"),
            (Dialect::MySql, true) => format!("KILL CONNECTION {number}"),
            (Dialect::Sqlite, _) => return,
        };
        let kill = async {
            let other = pool(&self.target, &self.timeouts, "stop", &Arc::default()).await?;
            let told = other.execute_unprepared(&sql).await;
            told.map_err(|error| classify::statement("stop a statement", 0, &error))
        };
        match timeout(OWN_DEADLINE, Box::pin(kill)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "a statement could not be told to stop"),
            Err(_) => tracing::warn!("a statement could not be told to stop in time"),
        }
    }

    pub(super) async fn own<T>(
        &self,
        attempted: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, Error> {
        self.still_there(attempted)?;
        match timeout(limit, Answer::to(Box::pin(work), &self.beside)).await {
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

    pub(super) fn still_there(&self, attempted: &'static str) -> Result<(), Error> {
        if self.lost.load(Ordering::Relaxed) {
            Err(Error::Unreachable { attempted, why: "the connection is lost".to_owned() })
        } else {
            Ok(())
        }
    }
}

/// A column of a row of one of the migrator's own queries.
pub(crate) fn column<T: sea_orm::TryGetable>(row: Option<&QueryResult>, name: &str) -> Result<T, Error> {
    let row = row.ok_or_else(|| Error::Corrupt(format!("a query for {name} gave no row")))?;
    row.try_get("", name).map_err(|_| Error::Corrupt(format!("column {name} is not as it was written")))
}
