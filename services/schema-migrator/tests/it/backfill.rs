//! Backfills of real tables, on every dialect.

use crate::files::load;
use crate::run_world::{LONG, World, version};
use grey_schema_migrator::backfill::{Pacing, Progress, run};
use grey_schema_migrator::files::{Backfill, Dialect, Step};
use grey_schema_migrator::plan::Direction;
use grey_schema_migrator::tenant::{Connection, Error, Mark, Record, Stop, Timeouts};
use sea_orm::{ConnectionTrait, Database, TransactionTrait};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Adds one to `n`, so that a row that is done twice has 2.
fn step(dialect: Dialect, batch: u32) -> Backfill {
    let text = format!(
        "-- grey: no-transaction\n-- grey: backfill table=rows_of key=id batch={batch}\n\
         UPDATE rows_of SET n = n + 1 WHERE id BETWEEN :low AND :high;\n"
    );
    let scripts = load(dialect, &[("V1__x.sql", &text)]);
    match scripts.migrations.first().unwrap().steps.first() {
        Some(Step::Backfill(backfill)) => backfill.clone(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn record() -> Record {
    Record {
        upgrade: "u1".to_owned(),
        actor: "test".to_owned(),
        version: version("1"),
        direction: Direction::Up,
        step: 1,
        mark: Mark::Started,
        line: 3,
        checksum: None,
        fingerprint: None,
        reached: None,
        started_at_ms: 0,
    }
}

fn stop() -> Stop {
    Stop::within(LONG, CancellationToken::new())
}

/// A table with keys of `kind`, given as literals.
async fn fill(world: &World, kind: &str, keys: &[String]) {
    let n = "n INTEGER NOT NULL DEFAULT 0";
    world.sql(&format!("CREATE TABLE rows_of (id {kind} NOT NULL PRIMARY KEY, {n})")).await;
    for some in keys.chunks(500) {
        let values: Vec<_> = some.iter().map(|key| format!("({key})")).collect();
        world.sql(&format!("INSERT INTO rows_of (id) VALUES {}", values.join(", "))).await;
    }
}

/// Rows by how often they were done: `0 1 2`.
async fn counts(world: &World) -> String {
    let mut found = Vec::new();
    for n in 0..3 {
        found.push(world.sql(&format!("SELECT count(*) FROM rows_of WHERE n = {n}")).await);
    }
    found.join(" ")
}

async fn open(world: &World) -> Connection {
    let mut connection = world.open().await;
    connection.lock(&stop()).await.unwrap();
    connection.prepare().await.unwrap();
    connection
}

/// What the journal says of the step.
async fn left(connection: &Connection) -> Record {
    connection.unfinished().await.unwrap().pop().unwrap_or_else(record)
}

async fn whole(dialect: Dialect, kind: &str, keys: &[String]) {
    let world = World::new(dialect).await;
    fill(&world, kind, keys).await;
    let connection = open(&world).await;
    let mut seen: Vec<Progress> = Vec::new();
    let mut progress = |it| seen.push(it);
    let (step, pacing) = (step(dialect, 37), Pacing::default());
    Box::pin(run(&connection, &step, record(), &pacing, &mut progress, &stop())).await.unwrap();
    assert_eq!(counts(&world).await, format!("0 {} 0", keys.len()), "{dialect} {kind}");
    assert!(seen.windows(2).all(|pair| pair.first().unwrap().done < pair.last().unwrap().done));
    let last = seen.last().unwrap();
    assert_eq!(last.done, u64::try_from(keys.len()).unwrap(), "{dialect} {kind}");
    assert!(seen.len() >= keys.len() / 37 && last.total >= last.done, "{dialect} {kind}: {seen:?}");
    let done = left(&connection).await;
    assert_eq!(done.mark, Mark::Done);
    // Once more from there does nothing.
    Box::pin(run(&connection, &step, done, &pacing, &mut |_| {}, &stop())).await.unwrap();
    assert_eq!(counts(&world).await, format!("0 {} 0", keys.len()), "{dialect} {kind}");
}

fn integers() -> Vec<String> {
    // Negative, with gaps, and beyond what a double can tell apart.
    (-300..300)
        .map(|i| (i * 7).to_string())
        .chain((1..=50).map(|i| (9_007_199_254_740_992_i64 + i).to_string()))
        .collect()
}

fn texts() -> Vec<String> {
    let odd = ["''''", "'a''; DROP TABLE rows_of; --'", "''", "'ä ö'", "'%_'", "'\"'", "'日本'"];
    odd.iter()
        .map(|it| (*it).to_owned())
        .chain((0..300).map(|i| format!("'key {}'", i * 7919 % 1000)))
        .collect()
}

fn uuids() -> Vec<String> {
    let uuid = |i: u128| {
        let spread = i.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        format!("'{}'", uuid::Builder::from_random_bytes(spread.to_be_bytes()).into_uuid())
    };
    (0..300).map(uuid).collect()
}

#[tokio::test]
async fn every_row_is_done_once_whatever_its_key() {
    whole(Dialect::Postgres, "BIGINT", &integers()).await;
    whole(Dialect::Postgres, "TEXT", &texts()).await;
    whole(Dialect::Postgres, "UUID", &uuids()).await;
    whole(Dialect::MySql, "BIGINT", &integers()).await;
    whole(Dialect::MySql, "VARCHAR(60) CHARACTER SET utf8mb4", &texts()).await;
    whole(Dialect::MySql, "CHAR(36) CHARACTER SET latin1", &uuids()).await;
    whole(Dialect::MySql, "UUID", &uuids()).await;
    let unsigned: Vec<_> = (0..90_u64).map(|i| (u64::MAX - i * 3).to_string()).collect();
    whole(Dialect::MySql, "BIGINT UNSIGNED", &unsigned).await;
    let binary: Vec<_> = (0..200_u32).map(|i| format!("X'{:08X}'", i.wrapping_mul(2_654_435_761))).collect();
    whole(Dialect::MySql, "BINARY(4)", &binary).await;
    whole(Dialect::Sqlite, "INTEGER", &integers()).await;
    whole(Dialect::Sqlite, "TEXT", &texts()).await;
    whole(Dialect::Sqlite, "BLOB", &binary).await;
}

#[tokio::test]
async fn an_empty_table_is_done_at_once() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        fill(&world, "INTEGER", &[]).await;
        let connection = open(&world).await;
        let (step, pacing) = (step(dialect, 10), Pacing::default());
        Box::pin(run(&connection, &step, record(), &pacing, &mut |_| {}, &stop())).await.unwrap();
        assert_eq!(left(&connection).await.mark, Mark::Done, "{dialect}");
    }
}

#[tokio::test]
async fn a_backfill_that_was_cut_off_anywhere_goes_on_without_leaving_out_or_repeating_a_row() {
    let keys: Vec<_> = (0..400).map(|i| (i * 3).to_string()).collect();
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        fill(&world, "INTEGER", &keys).await;
        let mut cuts = 0;
        for cut in 1_usize.. {
            let connection = open(&world).await;
            let found = left(&connection).await;
            if found.mark == Mark::Done {
                break;
            }
            let step = step(dialect, 20);
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            let task = tokio::spawn(async move {
                let mut progress = |it: Progress| tell.send(it).unwrap_or_default();
                Box::pin(run(&connection, &step, found, &Pacing::default(), &mut progress, &stop())).await
            });
            // The session is dropped in the middle of one of the statements that follow.
            for _ in 0..cut.min(4) {
                told.recv().await;
            }
            for _ in 0..cut % 7 {
                tokio::task::yield_now().await;
            }
            task.abort();
            cuts += usize::from(task.await.is_err());
            assert!(cut < 100, "{dialect}: it does not come to an end");
        }
        assert!(cuts > 2, "{dialect}: it was cut off {cuts} times");
        assert_eq!(counts(&world).await, format!("0 {} 0", keys.len()), "{dialect}");
    }
}

