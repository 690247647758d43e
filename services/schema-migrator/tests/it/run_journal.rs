//! Random migrations of MariaDB that cannot be undone: the journal names exactly what of them is applied.

use crate::files::load;
use crate::run_world::{LONG, World, job, lenient, timeouts, version};
use grey_schema_migrator::files::{Dialect, Scripts};
use grey_schema_migrator::plan::{Direction, Target};
use grey_schema_migrator::run::{Goal, Migration, Outcome, migrate};
use grey_schema_migrator::tenant::{Mark, Record, Stop};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

/// One statement; tables and columns are numbered as they are made.
#[derive(Clone, Debug)]
enum Change {
    Table,
    Column(usize),
    Index(usize),
    Rows(usize),
    /// Adds up, so that doing it twice shows.
    Count(usize),
    DropColumn(usize),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The statement that the database refuses.
    Wrong(prop::sample::Index),
    /// The migrator goes away at the nth thing that it tells.
    Dropped(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => Just(Change::Table),
        3 => (0..4_usize).prop_map(Change::Column),
        2 => (0..4_usize).prop_map(Change::Index),
        3 => (0..4_usize).prop_map(Change::Rows),
        4 => (0..4_usize).prop_map(Change::Count),
        1 => (0..4_usize).prop_map(Change::DropColumn),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![any::<prop::sample::Index>().prop_map(Fault::Wrong), (1..22_usize).prop_map(Fault::Dropped),]
}

/// The statements of the second of two versions; the first one makes two tables.
fn statements(changes: &[Change]) -> Vec<String> {
    let mut tables = vec!["t1".to_owned(), "t2".to_owned()];
    let mut columns: Vec<(String, String)> = Vec::new();
    let mut made = 10;
    let mut statements = Vec::new();
    for change in changes {
        made += 1;
        let table = |it: &usize| tables[it % tables.len()].clone();
        statements.push(match change {
            Change::Table => {
                tables.push(format!("t{made}"));
                format!("CREATE TABLE t{made} (id INTEGER PRIMARY KEY, a INTEGER)")
            }
            Change::Column(it) => {
                columns.push((table(it), format!("c{made}")));
                format!("ALTER TABLE {} ADD COLUMN c{made} INTEGER", table(it))
            }
            Change::DropColumn(it) if !columns.is_empty() => {
                let (table, column) = columns.remove(it % columns.len());
                format!("ALTER TABLE {table} DROP COLUMN {column}")
            }
            Change::Index(it) => format!("CREATE INDEX i{made} ON {} (a)", table(it)),
            Change::Rows(it) => format!("INSERT INTO {} (id, a) VALUES ({made}, 1)", table(it)),
            Change::Count(it) | Change::DropColumn(it) => format!("UPDATE {} SET a = a + 1", table(it)),
        });
    }
    statements
}

const FIRST: &str = "CREATE TABLE t1 (id INTEGER PRIMARY KEY, a INTEGER);\n\
                     CREATE TABLE t2 (id INTEGER PRIMARY KEY, a INTEGER);\n\
                     INSERT INTO t1 VALUES (1, 0);\nINSERT INTO t2 VALUES (1, 0);\n";

/// No version has an undo file.
fn scripts(statements: &[String]) -> Scripts {
    let text: String = statements.iter().map(|sql| format!("{sql};\n")).collect();
    load(Dialect::MySql, &[("V1__first.sql", FIRST), ("V2__second.sql", &text)])
}

fn stop() -> Stop {
    Stop::within(LONG, CancellationToken::new())
}

async fn at_one(scripts: &Scripts) -> World {
    let world = World::new(Dialect::MySql).await;
    let goal = Goal::Up(Target::Version(version("1")));
    let ended = world.migrate_as("u0", scripts, goal, stop(), &mut |_| {}).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Succeeded);
    world
}

/// Shape and rows.
async fn state(world: &World) -> String {
    let mut state = world.shape().await;
    let tables = world
        .sql(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() \
             AND table_name NOT LIKE 'grey_schema%' ORDER BY table_name",
        )
        .await;
    for table in tables.lines() {
        let rows = world.sql(&format!("SELECT CONCAT(id, ':', a) FROM {table} ORDER BY id")).await;
        state.push_str(&format!("\n{table} {}", rows.replace('\n', " ")));
    }
    state
}

/// A database at version 1 on which these statements were run by hand.
async fn by_hand(statements: &[&String]) -> String {
    let world = at_one(&scripts(&["SELECT 1".to_owned()])).await;
    for sql in statements {
        world.sql(sql).await;
    }
    state(&world).await
}

