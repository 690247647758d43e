//! Each file starts from a clean session, works where the tenant is, and changes nobody else.

use crate::files::load;
use crate::run_world::{LONG, World, is_on_mysql, mariadb, postgres, timeouts, version};
use grey_schema_migrator::files::{Dialect, Scripts};
use grey_schema_migrator::plan::Target;
use grey_schema_migrator::run::{Ended, Goal, MigrateError, Outcome, Progress};
use grey_schema_migrator::tenant::{Connection, Stop, Timeouts};
use std::sync::Mutex;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A first file that leaves as much as it can in its session.
fn leaves(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => {
            "CREATE TABLE seen (what TEXT);\nSET DateStyle = 'SQL, DMY';\nSET TimeZone = 'Asia/Tokyo';\n\
             SET session_replication_role = replica;\nCREATE TEMPORARY TABLE scratch (a INT);\n\
             PREPARE p AS SELECT 1;\n"
        }
        Dialect::MySql => {
            "CREATE TABLE seen (what VARCHAR(200));\nSET sql_mode = '';\nSET foreign_key_checks = 0;\n\
             SET NAMES latin1;\nSET @left = 5;\nSET time_zone = '+09:00';\n\
             CREATE TEMPORARY TABLE scratch (a INT);\nPREPARE p FROM 'SELECT 1';\n"
        }
        Dialect::Sqlite => "CREATE TABLE seen (what TEXT);\nCREATE TEMPORARY TABLE scratch (a INT);\n",
    }
}

/// A second one that depends on it.
fn finds(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => {
            "PREPARE p AS SELECT 2;\nCREATE TABLE scratch (a INT);\nINSERT INTO scratch VALUES (1);\n\
             INSERT INTO seen SELECT concat_ws('|', '02/03/2020'::date - date '2020-01-01', current_setting('TimeZone'), \
             current_setting('session_replication_role'));\n"
        }
        Dialect::MySql => {
            "CREATE TABLE scratch (a INT);\nINSERT INTO scratch VALUES (1);\n\
             INSERT INTO seen SELECT CONCAT_WS('|', @@sql_mode, @@foreign_key_checks, @@character_set_client, \
             COALESCE(@left, 'nothing'), @@time_zone);\n"
        }
        Dialect::Sqlite => {
            "CREATE TABLE scratch (a INT);\nINSERT INTO scratch VALUES (1);\nINSERT INTO seen VALUES ('x');\n"
        }
    }
}

async fn up_to(world: &World, scripts: &Scripts, schema: &str) -> Result<Ended, MigrateError> {
    world.migrate(scripts, Goal::Up(Target::Version(version(schema))), LONG, &mut |_| {}).await
}

#[tokio::test]
async fn files_do_the_same_in_one_run_as_in_several() {
    for dialect in Dialect::ALL {
        let scripts = load(dialect, &[("V1__a.sql", leaves(dialect)), ("V2__b.sql", finds(dialect))]);
        let found = async |steps: &[&str]| {
            let world = World::new(dialect).await;
            for step in steps {
                let ended = up_to(&world, &scripts, step).await.unwrap();
                assert_eq!(ended.outcome, Outcome::Succeeded, "{dialect}");
            }
            assert_eq!(
                world.sql("SELECT count(*) FROM scratch").await,
                "1",
                "{dialect}: not in a temporary table"
            );
            world.sql("SELECT what FROM seen").await
        };
        assert_eq!(found(&["2"]).await, found(&["1", "2"]).await, "{dialect}");
    }
}

#[tokio::test]
async fn the_lock_is_held_while_sessions_come_and_go() {
    let dialect = Dialect::MySql;
    let world = World::new(dialect).await;
    let scripts = load(
        dialect,
        &[
            ("V1__a.sql", "CREATE TABLE a (id INT);"),
            ("V2__b.sql", "CREATE TABLE b (id INT);"),
            ("V3__c.sql", "CREATE TABLE c (id INT);"),
        ],
    );
    let told = Mutex::new(Vec::new());
    let mut tell = |progress: Progress| {
        if let Progress::Recording { .. } = progress {
            let target = world.target.clone();
            // On a thread of its own, since the run waits for what is told.
            let asked = std::thread::spawn(move || is_locked(&target));
            told.lock().unwrap().push(asked.join().unwrap());
        }
    };
    let goal = Goal::Up(Target::Newest);
    world.migrate(&scripts, goal, LONG, &mut tell).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [true, true, true]);
}

/// Whether nobody else gets the lock now.
fn is_locked(target: &grey_schema_migrator::tenant::Target) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let short = Timeouts { lock: Duration::from_millis(100), ..timeouts() };
        let mut connection = Connection::open(target, &short).await.unwrap();
        connection.lock(&Stop::within(LONG, CancellationToken::new())).await.is_err()
    })
}

/// Two tenants as schemas of one PostgreSQL database, both at version 1.
async fn neighbours(scripts: &Scripts) -> (World, World) {
    let mut one = World::new(Dialect::Postgres).await;
    let mut other = World::new(Dialect::Postgres).await;
    other.target.url = one.target.url.clone();
    other.name.clone_from(&one.name);
    for (world, schema) in [(&mut one, "tenant_a"), (&mut other, "tenant_b")] {
        world.sql(&format!("CREATE SCHEMA {schema}")).await;
        world.target.schema = Some(schema.to_owned());
        let stop = Stop::within(LONG, CancellationToken::new());
        let goal = Goal::Up(Target::Version(version("1")));
        world.migrate_as("u0", scripts, goal, stop, &mut |_| {}).await.unwrap();
    }
    (one, other)
}

