//! Fresh tenant databases on real servers, and migrations for them.

use crate::files::load;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use grey_runtime::Secret;
use grey_schema_migrator::files::{Dialect, Scripts};
use grey_schema_migrator::plan::{self, Options};
use grey_schema_migrator::run::{Ended, Goal, Job, MigrateError, Migration, Progress, Tooling, migrate};
use grey_schema_migrator::tenant::{Connection, Stop, Target, Timeouts};
use grey_testkit::{MariaDb, Mysql, Postgres};
use sea_orm::{ConnectionTrait, Database, Statement};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

static POSTGRES: OnceCell<Postgres> = OnceCell::const_new();
static MARIADB: OnceCell<Family> = OnceCell::const_new();
static EQUIPMENT: OnceLock<Tooling> = OnceLock::new();
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// One PostgreSQL server for all tests; each has databases of its own on it.
pub(crate) async fn postgres() -> &'static Postgres {
    POSTGRES.get_or_init(|| async { Postgres::start().await.unwrap() }).await
}

/// A server of the MySQL family.
pub(crate) enum Family {
    MariaDb(MariaDb),
    Mysql(Mysql),
}

impl Family {
    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::MariaDb(server) => server.addr(),
            Self::Mysql(server) => server.addr(),
        }
    }

    pub(crate) async fn database(&self, name: &str) -> anyhow::Result<String> {
        match self {
            Self::MariaDb(server) => server.database(name).await,
            Self::Mysql(server) => server.database(name).await,
        }
    }

    pub(crate) async fn query(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        match self {
            Self::MariaDb(server) => server.query(database, sql).await,
            Self::Mysql(server) => server.query(database, sql).await,
        }
    }
}

/// Set where MySQL itself takes MariaDB's place in all tests.
pub(crate) const ON_MYSQL: &str = "TEST_ON_MYSQL";

pub(crate) fn is_on_mysql() -> bool {
    std::env::var_os(ON_MYSQL).is_some()
}

/// One server of the MySQL family for all tests: MariaDB, or MySQL where [`ON_MYSQL`] is set.
pub(crate) async fn mariadb() -> &'static Family {
    let start = || async {
        if is_on_mysql() {
            Family::Mysql(Mysql::start().await.unwrap())
        } else {
            Family::MariaDb(MariaDb::start().await.unwrap())
        }
    };
    MARIADB.get_or_init(start).await
}