/// What the journal says of the second version, once no session of a dead migrator does anything any more.
async fn journal(world: &World) -> Vec<Record> {
    let mut connection = world.open_patiently().await;
    connection.lock(&stop()).await.unwrap();
    connection.prepare().await.unwrap();
    let history = connection.history().await.unwrap();
    let records = connection.unfinished().await.unwrap();
    if history.present() == Some(&version("2")) {
        assert!(records.is_empty(), "{records:?}");
    }
    records
}

/// Compares what the journal names with what there is; tells how many steps are done for certain.
async fn journal_names_what_is_applied(world: &World, statements: &[String]) -> usize {
    let records = journal(world).await;
    let ours = |mark: Mark| {
        let steps = records.iter().filter(move |it| it.step > 0 && it.mark == mark);
        steps
            .map(|it| {
                assert_eq!((it.direction, &it.version), (Direction::Up, &version("2")));
                usize::try_from(it.step).unwrap()
            })
            .collect::<Vec<_>>()
    };
    let (done, begun) = (ours(Mark::Done), ours(Mark::Started));
    assert_eq!(done, (1..=done.len()).collect::<Vec<_>>(), "steps are done in order");
    let applied: Vec<&String> = match world.is_at_two().await {
        true => statements.iter().collect(),
        false => statements.iter().take(done.len()).collect(),
    };
    let now = state(world).await;
    if by_hand(&applied).await != now {
        // Only a step that was under way may be there without being named as done.
        assert_eq!(begun, [done.len() + 1], "{records:?}");
        let with: Vec<_> = statements.iter().take(done.len() + 1).collect();
        assert_eq!(by_hand(&with).await, now, "{records:?}");
    }
    done.len()
}

impl World {
    /// Whether the history says that version 2 is applied.
    async fn is_at_two(&self) -> bool {
        self.open().await.history().await.unwrap().present() == Some(&version("2"))
    }
}

async fn holds(changes: Vec<Change>, fault: Fault) {
    let good = statements(&changes);
    match fault {
        Fault::Wrong(index) => refused(&good, index.index(good.len())).await,
        Fault::Dropped(nth) => dropped(&good, nth).await,
    }
}

/// One statement is wrong: what came before it is there and named, line by line.
async fn refused(good: &[String], wrong: usize) {
    let mut statements = good.to_vec();
    statements[wrong] = "INSERT INTO nowhere VALUES (1)".to_owned();
    let scripts = scripts(&statements);
    let world = at_one(&scripts).await;
    let ended = world.up(&scripts).await.unwrap();
    assert_eq!(ended.schema, Some(version("1")));
    let done = journal_names_what_is_applied(&world, &statements).await;
    match &ended.outcome {
        Outcome::NeedsRepair(failure) => {
            assert_eq!(done, wrong);
            let lines: Vec<_> = (1..=wrong).map(|line| line.to_string()).collect();
            let expected = format!("applied and not undone: the steps on lines {}", lines.join(", "));
            assert_eq!(failure.left, expected);
        }
        Outcome::Failed(failure) => assert_eq!((done, failure.left.as_str()), (0, ""), "{failure:?}"),
        other => panic!("{other:?}"),
    }
}

/// The migrator goes away: the journal tells where it was, and the next one ends it, each statement once.
async fn dropped(statements: &[String], nth: usize) {
    let scripts = scripts(statements);
    let world = at_one(&scripts).await;
    let (reached, mut when) = tokio::sync::mpsc::unbounded_channel();
    let mut seen = 0;
    let mut listener = |_| {
        seen += 1;
        if seen == nth {
            reached.send(()).unwrap();
        }
    };
    let job = job("u1", &scripts, stop());
    let goal = Goal::Up(Target::Newest);
    let migration = Migration { target: &world.target, timeouts: timeouts(), goal, options: lenient() };
    let mut running = Box::pin(migrate(&migration, &job, &mut listener));
    tokio::select! {
        biased;
        Some(()) = when.recv() => {}
        ended = &mut running => assert_eq!(ended.unwrap().outcome, Outcome::Succeeded),
    }
    drop(running);
    journal_names_what_is_applied(&world, statements).await;
    let ended = world.migrate_patiently("u1", &scripts, Goal::Up(Target::Newest)).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Succeeded);
    assert_eq!(world.applied().await, ["1", "2"]);
    assert_eq!(state(&world).await, by_hand(&statements.iter().collect::<Vec<_>>()).await);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_names_exactly_what_is_applied(
        changes in prop::collection::vec(change(), 1..7),
        fault in fault(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(holds(changes, fault));
    }
}