const FIRST: (&str, &str) = ("V1__a.sql", "CREATE TABLE a (id INT);\nCREATE TABLE b (id INT);");

/// Files of one tenant that reach for another, as its schema is reached for.
const REACHING: [&str; 8] = [
    // The path is left to the last of all schemas.
    "DO $$ DECLARE s text; BEGIN FOR s IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant%' LOOP \
     EXECUTE format('SET search_path = %I', s); \
     EXECUTE 'ALTER TABLE a ADD COLUMN IF NOT EXISTS n int'; END LOOP; END $$;\nCREATE TABLE t (id INT);",
    "DO $$ BEGIN EXECUTE 'SET search_path = tenant_b'; END $$;\nCREATE TABLE t (id INT);",
    "DO $$ BEGIN EXECUTE 'SET LOCAL search_path = tenant_b, tenant_a'; END $$;\nCREATE TABLE t (id INT);",
    // The path is left as it was.
    "DO $$ BEGIN EXECUTE 'SET search_path = tenant_b'; EXECUTE 'ALTER TABLE a ADD n int'; \
     EXECUTE 'SET search_path = tenant_a'; END $$;",
    "ALTER TABLE tenant_b.a ADD n int;",
    "DROP TABLE tenant_b.b;",
    "CREATE TABLE tenant_b.t (id INT);",
    "INSERT INTO tenant_b.a VALUES (1);",
];

#[tokio::test]
async fn a_file_that_reaches_for_another_tenant_is_rolled_back() {
    let first = load(Dialect::Postgres, &[FIRST]);
    let (one, other) = neighbours(&first).await;
    let tables = |schema: &str| {
        format!(
            "SELECT string_agg(line, ' ' ORDER BY line) FROM (SELECT table_name || '.' || column_name AS line \
             FROM information_schema.columns WHERE table_schema = '{schema}' AND table_name NOT LIKE 'grey%' \
             UNION ALL SELECT 'row ' || id FROM {schema}.a) AS it"
        )
    };
    for file in REACHING {
        let scripts = load(Dialect::Postgres, &[FIRST, ("V2__reach.sql", file)]);
        let ended = one.up(&scripts).await.unwrap();
        let Outcome::Failed(failure) = &ended.outcome else { panic!("{file}: {ended:?}") };
        assert!(failure.to_string().contains("tenant_"), "{file}: {failure}");
        for schema in ["tenant_a", "tenant_b"] {
            assert_eq!(one.sql(&tables(schema)).await, "a.id b.id", "{file}");
        }
        assert_eq!(one.applied().await, ["1"], "{file}");
        assert_eq!(other.history().await, ["1 applied"], "{file}: its history has nothing of the other's");
    }
    // What is nobody's may be used: reference tables, extensions.
    one.sql("CREATE SCHEMA shared; CREATE TABLE shared.countries (id INT PRIMARY KEY)").await;
    let file = "CREATE TABLE t (c INT REFERENCES shared.countries);\nDROP TABLE b;";
    let scripts = load(Dialect::Postgres, &[FIRST, ("V2__x.sql", file)]);
    assert_eq!(one.up(&scripts).await.unwrap().outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_file_that_takes_another_role_is_rolled_back() {
    let world = World::new(Dialect::Postgres).await;
    let role = format!("other_{}", world.name);
    let file = format!(
        "CREATE ROLE {role};\nGRANT CREATE ON SCHEMA public TO {role};\nDO $$ BEGIN EXECUTE 'SET ROLE {role}'; END $$;"
    );
    let ended = world.up(&load(Dialect::Postgres, &[("V1__x.sql", &file)])).await.unwrap();
    let Outcome::Failed(failure) = &ended.outcome else { panic!("{ended:?}") };
    assert!(failure.to_string().contains("role"), "{failure}");
    let roles = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'");
    assert_eq!(postgres().await.query(&world.name, &roles).await.unwrap(), "0");
}

#[tokio::test]
async fn a_file_that_leaves_a_mariadb_database_is_a_failure_told_in_the_tenants_history() {
    if is_on_mysql() {
        return;
    }
    let world = World::new(Dialect::MySql).await;
    let other = format!("{}_other", world.name);
    mariadb().await.database(&other).await.unwrap();
    let file =
        format!("CREATE TABLE first (id INT);\nEXECUTE IMMEDIATE 'USE `{other}`';\nCREATE TABLE t (id INT);");
    let undo = "DROP TABLE IF EXISTS first;";
    let scripts = load(Dialect::MySql, &[("V1__x.sql", &file), ("U1__x.sql", undo)]);
    let ended = world.up(&scripts).await.unwrap();
    assert!(matches!(ended.outcome, Outcome::Failed(_)), "{ended:?}");
    let tables = format!("SELECT count(*) FROM information_schema.tables WHERE table_schema = '{other}'");
    assert_eq!(world.sql(&tables).await, "0");
    assert_eq!(world.history().await, ["1 failed"]);
}
