//! What a session is like when it begins, that it is so again before each file, and that it still is before a commit.
//!
//! Behind a pooler such as `PgBouncer` a session is lent: statements of one client run in sessions that others have set up,
//! and what it sets stays behind for them. Such a connection is refused before anything is set. All settings travel with the
//! start of the session, among them a random one; where that one is not there, somebody else began the session.

use super::connect::{Connection, OWN_DEADLINE, column};
use super::lock::Lock;
use super::pool::{TAG, reconnect};
use super::{Error, Timeouts};
use crate::files::Dialect;
use sea_orm::{ConnectionTrait, QueryResult};
use std::sync::atomic::Ordering;

/// What a session is like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Session {
    /// The server's number for it; 0 for SQLite.
    pub(super) number: i64,
    /// The schemas (PostgreSQL) or the database (MySQL family) that names without one mean.
    pub(super) path: String,
    /// As whom statements run.
    pub(super) role: String,
}

/// That a transaction was verified, and may be committed.
#[must_use]
pub(crate) struct Verified(());

/// What is found in place of it.
enum Found {
    /// The same.
    Same,
    /// The same session without the lock.
    Unlocked,
    /// Another session.
    Another,
    /// The same session elsewhere: what it works in, and as whom.
    Elsewhere(String, String),
}

/// Leads a session of PostgreSQL back to how it began. As DISCARD ALL, which would also drop the lock, and the statements
/// that the driver has prepared.
const CLEAR: &str = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD SEQUENCES; \
     DISCARD TEMP; DISCARD PLANS; DO $$ DECLARE it text; BEGIN FOR it IN SELECT name FROM pg_catalog.pg_prepared_statements \
     WHERE from_sql LOOP EXECUTE pg_catalog.format('DEALLOCATE %I', it); END LOOP; END $$";

impl Connection {
    /// Reads what the session is like, and sets what has to be set in it.
    pub(super) async fn set_up(&mut self, tag: &str) -> Result<(), Error> {
        match self.target.dialect {
            Dialect::Postgres => self.set_up_postgres(tag).await,
            Dialect::MySql => self.set_up_mysql().await,
            Dialect::Sqlite => {
                // Also finds out whether the file is a database.
                let query = "SELECT sqlite_version() AS v, (SELECT count(*) FROM sqlite_master) AS n";
                let query = self.sql().plain(query);
                let rows = self.rows(&self.db, "read the tenant's database", query).await.map_err(refused)?;
                self.server = server(&column::<String>(rows.first(), "v")?, false);
                Ok(())
            }
        }
    }

    async fn set_up_postgres(&mut self, tag: &str) -> Result<(), Error> {
        let query = format!(
            "SELECT current_setting('{TAG}', true) AS tag, pg_backend_pid()::bigint AS number, \
             current_schemas(false)::text AS path, {POSTGRES_ROLE} AS role, current_schema()::text AS place, \
             current_setting('server_version') AS version"
        );
        let rows = self.ask("set the session up", query).await?;
        if column::<Option<String>>(rows.first(), "tag")?.as_deref() != Some(tag) {
            return Err(Error::Pooled);
        }
        self.session = session(rows.first())?;
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
        let query = "SELECT VERSION() AS version, DATABASE() AS place";
        let rows = self.rows(&self.db, "set the session up", self.sql().plain(query)).await?;
        let version: String = column(rows.first(), "version")?;
        self.server = server(&version, version.to_ascii_lowercase().contains("mariadb"));
        let place: Option<String> = column(rows.first(), "place")?;
        let attempted = "find the tenant's database";
        let unnamed = || Error::Refused { attempted, why: "the URL names no database".to_owned() };
        self.place = place.ok_or_else(unnamed)?;
        self.session = self.begin_mysql_session().await?;
        Ok(())
    }

    /// Sets up a session of the MySQL family, whose settings do not travel with its start.
    async fn begin_mysql_session(&self) -> Result<Session, Error> {
        let attempted = "set the session up";
        let Timeouts { lock, statement, .. } = self.timeouts;
        let lock = lock.as_secs().max(1);
        let mut settings = vec![
            format!("SET SESSION lock_wait_timeout = {lock}"),
            format!("SET SESSION innodb_lock_wait_timeout = {lock}"),
        ];
        if self.is_mariadb() {
            // MySQL has no such limit but for SELECT: there only this side's clock stops a statement.
            settings.push(format!("SET SESSION max_statement_time = {:.3}", statement.as_secs_f64()));
        }
        for setting in settings {
            self.own(attempted, OWN_DEADLINE, self.db.execute_unprepared(&setting)).await?;
        }
        let query = format!(
            "SELECT CAST(CONNECTION_ID() AS SIGNED) AS number, DATABASE() AS path, {} AS role",
            self.mysql_role()
        );
        let rows = self.rows(&self.db, attempted, self.sql().plain(query)).await?;
        session(rows.first())
    }

