//! A migrator that is killed inside each statement of a migration, whatever becomes of the statement.
//!
//! Another session holds what the statement needs, so that it waits in the server when the kill comes. SQLite has no
//! other session that could: there the statement never ends by itself.

use crate::files::{folder, load};
use crate::run_world::{LONG, World, job, lenient, mariadb, patient, postgres, target, version};
use futures::StreamExt as _;
use grey_core::ids::ServiceId;
use grey_schema_migrator::files::{Dialect, Folder, Scripts};
use grey_schema_migrator::plan::{Direction, Target};
use grey_schema_migrator::run::{Goal, Migration, Outcome, Progress, migrate, recover};
use grey_schema_migrator::tenant::{Mark, Stop};
use grey_testkit::{Spawned, eventually};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

const CHILD: &str = "MIGRATE_INSIDE";

const TABLES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Each statement needs a table of its own.
const UP: [&str; 5] = [
    "ALTER TABLE a ADD COLUMN note INTEGER;",
    "UPDATE b SET name = 'new' WHERE id = 1;",
    "CREATE INDEX c_name ON c (name);",
    "INSERT INTO d VALUES (7, 'new');",
    "ALTER TABLE e ADD COLUMN note INTEGER;",
];
/// What another session does so that the statement of the same place waits.
const HOLD_UP: [&str; 5] = [
    "UPDATE a SET name = 'held' WHERE id = 1",
    "UPDATE b SET name = 'held' WHERE id = 1",
    "UPDATE c SET name = 'held' WHERE id = 1",
    "INSERT INTO d VALUES (7, 'held')",
    "UPDATE e SET name = 'held' WHERE id = 1",
];
/// The same backwards.
const HOLD_DOWN: [&str; 5] = [
    "UPDATE e SET name = 'held' WHERE id = 1",
    "UPDATE d SET name = 'held' WHERE id = 7",
    "UPDATE c SET name = 'held' WHERE id = 1",
    "UPDATE b SET name = 'held' WHERE id = 1",
    "UPDATE a SET name = 'held' WHERE id = 1",
];

fn down(dialect: Dialect) -> [&'static str; 5] {
    let drop_index = if dialect == Dialect::MySql { "DROP INDEX c_name ON c;" } else { "DROP INDEX c_name;" };
    [
        "ALTER TABLE e DROP COLUMN note;",
        "DELETE FROM d WHERE id = 7;",
        drop_index,
        "UPDATE b SET name = 'old' WHERE id = 1;",
        "ALTER TABLE a DROP COLUMN note;",
    ]
}