#[tokio::test]
async fn cancelling_stops_between_ranges_and_the_journal_tells_where() {
    let keys: Vec<_> = (0..200).map(|i| i.to_string()).collect();
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        fill(&world, "INTEGER", &keys).await;
        let connection = open(&world).await;
        let token = CancellationToken::new();
        let (step, pacing) = (step(dialect, 20), Pacing::default());
        let stopping = Stop::within(LONG, token.clone());
        let mut progress = |it: Progress| {
            if it.done >= 60 {
                token.cancel();
            }
        };
        let ended = Box::pin(run(&connection, &step, record(), &pacing, &mut progress, &stopping)).await;
        assert_eq!(ended, Err(Error::Cancelled), "{dialect}");
        assert_eq!(counts(&world).await, "140 60 0", "{dialect}");
        let found = left(&connection).await;
        Box::pin(run(&connection, &step, found, &pacing, &mut |_| {}, &stop())).await.unwrap();
        assert_eq!(counts(&world).await, "0 200 0", "{dialect}");
    }
}

#[tokio::test]
async fn a_held_lock_is_met_a_bounded_number_of_times_and_what_was_done_stays() {
    let keys: Vec<_> = (0..100).map(|i| i.to_string()).collect();
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        fill(&world, "INTEGER", &keys).await;
        let timeouts = Timeouts { lock: Duration::from_millis(300), ..crate::run_world::timeouts() };
        let connection = Connection::open(&world.target, &timeouts).await.unwrap();
        connection.prepare().await.unwrap();
        let holder = Database::connect(world.target.url.expose()).await.unwrap();
        let held = holder.begin().await.unwrap();
        held.execute_unprepared("UPDATE rows_of SET n = n WHERE id = 55").await.unwrap();
        let step = step(dialect, 40);
        let pacing = Pacing { tries: 3, backoff: Duration::from_millis(10), ..Pacing::default() };
        let error =
            Box::pin(run(&connection, &step, record(), &pacing, &mut |_| {}, &stop())).await.unwrap_err();
        assert!(error.is_lock_timeout(), "{dialect}: {error:?}");
        held.rollback().await.unwrap();
        holder.close().await.unwrap();
        // What comes before the held row is done, by ever smaller ranges; a range of the MySQL family also locks the
        // row behind it. SQLite has one lock for all, so nothing was done there.
        let left_over: u32 = counts(&world).await.split(' ').next().unwrap().parse().unwrap();
        let expected = if dialect == Dialect::Sqlite { 100..=100 } else { 45..=60 };
        assert!(expected.contains(&left_over), "{dialect}: {left_over}");
        let found = left(&connection).await;
        Box::pin(run(&connection, &step, found, &pacing, &mut |_| {}, &stop())).await.unwrap();
        assert_eq!(counts(&world).await, "0 100 0", "{dialect}");
    }
}

