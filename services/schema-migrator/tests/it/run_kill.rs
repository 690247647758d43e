//! A migrator that is killed at every point of a run, and inside of statements.
//!
//! The migrator is this test program itself, started with [`child`] as its only test.

use crate::files::load;
use crate::run_inside::waits;
use crate::run_world::{
    LONG, U1, V1, World, failing, is_on_mysql, job, lenient, patient, postgres, scripts, target, version,
};
use futures::StreamExt as _;
use grey_schema_migrator::files::{Dialect, Scripts};
use grey_schema_migrator::plan::{Direction, Target};
use grey_schema_migrator::run::{Ended, Goal, MigrateError, Migration, Outcome, Progress, migrate, recover};
use grey_schema_migrator::tenant::{Mark, Stop};
use grey_testkit::{Spawned, eventually};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

const CHILD: &str = "MIGRATE_AND_WAIT";

/// `dialect scripts nth url`
fn read_child() -> Option<(Dialect, String, usize, String)> {
    let text = std::env::var(CHILD).ok()?;
    let mut parts = text.splitn(4, ' ');
    let mut next = || parts.next().unwrap().to_owned();
    Some((next().parse().unwrap(), next(), next().parse().unwrap(), next()))
}

fn scripts_named(name: &str, dialect: Dialect) -> Scripts {
    let concurrent = "-- grey: no-transaction\nCREATE INDEX CONCURRENTLY items_name ON items (name);\n";
    let many = "INSERT INTO items SELECT n + 100, 'x' FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL \
                SELECT n + 1 FROM c WHERE n < 1000000) SELECT n FROM c);";
    match name {
        "good" => scripts(dialect),
        "failing" => failing(dialect),
        "alter" => load(dialect, &[V1, U1, ("V2__x.sql", "ALTER TABLE items ADD COLUMN note INTEGER;")]),
        "concurrent" => load(dialect, &[V1, U1, ("V2__x.sql", concurrent)]),
        "set" => {
            let text = "CREATE TABLE a (id INT);\n\
                        SET STATEMENT sql_mode='' FOR INSERT INTO a SELECT id FROM items WHERE id = 1 FOR UPDATE;";
            load(dialect, &[V1, U1, ("V2__x.sql", text)])
        }
        "many" => load(dialect, &[V1, U1, ("V2__x.sql", many)]),
        other => panic!("{other}"),
    }
}

/// Not a test by itself: the program that the tests kill. It stops for ever at the nth thing that it is told.
#[tokio::test]
async fn child() {
    let Some((dialect, name, nth, url)) = read_child() else { return };
    let scripts = scripts_named(&name, dialect);
    let target = target(dialect, url);
    let mut seen = 0;
    let mut wait = |told: Progress| {
        seen += 1;
        println!("told {seen} {told:?}");
        if seen == nth {
            println!("waiting");
            loop {
                std::thread::park();
            }
        }
    };
    let goal = Goal::Up(Target::Newest);
    let migration = Migration { target: &target, timeouts: patient(), goal, options: lenient() };
    let stop = Stop::within(LONG, CancellationToken::new());
    let ended = Box::pin(migrate(&migration, &job("u1", &scripts, stop), &mut wait)).await.unwrap();
    println!("ended {:?}", ended.outcome);
}

fn start(world: &World, scripts: &str, nth: usize) -> Spawned {
    let text = format!("{} {scripts} {nth} {}", world.dialect, world.target.url.expose());
    let program = std::env::current_exe().unwrap();
    let spawned = Spawned::builder(program).arg("--exact").arg("run_kill::child").arg("--nocapture");
    spawned.env(CHILD, text).start().unwrap()
}

/// Runs a migrator, kills it at the nth thing; `false`: there is no nth thing.
async fn kill_at(world: &World, scripts: &str, nth: usize) -> bool {
    let migrator = start(world, scripts, nth);
    // Its exit would tell too early: what it has printed last may not have been read by then.
    eventually(LONG, "the migrator waits or ends", async || {
        let output = migrator.output();
        assert!(!output.contains("panicked"), "{output}");
        output.contains("waiting") || output.contains("ended")
    })
    .await;
    let waiting = migrator.output().contains("waiting");
    migrator.kill9().unwrap();
    waiting
}

/// The next migrator after a killed one.
async fn up(world: &World, scripts: &Scripts) -> Result<Ended, MigrateError> {
    world.migrate_patiently("u1", scripts, Goal::Up(Target::Newest)).await
}

/// The database's shape at each version.
async fn shapes(dialect: Dialect) -> BTreeMap<String, String> {
    let world = World::new(dialect).await;
    let mut shapes = BTreeMap::from([(String::new(), world.shape().await)]);
    for schema in ["1", "2"] {
        let goal = Goal::Up(Target::Version(version(schema)));
        world.migrate(&scripts(dialect), goal, LONG, &mut |_| {}).await.unwrap();
        shapes.insert(schema.to_owned(), world.shape().await);
    }
    shapes
}