/// Two versions; the second one's files are given.
fn texts(up: &str, down: &str) -> [(&'static str, String); 4] {
    let tables = TABLES.map(|table| {
        format!(
            "CREATE TABLE {table} (id INTEGER PRIMARY KEY, name VARCHAR(50));\n\
             INSERT INTO {table} VALUES (1, 'old');\n"
        )
    });
    let drops = TABLES.map(|table| format!("DROP TABLE {table};\n"));
    [
        ("V1__tables.sql", tables.concat()),
        ("U1__tables.sql", drops.concat()),
        ("V2__change.sql", up.to_owned()),
        ("U2__change.sql", down.to_owned()),
    ]
}

fn borrowed<'a>(files: &'a [(&'static str, String); 4]) -> [(&'a str, &'a str); 4] {
    files.each_ref().map(|(name, text)| (*name, text.as_str()))
}

fn good(dialect: Dialect) -> [(&'static str, String); 4] {
    texts(&UP.join("\n"), &down(dialect).join("\n"))
}

fn stop() -> Stop {
    Stop::within(LONG, CancellationToken::new())
}

fn goal(direction: Direction) -> Goal {
    match direction {
        Direction::Up => Goal::Up(Target::Newest),
        Direction::Down => Goal::Down(Some(version("1"))),
    }
}

/// `dialect direction folder url`
fn read_child() -> Option<(Dialect, Direction, PathBuf, String)> {
    let text = std::env::var(CHILD).ok()?;
    let mut parts = text.splitn(4, ' ');
    let mut next = || parts.next().unwrap().to_owned();
    let dialect = next().parse().unwrap();
    let direction = if next() == "up" { Direction::Up } else { Direction::Down };
    Some((dialect, direction, next().into(), next()))
}

/// Not a test by itself: the program that the tests kill.
#[tokio::test]
async fn child() {
    let Some((dialect, direction, folder, url)) = read_child() else { return };
    let scripts = Folder::new(folder).load(&ServiceId::new("shop").unwrap(), dialect).unwrap();
    let target = target(dialect, url);
    let mut tell = |told: Progress| {
        if let Progress::Step { version, step, .. } = told {
            println!("runs {version} {step}.");
        }
    };
    let goal = goal(direction);
    let migration = Migration { target: &target, timeouts: patient(), goal, options: lenient() };
    let ended = Box::pin(migrate(&migration, &job("u1", &scripts, stop()), &mut tell)).await.unwrap();
    println!("ended {:?}", ended.outcome);
}

fn start(world: &World, direction: Direction, files: &Path) -> Spawned {
    let (direction, files) = (direction.as_str(), files.display());
    let text = format!("{} {direction} {files} {}", world.dialect, world.target.url.expose());
    let program = std::env::current_exe().unwrap();
    let spawned = Spawned::builder(program).arg("--exact").arg("run_inside::child").arg("--nocapture");
    spawned.env(CHILD, text).start().unwrap()
}

/// Everything in the tables, and what they look like.
async fn state(world: &World) -> String {
    let mut state = world.shape().await;
    for table in TABLES {
        let text = match world.dialect {
            Dialect::MySql => "CONCAT(id, ':', name)",
            _ => "id || ':' || name",
        };
        let rows = world.sql(&format!("SELECT {text} FROM {table} ORDER BY id")).await;
        state.push_str(&format!("\n{table} {}", rows.replace('\n', " ")));
    }
    state
}

/// What the database is like at versions 1 and 2.
async fn states(dialect: Dialect) -> [String; 2] {
    let (world, files) = (World::new(dialect).await, good(dialect));
    let scripts = load(dialect, &borrowed(&files));
    at_one(&world, &scripts).await;
    let first = state(&world).await;
    assert_eq!(world.up(&scripts).await.unwrap().outcome, Outcome::Succeeded);
    [first, state(&world).await]
}

async fn at_one(world: &World, scripts: &Scripts) {
    let goal = Goal::Up(Target::Version(version("1")));
    let ended = world.migrate_as("u0", scripts, goal, stop(), &mut |_| {}).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Succeeded);
}

/// What becomes of a statement whose client is dead.
#[derive(Clone, Copy, Debug)]
enum Server {
    /// It goes on with it when it can.
    GoesOn,
    /// It ends it without any effect.
    EndsIt,
}

/// Whether a statement of another session in this database waits for a lock.
pub(crate) async fn waits(world: &World) -> bool {
    if world.dialect == Dialect::Postgres {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND datname = current_database()";
        return world.sql(query).await != "0";
    }
    let query = "SELECT id, state LIKE 'Waiting for table%' FROM information_schema.processlist \
                 WHERE db = DATABASE() AND id <> CONNECTION_ID()";
    let sessions = world.sql(query).await;
    let mut sessions = sessions.lines().map(|line| line.split_once('\t').unwrap());
    // Not information_schema.innodb_trx: InnoDB shows there what it saw when nobody had looked for 100 ms, so it never
    // shows anything new while several of us look all the time.
    let status = world.sql("SHOW ENGINE INNODB STATUS").await;
    let for_a_row = |id: &str| {
        let mut transactions = status.split("---TRANSACTION ").skip(1);
        // The client writes ends of lines as two characters.
        transactions.any(|it| it.contains("\\nLOCK WAIT ") && it.contains(&format!(" thread id {id},")))
    };
    sessions.any(|(id, for_a_table)| for_a_table == "1" || for_a_row(id))
}

/// Ends the sessions that wait.
async fn end_waiting(world: &World) {
    match world.dialect {
        Dialect::Postgres => {
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE wait_event_type = 'Lock' AND datname = current_database()";
            postgres().await.query(&world.name, end).await.unwrap();
        }
        _ => {
            let find = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() \
                        AND command = 'Query' AND id <> CONNECTION_ID()";
            for id in world.sql(find).await.lines() {
                // It may have ended by itself.
                drop(mariadb().await.query(&world.name, &format!("KILL CONNECTION {id}")).await);
            }
        }
    }
    eventually(LONG, "nothing waits any more", async || !waits(world).await).await;
}

/// The journal says of every statement what the database says.
async fn journal_is_exact(world: &World, direction: Direction, states: &[String; 2], what: &str) {
    let connection = world.open().await;
    connection.prepare().await.unwrap();
    let records = connection.unfinished().await.unwrap();
    let now = state(world).await;
    let going = records.iter().filter(|it| it.direction == direction && it.step > 0);
    let (mut done, mut doubtful) = (Vec::new(), Vec::new());
    for record in going {
        let step = usize::try_from(record.step).unwrap();
        if record.mark == Mark::Done { done.push(step) } else { doubtful.push(step) }
    }
    assert!(doubtful.len() <= 1, "{what}: {doubtful:?}");
    let clean = World::new(world.dialect).await;
    let files = good(world.dialect);
    let scripts = load(world.dialect, &borrowed(&files));
    at_one(&clean, &scripts).await;
    let statements = match direction {
        Direction::Up => UP,
        Direction::Down => {
            clean.up(&scripts).await.unwrap();
            assert_eq!(state(&clean).await, states[1]);
            down(world.dialect)
        }
    };
    for step in done {
        clean.sql(statements[step - 1]).await;
    }
    let certain = state(&clean).await;
    if let ([step], false) = (doubtful.as_slice(), certain == now) {
        clean.sql(statements[step - 1]).await;
    }
    assert_eq!(state(&clean).await, now, "{what}");
}

/// Kills a migrator that is inside of a statement, and sees what is left and what comes of it.
async fn killed_inside(
    dialect: Dialect,
    direction: Direction,
    statement: usize,
    server: Server,
    states: &[String; 2],
) {
    let what = format!("{dialect} {} {statement} {server:?}", direction.as_str());
    let (world, texts) = (World::new(dialect).await, good(dialect));
    let files = folder(&borrowed(&texts));
    let scripts = load(dialect, &borrowed(&texts));
    at_one(&world, &scripts).await;
    let holds = match direction {
        Direction::Up => HOLD_UP,
        Direction::Down => {
            world.migrate_as("u0", &scripts, goal(Direction::Up), stop(), &mut |_| {}).await.unwrap();
            HOLD_DOWN
        }
    };
    let db = sea_orm::Database::connect(world.target.url.expose()).await.unwrap();
    let holder = db.begin().await.unwrap();
    holder.execute_unprepared(holds[statement - 1]).await.unwrap();
    let migrator = start(&world, direction, files.path());
    eventually(LONG, "the statement waits", async || {
        assert!(!migrator.output().contains("ended"), "{what}: {}", migrator.output());
        waits(&world).await
    })
    .await;
    migrator.wait_for_line(&format!("runs 2 {statement}."), LONG).await.unwrap();
    let next = format!("runs 2 {}.", statement + 1);
    assert!(!migrator.output().contains(&next), "{what}: {}", migrator.output());
    migrator.kill9().unwrap();
    if matches!(server, Server::EndsIt) {
        end_waiting(&world).await;
    }
    holder.rollback().await.unwrap();
    // Whoever has the lock knows that no session of the dead one does anything any more.
    let mut connection = world.open_patiently().await;
    connection.lock(&stop()).await.unwrap();
    if dialect == Dialect::MySql {
        journal_is_exact(&world, direction, states, &what).await;
    }
    let job = job("u1", &scripts, stop());
    let recovered = Box::pin(recover(&connection, &job, &mut |_| {})).await.unwrap();
    let over = recovered.is_some_and(|ended| ended.outcome != Outcome::Succeeded);
    assert!(!over, "{what}");
    let history = connection.history().await.unwrap();
    assert!(history.leftovers.is_empty(), "{what}");
    let present = history.present().map(ToString::to_string);
    let expected = if present.as_deref() == Some("2") { &states[1] } else { &states[0] };
    assert_eq!(&state(&world).await, expected, "{what}: {present:?}");
    drop(connection);
    let ended = world.migrate_patiently("u2", &scripts, goal(direction)).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Succeeded, "{what}");
    let last = if direction == Direction::Up { &states[1] } else { &states[0] };
    assert_eq!(&state(&world).await, last, "{what}");
}

async fn killed_inside_each(dialect: Dialect) {
    let states = states(dialect).await;
    let mut runs = Vec::new();
    for direction in [Direction::Up, Direction::Down] {
        for statement in 1..=UP.len() {
            for server in [Server::GoesOn, Server::EndsIt] {
                runs.push(killed_inside(dialect, direction, statement, server, &states));
            }
        }
    }
    futures::stream::iter(runs).buffer_unordered(4).collect::<Vec<_>>().await;
}

#[tokio::test]
async fn a_migrator_killed_inside_any_statement_leaves_no_doubt_on_postgres() {
    killed_inside_each(Dialect::Postgres).await;
}

#[tokio::test]
async fn a_migrator_killed_inside_any_statement_leaves_no_doubt_on_mariadb() {
    killed_inside_each(Dialect::MySql).await;
}

/// Writes so many rows into `a`, and goes on for ever without writing any more.
fn endless(rows: u32) -> String {
    format!(
        "INSERT INTO a (id, name) SELECT n + 100, 'a row that takes its place' FROM (WITH RECURSIVE c(n) AS \
         (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000000000) SELECT n FROM c WHERE n <= {rows});"
    )
}

async fn killed_inside_sqlite(direction: Direction, place: usize, rows: u32, states: &[String; 2]) {
    let what = format!("{} {place} {rows}", direction.as_str());
    let dialect = Dialect::Sqlite;
    let endless = endless(rows);
    let with = |statements: [&'static str; 5]| {
        let (before, after) = statements.split_at(place);
        [before, &[endless.as_str()], after].concat().join("\n")
    };
    let (good, endless) = (
        good(dialect),
        match direction {
            Direction::Up => texts(&with(UP), &down(dialect).join("\n")),
            Direction::Down => texts(&UP.join("\n"), &with(down(dialect))),
        },
    );
    let scripts = load(dialect, &borrowed(&good));
    let world = World::new(dialect).await;
    at_one(&world, &scripts).await;
    let before = match direction {
        Direction::Up => &states[0],
        Direction::Down => {
            world.migrate_as("u0", &scripts, goal(Direction::Up), stop(), &mut |_| {}).await.unwrap();
            &states[1]
        }
    };
    let small = bytes(&world);
    let files = folder(&borrowed(&endless));
    let migrator = start(&world, direction, files.path());
    migrator.wait_for_line(&format!("runs 2 {}.", place + 1), LONG).await.unwrap();
    if rows > 0 {
        // More than fits into memory, so a part of it is in the files already.
        eventually(LONG, "rows reach the files", async || bytes(&world) > small + 1_000_000).await;
    }
    migrator.kill9().unwrap();
    assert!(!migrator.output().contains("ended"), "{what}: {}", migrator.output());
    assert_eq!(&state(&world).await, before, "{what}");
    let applied: &[&str] = if direction == Direction::Up { &["1"] } else { &["1", "2"] };
    assert_eq!(world.applied().await, applied, "{what}");
    let ended = world.migrate_as("u2", &scripts, goal(direction), stop(), &mut |_| {}).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Succeeded, "{what}");
    let after = if direction == Direction::Up { &states[1] } else { &states[0] };
    assert_eq!(&state(&world).await, after, "{what}");
}

/// Bytes of the database's files.
fn bytes(world: &World) -> u64 {
    let files = std::fs::read_dir(world.folder.path()).unwrap();
    // The journal comes and goes.
    files.filter_map(|file| file.unwrap().metadata().ok()).map(|file| file.len()).sum()
}

#[tokio::test]
async fn a_migrator_killed_inside_any_statement_has_done_nothing_on_sqlite() {
    let states = states(Dialect::Sqlite).await;
    let mut runs = Vec::new();
    for direction in [Direction::Up, Direction::Down] {
        for place in 0..=UP.len() {
            // With many rows some are written out before the end; one place of each direction will do.
            let rows = if place == 2 { 200_000 } else { 0 };
            runs.push(killed_inside_sqlite(direction, place, rows, &states));
        }
    }
    futures::stream::iter(runs).buffer_unordered(2).collect::<Vec<_>>().await;
}
