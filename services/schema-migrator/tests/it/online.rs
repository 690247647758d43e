//! Changes that the databases themselves make while a table is in use.

use crate::files::load;
use crate::run_world::{LONG, World, postgres};
use grey_schema_migrator::files::{Dialect, Scripts};
use grey_schema_migrator::run::{Goal, MigrateError, Outcome, Progress};
use grey_schema_migrator::{plan, tenant};
use grey_testkit::eventually;
use sea_orm::{ConnectionTrait, Database, TransactionTrait};

const TABLE: (&str, &str) = (
    "V1__t.sql",
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER NOT NULL);\nINSERT INTO t VALUES (1, 1), (2, 2);\n",
);
const NO_TABLE: (&str, &str) = ("U1__t.sql", "DROP TABLE t;\n");
const INDEX: (&str, &str) =
    ("V2__i.sql", "-- grey: no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a);\n");
const NO_INDEX: (&str, &str) =
    ("U2__i.sql", "-- grey: no-transaction\nDROP INDEX CONCURRENTLY IF EXISTS t_a;\n");

/// Each run is an upgrade of its own, so that its failure takes back nothing else.
async fn outcome(world: &World, scripts: &Scripts) -> Result<Outcome, MigrateError> {
    let upgrade = format!("up to {}", scripts.newest().unwrap());
    let stop = tenant::Stop::within(LONG, tokio_util::sync::CancellationToken::new());
    let goal = Goal::Up(plan::Target::Newest);
    let mut listener = |_: Progress| {};
    let ended = Box::pin(world.migrate_as(&upgrade, scripts, goal, stop, &mut listener)).await;
    ended.map(|ended| ended.outcome)
}

async fn invalid(world: &World) -> bool {
    let query = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    world.sql(query).await != "0"
}

#[tokio::test]
async fn writers_go_on_while_an_index_is_built_concurrently() {
    let world = World::new(Dialect::Postgres).await;
    assert_eq!(
        outcome(&world, &load(Dialect::Postgres, &[TABLE, NO_TABLE])).await.unwrap(),
        Outcome::Succeeded
    );
    let holder = Database::connect(world.target.url.expose()).await.unwrap();
    // The build waits for this one to end, so what follows is sure to happen in the middle of it.
    let held = holder.begin().await.unwrap();
    held.execute_unprepared("UPDATE t SET a = a WHERE id = 1").await.unwrap();
    let scripts = load(Dialect::Postgres, &[TABLE, NO_TABLE, INDEX, NO_INDEX]);
    let writer = async {
        eventually(LONG, "the build", async || invalid(&world).await).await;
        world
            .sql("SET lock_timeout = '5s'; INSERT INTO t VALUES (3, 3); UPDATE t SET a = 4 WHERE id = 2")
            .await;
        assert!(invalid(&world).await, "the build had ended before");
        held.commit().await.unwrap();
    };
    let (ended, ()) = tokio::join!(slow(&world, &scripts), writer);
    assert_eq!(ended.unwrap(), Outcome::Succeeded);
    assert!(!invalid(&world).await);
    assert_eq!(world.sql("SELECT count(*) FROM t").await, "3");
    assert_eq!(world.applied().await, ["1", "2"]);
}

/// With a lock timeout that the wait for another transaction does not reach.
async fn slow(world: &World, scripts: &Scripts) -> Result<Outcome, MigrateError> {
    let timeouts = tenant::Timeouts { lock: LONG, ..crate::run_world::timeouts() };
    let stop = tenant::Stop::within(LONG, tokio_util::sync::CancellationToken::new());
    let job = crate::run_world::job("u1", scripts, stop);
    let migration = grey_schema_migrator::run::Migration {
        target: &world.target,
        timeouts,
        goal: Goal::Up(plan::Target::Newest),
        options: crate::run_world::lenient(),
    };
    let mut listener = |_: Progress| {};
    let ended = Box::pin(grey_schema_migrator::run::migrate(&migration, &job, &mut listener)).await;
    ended.map(|ended| ended.outcome)
}