/// Which statements of `V2` have had an effect on a MariaDB database.
async fn effects(world: &World) -> Vec<bool> {
    let shape = world.shape().await;
    let (table, column) = (shape.contains("notes body"), shape.contains("items note"));
    let rows = table && world.sql("SELECT count(*) FROM notes").await == "1";
    let updated = column && world.sql("SELECT count(*) FROM items WHERE note = 1").await == "1";
    vec![table, column, rows, shape.contains("notes index notes_body"), updated]
}

/// The journal must say of every statement what the database says.
async fn journal_is_exact(world: &World, nth: usize) {
    let connection = world.open().await;
    connection.prepare().await.unwrap();
    let records = connection.unfinished().await.unwrap();
    let of_two = |step: usize, direction: Direction| {
        let step = u32::try_from(step).unwrap();
        records.iter().find(|it| it.version == version("2") && it.step == step && it.direction == direction)
    };
    if records.iter().all(|record| record.version != version("2") || record.direction == Direction::Down) {
        return;
    }
    for (index, effect) in effects(world).await.into_iter().enumerate() {
        match of_two(index + 1, Direction::Up).map(|record| record.mark) {
            Some(Mark::Done) => assert!(effect, "{nth}: step {} is said to be done", index + 1),
            None => assert!(!effect, "{nth}: step {} is not said to be done", index + 1),
            // Nothing but the database knows.
            Some(_) => {}
        }
    }
}

async fn killed_once(dialect: Dialect, name: &str, nth: usize, shapes: &BTreeMap<String, String>) -> bool {
    let world = World::new(dialect).await;
    if !kill_at(&world, name, nth).await {
        return false;
    }
    let scripts = scripts_named(name, dialect);
    let mut connection = world.open_patiently().await;
    let stop = Stop::within(LONG, CancellationToken::new());
    let job = job("u1", &scripts, stop.clone());
    connection.lock(&stop).await.unwrap();
    if dialect == Dialect::MySql && name == "good" {
        journal_is_exact(&world, nth).await;
    }
    let recovered = Box::pin(recover(&connection, &job, &mut |_| {})).await.unwrap();
    let history = connection.history().await.unwrap();
    assert!(history.leftovers.is_empty(), "{dialect} {name} {nth}: {recovered:?}");
    let schema = history.present().map(ToString::to_string).unwrap_or_default();
    assert_eq!(world.shape().await, shapes[&schema], "{dialect} {name} {nth}: {recovered:?}");
    drop(connection);
    // Whoever takes the upgrade over ends it.
    let over = recovered.is_some_and(|ended| ended.outcome != Outcome::Succeeded);
    if name == "failing" {
        if !over {
            let ended = up(&world, &scripts).await.unwrap();
            assert!(matches!(ended.outcome, Outcome::Failed(_)), "{dialect} {nth}: {ended:?}");
        }
        assert_eq!(world.shape().await, shapes[""], "{dialect} {name} {nth}");
        assert!(world.applied().await.is_empty());
    } else {
        assert!(!over, "{dialect} {name} {nth}");
        assert_eq!(up(&world, &scripts).await.unwrap().outcome, Outcome::Succeeded);
        assert_eq!(world.shape().await, shapes["2"], "{dialect} {name} {nth}");
        assert_eq!(world.sql("SELECT count(*) FROM items").await, "2", "{dialect} {nth}");
        assert_eq!(world.sql("SELECT count(*) FROM notes").await, "1", "{dialect} {nth}");
        assert_eq!(world.history().await, ["1 applied", "2 applied"], "{dialect} {nth}");
    }
    true
}

async fn killed_everywhere(dialect: Dialect, name: &str, points: std::ops::RangeInclusive<usize>) {
    let shapes = shapes(dialect).await;
    let last = *points.end();
    let shapes = &shapes;
    let runs = points.map(|nth| async move { (nth, killed_once(dialect, name, nth, shapes).await) });
    let killed: Vec<_> = futures::stream::iter(runs).buffer_unordered(4).collect().await;
    // The last point lies behind the end, which shows that none is left out.
    for (nth, killed) in killed {
        assert_eq!(killed, nth != last, "{dialect} {name}: {nth} of {last}");
    }
}

#[tokio::test]
async fn a_killed_migrator_leaves_what_can_be_finished_on_postgres() {
    killed_everywhere(Dialect::Postgres, "good", 1..=21).await;
}

#[tokio::test]
async fn a_killed_migrator_leaves_what_can_be_finished_on_sqlite() {
    killed_everywhere(Dialect::Sqlite, "good", 1..=21).await;
}

#[tokio::test]
async fn a_killed_migrator_leaves_what_can_be_finished_on_mariadb() {
    killed_everywhere(Dialect::MySql, "good", 1..=21).await;
}

#[tokio::test]
async fn a_migrator_that_is_killed_while_taking_back_leaves_what_can_be_taken_back() {
    killed_everywhere(Dialect::Postgres, "failing", 13..=20).await;
    killed_everywhere(Dialect::Sqlite, "failing", 13..=20).await;
    killed_everywhere(Dialect::MySql, "failing", 13..=24).await;
}