    /// MySQL has roles since version 8.
    fn mysql_role(&self) -> &'static str {
        match self.server {
            Some(server) if server.mariadb || server.major >= 8 => {
                "CONVERT(CONCAT(CURRENT_USER(), ' ', COALESCE(CURRENT_ROLE(), 'NONE')) USING utf8mb4)"
            }
            _ => "CONVERT(CURRENT_USER() USING utf8mb4)",
        }
    }

    /// Leads back to a session as it begins: settings, temporary objects, roles, prepared statements, variables. Each file
    /// starts from it, whichever were run before. The lock on the history is kept.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn renew(&self) -> Result<(), Error> {
        if !self.used.load(Ordering::Relaxed) {
            return Ok(());
        }
        let attempted = "begin a session for a file";
        match self.target.dialect {
            Dialect::Postgres => {
                self.ask(attempted, CLEAR).await?;
            }
            Dialect::MySql => {
                self.exchange().await?;
                let begun = self.begin_mysql_session().await?;
                self.number.store(begun.number, Ordering::Relaxed);
                self.take_working_lock().await?;
            }
            Dialect::Sqlite => self.exchange().await?,
        }
        self.used.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Another session in the place of this one.
    async fn exchange(&self) -> Result<(), Error> {
        self.still_there("begin a session for a file")?;
        let limit = OWN_DEADLINE + self.timeouts.connect;
        let made =
            tokio::time::timeout(limit, Box::pin(reconnect(&self.db, &self.target, &self.timeouts))).await;
        let made = made.unwrap_or_else(|_| {
            let why = format!("no answer within {limit:?}");
            Err(Error::Unreachable { attempted: "begin a session for a file", why })
        });
        if made.is_err() {
            self.lost.store(true, Ordering::Relaxed);
        }
        made
    }

    /// As [`Self::verify`], after the last statement of a file and before the migrator's own, which a file that has led
    /// elsewhere would let fail for reasons that tell nothing.
    pub(crate) async fn verified(&self, on: &impl ConnectionTrait) -> Result<Verified, Error> {
        if self.lock.is_some() {
            self.verify(on).await?;
        }
        Ok(Verified(()))
    }

    /// Finds out whether `on` is still the session that was begun, holds the lock, works where it began and as whom, and, if
    /// it is a transaction, has changed nothing of another tenant.
    ///
    /// # Errors
    /// With [`Error::Unreachable`] when the lock is lost, [`Error::Pooled`] when it is another session, and
    /// [`Error::Conflict`] when a file has led elsewhere.
    pub(super) async fn verify(&self, on: &impl ConnectionTrait) -> Result<(), Error> {
        let attempted = "verify the lock on the migration history";
        let Some(query) = self.proof(attempted)? else { return Ok(()) };
        let rows = self.rows(on, attempted, self.sql().plain(query)).await?;
        let row = rows.first();
        match self.found(row)? {
            Found::Same => {}
            Found::Unlocked => {
                return Err(Error::Unreachable { attempted, why: "it is no longer held".to_owned() });
            }
            Found::Another => {
                self.lost.store(true, Ordering::Relaxed);
                return Err(Error::Pooled);
            }
            Found::Elsewhere(path, role) => return Err(self.left(&path, &role)),
        }
        if self.target.dialect == Dialect::Postgres && self.target.schema.is_some() {
            self.others_untouched(on, row).await?;
        }
        Ok(())
    }

    /// The query that tells; none: there is nothing to ask.
    fn proof(&self, attempted: &'static str) -> Result<Option<String>, Error> {
        Ok(match &self.lock {
            Some(Lock::Advisory(key)) => {
                let (high, low) = (key.cast_unsigned() >> 32, key.cast_unsigned() & 0xffff_ffff);
                let place = self.sql().literal(self.place());
                let touched = match self.target.schema {
                    None => String::new(),
                    Some(_) => TOUCHED.replace("$PLACE", &place),
                };
                Some(format!(
                    "WITH mine AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks WHERE pid = pg_backend_pid() AND granted) \
                     SELECT pg_backend_pid()::bigint AS number, current_schemas(false)::text AS path, \
                     {POSTGRES_ROLE} AS role, (SELECT count(*) FROM mine WHERE locktype = 'advisory' \
                     AND classid::bigint = {high} AND objid::bigint = {low}) AS held{touched}"
                ))
            }
            // Another text each time: a statement that was prepared before runs in the database in which it was.
            Some(Lock::Named { kept, working, keeper, .. }) => Some(format!(
                "/* {nonce} */ SELECT CAST(CONNECTION_ID() AS SIGNED) AS number, DATABASE() AS path, {role} AS role, \
                 CAST(COALESCE(IS_USED_LOCK('{kept}') = {keeper} AND IS_USED_LOCK('{working}') = CONNECTION_ID(), 0) \
                 AS SIGNED) AS held",
                nonce = self.proofs.fetch_add(1, Ordering::Relaxed),
                role = self.mysql_role()
            )),
            Some(Lock::Beside) => None,
            None => return Err(Error::Unreachable { attempted, why: "it was not taken".to_owned() }),
        })
    }

    fn found(&self, row: Option<&QueryResult>) -> Result<Found, Error> {
        let now = session(row)?;
        let same = now.number == self.number.load(Ordering::Relaxed);
        Ok(match column::<i64>(row, "held")? {
            _ if !same => Found::Another,
            0 => Found::Unlocked,
            _ if now.path == self.session.path && now.role == self.session.role => Found::Same,
            _ => Found::Elsewhere(now.path, now.role),
        })
    }

    fn left(&self, path: &str, role: &str) -> Error {
        let Session { path: was, role: before, .. } = &self.session;
        let text = if path == was {
            format!("it goes on as {role} instead of {before}: a file must not change the role")
        } else {
            let path = if path.is_empty() { "nothing" } else { path };
            format!(
                "it leaves the tenant's place, {was}: names without a schema mean {path} after it; a file must work where \
                 it begins"
            )
        };
        Error::Conflict(text)
    }

    /// Whether a transaction holds no lock, other than for reading, on anything in a schema of another tenant: one that has a
    /// history of migrations, too.
    async fn others_untouched(
        &self,
        on: &impl ConnectionTrait,
        row: Option<&QueryResult>,
    ) -> Result<(), Error> {
        let attempted = "look for other tenants' schemas";
        let mut schemas: Option<String> = column(row, "touched")?;
        // A session that sees what the transaction has dropped, histories of migrations among it.
        let mut beside = None;
        if let Some(gone) = column::<Option<String>>(row, "gone")? {
            // What the transaction has dropped is there for others until it commits.
            let query = format!(
                "SELECT string_agg(DISTINCT n.nspname::text, E'\\n') AS touched FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN ({gone}) AND n.nspname <> {} \
                 AND n.nspname NOT LIKE 'pg\\_%'",
                self.sql().literal(self.place())
            );
            let other = self.another(attempted, "look").await?;
            let rows = self.rows(&other, attempted, self.sql().plain(query)).await?;
            let dropped: Option<String> = column(rows.first(), "touched")?;
            beside = Some(other);
            schemas = match (schemas, dropped) {
                (Some(one), Some(other)) => Some(format!("{one}\n{other}")),
                (one, other) => one.or(other),
            };
        }
        let Some(schemas) = schemas else { return Ok(()) };
        let sql = self.sql();
        let list: Vec<String> = schemas.lines().map(|name| sql.literal(name)).collect();
        let query = format!(
            "SELECT min(n.nspname::text) AS name FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c \
             ON c.relnamespace = n.oid AND c.relname LIKE 'grey\\_schema\\_history\\_%' WHERE n.nspname IN ({})",
            list.join(", ")
        );
        let rows = match &beside {
            Some(other) => self.rows(other, attempted, sql.plain(query)).await?,
            None => self.rows(on, attempted, sql.plain(query)).await?,
        };
        match column::<Option<String>>(rows.first(), "name")? {
            None => Ok(()),
            Some(name) => Err(Error::Conflict(format!(
                "it changes schema {name}, which has migrations of its own: a file changes its own tenant only"
            ))),
        }
    }
}