#[tokio::test]
async fn a_lock_that_is_let_go_is_waited_for() {
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        let world = World::new(dialect).await;
        fill(&world, "INTEGER", &(0..100).map(|i| i.to_string()).collect::<Vec<_>>()).await;
        let timeouts = Timeouts { lock: Duration::from_millis(200), ..crate::run_world::timeouts() };
        let connection = Connection::open(&world.target, &timeouts).await.unwrap();
        connection.prepare().await.unwrap();
        let holder = Database::connect(world.target.url.expose()).await.unwrap();
        let held = holder.begin().await.unwrap();
        held.execute_unprepared("UPDATE rows_of SET n = n WHERE id = 30").await.unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let step = step(dialect, 8);
        let task = tokio::spawn(async move {
            let pacing = Pacing { tries: 1_000, backoff: Duration::from_millis(5), ..Pacing::default() };
            let mut progress = |it: Progress| tell.send(it.done).unwrap_or_default();
            Box::pin(run(&connection, &step, record(), &pacing, &mut progress, &stop())).await
        });
        // Rows before the held one are done one by one in the end, since refusals make ranges smaller.
        while told.recv().await.unwrap() < 30 {}
        held.commit().await.unwrap();
        task.await.unwrap().unwrap();
        assert_eq!(counts(&world).await, "0 100 0", "{dialect}");
    }
}

#[tokio::test]
async fn tables_that_do_not_suit_are_refused_and_left_alone() {
    for dialect in Dialect::ALL {
        for (create, why) in [
            ("CREATE TABLE rows_of (id INTEGER NOT NULL, n INTEGER NOT NULL)", "no index"),
            ("CREATE TABLE other (id INTEGER)", "no such table"),
            ("CREATE TABLE rows_of (key_of INTEGER PRIMARY KEY, n INTEGER NOT NULL)", "no such"),
            ("CREATE TABLE rows_of (id INTEGER UNIQUE, n INTEGER NOT NULL)", "no key"),
            ("CREATE TABLE rows_of (id DOUBLE PRECISION PRIMARY KEY, n INTEGER NOT NULL)", "type"),
        ] {
            let world = World::new(dialect).await;
            world.sql(create).await;
            if why == "no key" {
                world.sql("INSERT INTO rows_of VALUES (1, 0), (NULL, 0)").await;
            } else if why == "type" {
                world.sql("INSERT INTO rows_of VALUES (1.5, 0)").await;
            }
            let connection = open(&world).await;
            let (step, pacing) = (step(dialect, 10), Pacing::default());
            let error =
                Box::pin(run(&connection, &step, record(), &pacing, &mut |_| {}, &stop())).await.unwrap_err();
            assert!(error.to_string().contains(why), "{dialect} {create}: {error}");
            if why == "no key" || why == "type" {
                assert_eq!(world.sql("SELECT count(*) FROM rows_of WHERE n <> 0").await, "0", "{dialect}");
            }
        }
    }
    let world = World::new(Dialect::MySql).await;
    world.sql("CREATE TABLE rows_of (id INTEGER PRIMARY KEY, n INTEGER NOT NULL) ENGINE=MyISAM").await;
    let connection = open(&world).await;
    let (step, pacing) = (step(Dialect::MySql, 10), Pacing::default());
    let error = Box::pin(run(&connection, &step, record(), &pacing, &mut |_| {}, &stop())).await.unwrap_err();
    assert!(error.to_string().contains("transactions"), "{error}");
}

#[tokio::test]
async fn a_journal_that_was_written_by_another_hand_is_not_run() {
    let world = World::new(Dialect::Postgres).await;
    fill(&world, "INTEGER", &["1".to_owned()]).await;
    let connection = open(&world).await;
    let (step, pacing) = (step(Dialect::Postgres, 10), Pacing::default());
    for text in ["1); DROP TABLE rows_of; --", r#"{"last":{"number":"x"},"upto":{"number":1},"done":0}"#] {
        let record = Record { reached: Some(text.to_owned()), ..record() };
        let error =
            Box::pin(run(&connection, &step, record, &pacing, &mut |_| {}, &stop())).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
    }
    assert_eq!(counts(&world).await, "1 0 0");
}