#[tokio::test]
async fn a_migrator_killed_inside_a_statement_leaves_no_doubt() {
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        let world = World::new(dialect).await;
        let stop = Stop::within(LONG, CancellationToken::new());
        let goal = Goal::Up(Target::Version(version("1")));
        world.migrate_as("u0", &scripts_named("alter", dialect), goal, stop, &mut |_| {}).await.unwrap();
        let db = sea_orm::Database::connect(world.target.url.expose()).await.unwrap();
        let holder = db.begin().await.unwrap();
        holder.execute_unprepared("UPDATE items SET name = 'held' WHERE id = 1").await.unwrap();
        let migrator = start(&world, "alter", 0);
        let waiting = match dialect {
            Dialect::Postgres => {
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER%' \
                 AND datname = current_database()"
            }
            _ => {
                "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'ALTER%' \
                 AND state LIKE 'Waiting%' AND db = DATABASE()"
            }
        };
        eventually(LONG, "the statement waits", async || world.sql(waiting).await == "1").await;
        migrator.kill9().unwrap();
        holder.rollback().await.unwrap();
        // The server may finish the statement of a dead client, and only the catalog knows.
        let ended = up(&world, &scripts_named("alter", dialect)).await.unwrap();
        assert_eq!(ended.outcome, Outcome::Succeeded, "{dialect}");
        assert_eq!(world.applied().await, ["1", "2"], "{dialect}");
        assert_eq!(world.sql("SELECT count(*) FROM items WHERE note IS NULL").await, "2", "{dialect}");
    }
}

#[tokio::test]
async fn a_statement_with_settings_of_its_own_runs_once_although_its_migrator_was_killed() {
    if is_on_mysql() {
        return;
    }
    let world = World::new(Dialect::MySql).await;
    let scripts = scripts_named("set", Dialect::MySql);
    let stop = Stop::within(LONG, CancellationToken::new());
    let goal = Goal::Up(Target::Version(version("1")));
    world.migrate_as("u0", &scripts, goal, stop, &mut |_| {}).await.unwrap();
    let db = sea_orm::Database::connect(world.target.url.expose()).await.unwrap();
    let holder = db.begin().await.unwrap();
    holder.execute_unprepared("UPDATE items SET name = 'held' WHERE id = 1").await.unwrap();
    let migrator = start(&world, "set", 0);
    eventually(LONG, "the statement waits", async || waits(&world).await).await;
    migrator.kill9().unwrap();
    holder.rollback().await.unwrap();
    // The server may have finished the statement of the dead client by now, or not have begun it.
    assert_eq!(up(&world, &scripts).await.unwrap().outcome, Outcome::Succeeded);
    assert_eq!(world.sql("SELECT count(*) FROM a").await, "1");
}

#[tokio::test]
async fn a_sqlite_migrator_killed_inside_a_statement_has_done_nothing() {
    let world = World::new(Dialect::Sqlite).await;
    let migrator = start(&world, "many", 0);
    // The statement of the second migration is under way.
    migrator.wait_for_line("told 9", LONG).await.unwrap();
    migrator.kill9().unwrap();
    let applied = world.applied().await;
    let rows = world.sql("SELECT count(*) FROM items").await;
    match applied.len() {
        1 => assert_eq!(rows, "2"),
        // It was done before the kill came.
        _ => assert_eq!(rows, "1000002"),
    }
    assert_eq!(
        up(&world, &scripts_named("many", Dialect::Sqlite)).await.unwrap().outcome,
        Outcome::Succeeded
    );
    assert_eq!(world.sql("SELECT count(*) FROM items").await, "1000002");
}

#[tokio::test]
async fn an_index_that_a_killed_build_left_invalid_is_built_anew() {
    let world = World::new(Dialect::Postgres).await;
    let scripts = scripts_named("concurrent", Dialect::Postgres);
    let stop = Stop::within(LONG, CancellationToken::new());
    let goal = Goal::Up(Target::Version(version("1")));
    world.migrate_as("u0", &scripts, goal, stop, &mut |_| {}).await.unwrap();
    let db = sea_orm::Database::connect(world.target.url.expose()).await.unwrap();
    let holder = db.begin().await.unwrap();
    holder.execute_unprepared("UPDATE items SET name = 'held' WHERE id = 1").await.unwrap();
    let migrator = start(&world, "concurrent", 0);
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    eventually(LONG, "the index is begun", async || world.sql(invalid).await == "1").await;
    migrator.kill9().unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' \
               AND datname = current_database() AND pid <> pg_backend_pid()";
    postgres().await.query(&world.name, end).await.unwrap();
    holder.rollback().await.unwrap();
    assert_eq!(world.sql(invalid).await, "1");
    assert_eq!(up(&world, &scripts).await.unwrap().outcome, Outcome::Succeeded);
    assert_eq!(world.sql(invalid).await, "0");
    assert!(world.shape().await.contains("items_name"), "{}", world.shape().await);
}