/// As whom statements run in PostgreSQL.
const POSTGRES_ROLE: &str = "(current_user::text || CASE WHEN current_user = session_user THEN '' \
     ELSE ' of ' || session_user::text END)";

/// The schemas of what a transaction of PostgreSQL has locked for more than reading, and the numbers of what it has dropped.
const TOUCHED: &str = ", (SELECT string_agg(DISTINCT n.nspname::text, E'\\n') FROM mine \
     JOIN pg_catalog.pg_class c ON c.oid = mine.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE mine.locktype = 'relation' AND mine.mode NOT IN ('AccessShareLock', 'RowShareLock') \
     AND n.nspname <> $PLACE AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema') AS touched, \
     (SELECT string_agg(mine.relation::text, ', ') FROM mine LEFT JOIN pg_catalog.pg_class c ON c.oid = mine.relation \
     WHERE mine.locktype = 'relation' AND mine.mode = 'AccessExclusiveLock' AND c.oid IS NULL) AS gone";

fn session(row: Option<&QueryResult>) -> Result<Session, Error> {
    let path: Option<String> = column(row, "path")?;
    Ok(Session { number: column(row, "number")?, path: path.unwrap_or_default(), role: column(row, "role")? })
}

fn refused(error: Error) -> Error {
    match error {
        Error::Statement { attempted, .. } if error.is_lock_timeout() => {
            let why = "another process holds the lock on the SQLite file".to_owned();
            Error::Unreachable { attempted, why }
        }
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