#[tokio::test]
async fn an_index_that_could_not_be_built_leaves_no_invalid_one() {
    let world = World::new(Dialect::Postgres).await;
    outcome(&world, &load(Dialect::Postgres, &[TABLE, NO_TABLE])).await.unwrap();
    world.sql("INSERT INTO t VALUES (3, 1)").await;
    let scripts = load(Dialect::Postgres, &[TABLE, NO_TABLE, INDEX, NO_INDEX]);
    let Outcome::Failed(failure) = outcome(&world, &scripts).await.unwrap() else {
        panic!("it did not fail")
    };
    assert!(failure.to_string().contains("could not create unique index"), "{failure}");
    assert!(!invalid(&world).await);
    assert_eq!(world.applied().await, ["1"]);
    world.sql("DELETE FROM t WHERE id = 3").await;
    assert_eq!(outcome(&world, &scripts).await.unwrap(), Outcome::Succeeded);
    assert_eq!(world.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass").await, "t");
}

#[tokio::test]
async fn an_invalid_index_that_a_crash_left_is_built_anew() {
    let world = World::new(Dialect::Postgres).await;
    outcome(&world, &load(Dialect::Postgres, &[TABLE, NO_TABLE])).await.unwrap();
    let holder = Database::connect(world.target.url.expose()).await.unwrap();
    let held = holder.begin().await.unwrap();
    held.execute_unprepared("UPDATE t SET a = a WHERE id = 1").await.unwrap();
    let scripts = load(Dialect::Postgres, &[TABLE, NO_TABLE, INDEX, NO_INDEX]);
    // The migrator is gone in the middle of the build, and the server ends its session.
    tokio::select! {
        ended = slow(&world, &scripts) => panic!("{ended:?}"),
        () = eventually(LONG, "the build", async || invalid(&world).await) => {}
    }
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = 'grey-schema-migrator' AND datname = current_database()";
    world.sql(end).await;
    let gone = async || {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'grey-schema-migrator' \
                    AND datname = current_database()";
        world.sql(left).await == "0"
    };
    eventually(LONG, "the end of the session", gone).await;
    held.rollback().await.unwrap();
    assert!(invalid(&world).await);
    assert_eq!(outcome(&world, &scripts).await.unwrap(), Outcome::Succeeded);
    assert_eq!(world.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass").await, "t");
    assert_eq!(world.applied().await, ["1", "2"]);
}

#[tokio::test]
async fn a_constraint_counts_for_new_rows_first_and_for_all_after_its_own_step() {
    let add = ("V2__c.sql", "ALTER TABLE t ADD CONSTRAINT small CHECK (a < 10) NOT VALID;\n");
    let no_add = ("U2__c.sql", "ALTER TABLE t DROP CONSTRAINT small;\n");
    let validate = ("V3__v.sql", "ALTER TABLE t VALIDATE CONSTRAINT small;\n");
    let no_validate = ("U3__v.sql", "SELECT 1;\n");
    let world = World::new(Dialect::Postgres).await;
    outcome(&world, &load(Dialect::Postgres, &[TABLE, NO_TABLE])).await.unwrap();
    world.sql("INSERT INTO t VALUES (3, 30)").await;
    let added = load(Dialect::Postgres, &[TABLE, NO_TABLE, add, no_add]);
    assert_eq!(outcome(&world, &added).await.unwrap(), Outcome::Succeeded);
    let refused = postgres().await.query(&world.name, "INSERT INTO t VALUES (4, 40)").await.unwrap_err();
    assert!(refused.to_string().contains("small"), "{refused}");
    let all = load(Dialect::Postgres, &[TABLE, NO_TABLE, add, no_add, validate, no_validate]);
    let Outcome::Failed(failure) = outcome(&world, &all).await.unwrap() else { panic!("it did not fail") };
    assert!(failure.to_string().contains("violated"), "{failure}");
    assert_eq!(world.applied().await, ["1", "2"]);
    world.sql("DELETE FROM t WHERE id = 3").await;
    // A writer that has not ended yet does not stand in the way of the look at all rows.
    let holder = Database::connect(world.target.url.expose()).await.unwrap();
    let held = holder.begin().await.unwrap();
    held.execute_unprepared("INSERT INTO t VALUES (5, 5)").await.unwrap();
    assert_eq!(outcome(&world, &all).await.unwrap(), Outcome::Succeeded);
    held.commit().await.unwrap();
    assert_eq!(world.sql("SELECT convalidated FROM pg_constraint WHERE conname = 'small'").await, "t");
}

#[tokio::test]
async fn an_algorithm_that_the_server_cannot_keep_to_is_told_of_and_changes_nothing() {
    for (clause, instant) in [
        ("MODIFY a BIGINT NOT NULL, ALGORITHM=INSTANT", false),
        ("MODIFY a BIGINT NOT NULL, ALGORITHM=INPLACE", false),
        ("ADD COLUMN b INTEGER, ALGORITHM=INSTANT", true),
        ("ADD INDEX t_a (a), ALGORITHM=INPLACE, LOCK=NONE", true),
    ] {
        let world = World::new(Dialect::MySql).await;
        outcome(&world, &load(Dialect::MySql, &[TABLE, NO_TABLE])).await.unwrap();
        let before = world.shape().await;
        let text = format!("ALTER TABLE t {clause};\n");
        let scripts =
            load(Dialect::MySql, &[TABLE, NO_TABLE, ("V2__x.sql", &text), ("U2__x.sql", "SELECT 1;\n")]);
        match outcome(&world, &scripts).await.unwrap() {
            Outcome::Succeeded => assert!(instant, "{clause}"),
            Outcome::Failed(failure) => {
                assert!(!instant, "{clause}: {failure}");
                let tenant::Error::Statement { code, message, line: 1, .. } = &failure.error else {
                    panic!("{failure:?}")
                };
                assert!(code == "1845" || code == "1846", "{clause}: {code}");
                assert!(message.contains("is not supported"), "{clause}: {message}");
                assert_eq!(world.shape().await, before, "{clause}");
                assert_eq!(world.applied().await, ["1"], "{clause}");
            }
            other => panic!("{clause}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn writers_go_on_while_the_mysql_family_builds_an_index_in_place() {
    let world = World::new(Dialect::MySql).await;
    outcome(&world, &load(Dialect::MySql, &[TABLE, NO_TABLE])).await.unwrap();
    world.sql("INSERT INTO t SELECT seq + 10, seq FROM seq_1_to_200000").await;
    let index = ("V2__i.sql", "CREATE INDEX t_a ON t (a) ALGORITHM=INPLACE LOCK=NONE;\n");
    let scripts = load(Dialect::MySql, &[TABLE, NO_TABLE, index, ("U2__i.sql", "DROP INDEX t_a ON t;\n")]);
    let done = tokio_util::sync::CancellationToken::new();
    let writer = async {
        let mut written = 0;
        while !done.is_cancelled() {
            let row = 1_000_000 + written;
            world.sql(&format!("SET lock_wait_timeout = 5; SET innodb_lock_wait_timeout = 5; INSERT INTO t VALUES ({row}, 1)")).await;
            written += 1;
        }
        written
    };
    let build = async {
        let ended = outcome(&world, &scripts).await;
        done.cancel();
        ended
    };
    let (ended, written) = tokio::join!(build, writer);
    assert_eq!(ended.unwrap(), Outcome::Succeeded);
    assert_eq!(world.sql("SELECT count(*) FROM t").await, (200_002 + written).to_string());
}