/// A tenant's empty database.
pub(crate) struct World {
    pub(crate) dialect: Dialect,
    pub(crate) target: Target,
    pub(crate) name: String,
    /// Where the SQLite file is.
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) async fn new(dialect: Dialect) -> Self {
        let name = format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let url = match dialect {
            Dialect::Postgres => postgres().await.database(&name).await.unwrap(),
            Dialect::MySql => mariadb().await.database(&name).await.unwrap(),
            Dialect::Sqlite => {
                let file = folder.path().join("tenant.db");
                std::fs::File::create(&file).unwrap();
                format!("sqlite://{}", file.display())
            }
        };
        Self { dialect, target: target(dialect, url), name, folder }
    }

    pub(crate) async fn open(&self) -> Connection {
        Connection::open(&self.target, &timeouts()).await.unwrap()
    }

    /// Opens it as [`patient`] does.
    pub(crate) async fn open_patiently(&self) -> Connection {
        Connection::open(&self.target, &patient()).await.unwrap()
    }

    /// A session of someone else, who may hold what the migrator wants.
    pub(crate) async fn holder(&self) -> sea_orm::DatabaseConnection {
        let mut options = sea_orm::ConnectOptions::new(self.target.url.expose());
        options.max_connections(1);
        Database::connect(options).await.unwrap()
    }

    /// Runs SQL that is not the migrator's; rows are text, a line each.
    pub(crate) async fn sql(&self, sql: &str) -> String {
        match self.dialect {
            Dialect::Postgres => postgres().await.query(&self.name, sql).await.unwrap(),
            Dialect::MySql => mariadb().await.query(&self.name, sql).await.unwrap(),
            Dialect::Sqlite => {
                let db = Database::connect(self.target.url.expose()).await.unwrap();
                if !sql.starts_with("SELECT") {
                    db.execute_unprepared(sql).await.unwrap();
                    return String::new();
                }
                let statement = Statement::from_string(db.get_database_backend(), sql);
                let rows = db.query_all_raw(statement).await.unwrap();
                let text = |row: &sea_orm::QueryResult| {
                    let number = || row.try_get_by_index::<i64>(0).map(|number| number.to_string());
                    row.try_get_by_index::<String>(0).or_else(|_| number()).unwrap()
                };
                rows.iter().map(text).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// Tables, columns and indexes as the database tells them, but for the migrator's.
    pub(crate) async fn shape(&self) -> String {
        let sql = match self.dialect {
            Dialect::Postgres => {
                "SELECT line FROM (SELECT table_name AS name, concat_ws(' ', table_name, column_name, data_type, \
                 is_nullable, column_default) AS line FROM information_schema.columns WHERE table_schema = 'public' \
                 UNION ALL SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public') AS it \
                 WHERE name NOT LIKE 'grey_schema%' ORDER BY line"
            }
            Dialect::MySql => {
                "SELECT line FROM (SELECT table_name AS name, CONCAT_WS(' ', table_name, column_name, column_type, \
                 is_nullable, column_default) AS line FROM information_schema.columns \
                 WHERE table_schema = DATABASE() UNION ALL SELECT table_name, CONCAT_WS(' ', table_name, 'index', \
                 index_name, column_name) FROM information_schema.statistics WHERE table_schema = DATABASE()) AS it \
                 WHERE name NOT LIKE 'grey_schema%' ORDER BY line"
            }
            Dialect::Sqlite => {
                "SELECT COALESCE(sql, name) FROM sqlite_master WHERE tbl_name NOT LIKE 'grey_schema%' \
                 AND tbl_name NOT LIKE 'sqlite_%' ORDER BY 1"
            }
        };
        self.sql(sql).await
    }

    /// The history: version and outcome, oldest first.
    pub(crate) async fn history(&self) -> Vec<String> {
        let history = self.open().await.history().await.unwrap();
        history.entries.iter().map(|entry| format!("{} {}", entry.version, entry.outcome)).collect()
    }

    /// The versions that the history says are applied.
    pub(crate) async fn applied(&self) -> Vec<String> {
        let history = self.open().await.history().await.unwrap();
        assert!(history.leftovers.is_empty(), "{:?}", history.leftovers);
        history.applied().keys().map(ToString::to_string).collect()
    }

    /// Migrates to the newest version as the upgrade `u1`.
    pub(crate) async fn up(&self, scripts: &Scripts) -> Result<Ended, MigrateError> {
        self.migrate(scripts, Goal::Up(plan::Target::Newest), LONG, &mut |_| {}).await
    }

    pub(crate) async fn migrate(
        &self,
        scripts: &Scripts,
        goal: Goal,
        time: Duration,
        listener: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Ended, MigrateError> {
        let stop = Stop::within(time, CancellationToken::new());
        self.migrate_as("u1", scripts, goal, stop, listener).await
    }

    pub(crate) async fn migrate_as(
        &self,
        upgrade: &str,
        scripts: &Scripts,
        goal: Goal,
        stop: Stop,
        listener: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Ended, MigrateError> {
        let job = job(upgrade, scripts, stop);
        let migration = Migration { target: &self.target, timeouts: timeouts(), goal, options: lenient() };
        Box::pin(migrate(&migration, &job, listener)).await
    }

    /// Migrates as [`patient`] does, after a migrator that was killed or went away.
    pub(crate) async fn migrate_patiently(
        &self,
        upgrade: &str,
        scripts: &Scripts,
        goal: Goal,
    ) -> Result<Ended, MigrateError> {
        let job = job(upgrade, scripts, Stop::within(LONG, CancellationToken::new()));
        let migration = Migration { target: &self.target, timeouts: patient(), goal, options: lenient() };
        Box::pin(migrate(&migration, &job, &mut |_| {})).await
    }
}

pub(crate) fn job<'a>(upgrade: &'a str, scripts: &'a Scripts, stop: Stop) -> Job<'a> {
    let tooling = EQUIPMENT.get_or_init(Tooling::default);
    Job { upgrade, actor: "test", scripts, stop, undo_time: LONG, backup: false, tooling }
}

pub(crate) fn target(dialect: Dialect, url: String) -> Target {
    Target {
        tenant: TenantId::new("acme").unwrap(),
        service: ServiceId::new("shop").unwrap(),
        dialect,
        url: Secret::new(url),
        schema: None,
    }
}

pub(crate) fn timeouts() -> Timeouts {
    Timeouts { connect: Duration::from_secs(5), lock: Duration::from_secs(3), statement: LONG }
}

/// For whoever comes after a dead client: its locks go only once the server has ended what it was doing for it.
pub(crate) fn patient() -> Timeouts {
    Timeouts { lock: LONG, ..timeouts() }
}

/// Options under which no lint rule refuses.
pub(crate) fn lenient() -> Options {
    Options { accept: grey_schema_migrator::lint::Rule::ALL.into_iter().collect(), ..Options::default() }
}

pub(crate) fn version(text: &str) -> SchemaVersion {
    SchemaVersion::new(text).unwrap()
}

pub(crate) const V1: (&str, &str) = (
    "V1__items.sql",
    "CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL);\n\
     INSERT INTO items VALUES (1, 'one; two'), (2, 'b');\n",
);
pub(crate) const U1: (&str, &str) = ("U1__items.sql", "DROP TABLE items;\n");
/// Five statements of all kinds.
pub(crate) const V2: (&str, &str) = (
    "V2__notes.sql",
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, body VARCHAR(50));\n\
     ALTER TABLE items ADD COLUMN note INTEGER;\n\
     INSERT INTO notes VALUES (1, 'x');\n\
     CREATE INDEX notes_body ON notes (body);\n\
     UPDATE items SET note = 1 WHERE id = 1;\n",
);
pub(crate) const U2: (&str, &str) =
    ("U2__notes.sql", "ALTER TABLE items DROP COLUMN note;\nDROP TABLE notes;\n");

/// Two migrations that can be undone.
pub(crate) fn scripts(dialect: Dialect) -> Scripts {
    load(dialect, &[V1, U1, V2, U2])
}

/// The same, but the third of five statements of the second one fails.
pub(crate) fn failing(dialect: Dialect) -> Scripts {
    let text = V2.1.replace("INSERT INTO notes", "INSERT INTO nowhere");
    load(dialect, &[V1, U1, (V2.0, &text), U2])
}
