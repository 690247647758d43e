//! Random migrations and random faults: in the end everything is applied, or nothing is.

use crate::files::load;
use crate::run_world::{LONG, World, lenient, mariadb, patient, postgres, version};
use grey_runtime::Secret;
use grey_schema_migrator::files::{Dialect, Scripts};
use grey_schema_migrator::plan::Target;
use grey_schema_migrator::run::{Goal, Migration, Outcome, migrate};
use grey_schema_migrator::tenant::Stop;
use grey_testkit::Proxy;
use proptest::prelude::*;
use std::fmt::Write as _;
use tokio_util::sync::CancellationToken;

/// One statement; tables and columns are numbered as they are made.
#[derive(Clone, Debug)]
enum Change {
    Table,
    Column(usize),
    Index(usize),
    Rows(usize, u8),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// A statement of the second part is wrong.
    Wrong(prop::sample::Index, prop::sample::Index),
    /// The migrator goes away at the nth thing that it tells.
    Dropped(usize),
    /// The connection is cut at the nth thing, at its first attempt.
    Cut(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => Just(Change::Table),
        3 => (0..4_usize).prop_map(Change::Column),
        2 => (0..4_usize).prop_map(Change::Index),
        3 => (0..4_usize, 1..4_u8).prop_map(|(table, rows)| Change::Rows(table, rows)),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        1 => Just(Fault::None),
        4 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(m, s)| Fault::Wrong(m, s)),
        4 => (1..30_usize).prop_map(Fault::Dropped),
        4 => (1..30_usize).prop_map(Fault::Cut),
    ]
}

/// Migrations and how many of them are there before.
fn history() -> impl Strategy<Value = (Vec<Vec<Change>>, usize)> {
    prop::collection::vec(prop::collection::vec(change(), 1..6), 2..5)
        .prop_flat_map(|migrations| (Just(migrations.clone()), 0..migrations.len()))
}

/// The files; `wrong`: migration and statement that the database refuses.
fn files(
    dialect: Dialect,
    migrations: &[Vec<Change>],
    wrong: Option<(usize, usize)>,
) -> (Scripts, Vec<String>) {
    let mut files = Vec::new();
    let mut tables = Vec::new();
    let mut made = 0;
    for (index, changes) in migrations.iter().enumerate() {
        let (mut up, mut down) = (String::new(), Vec::new());
        for (number, change) in changes.iter().enumerate() {
            made += 1;
            if wrong == Some((index, number)) {
                up.push_str("INSERT INTO nowhere VALUES (1);\n");
                continue;
            }
            let table = |it: &usize| tables.get(it % tables.len().max(1)).cloned();
            match change {
                Change::Column(it) if !tables.is_empty() => {
                    let table = table(it).unwrap();
                    writeln!(up, "ALTER TABLE {table} ADD COLUMN c{made} INTEGER;").unwrap();
                    down.push(format!("ALTER TABLE {table} DROP COLUMN c{made};"));
                }
                Change::Index(it) if !tables.is_empty() => {
                    let table = table(it).unwrap();
                    writeln!(up, "CREATE INDEX i{made} ON {table} (a);").unwrap();
                    let on = if dialect == Dialect::MySql { format!(" ON {table}") } else { String::new() };
                    down.push(format!("DROP INDEX i{made}{on};"));
                }
                Change::Rows(it, rows) if !tables.is_empty() => {
                    let table = table(it).unwrap();
                    for row in 0..*rows {
                        writeln!(
                            up,
                            "INSERT INTO {table} (id, a) VALUES ({}, 1);",
                            made * 10 + i32::from(row)
                        )
                        .unwrap();
                    }
                    let (low, high) = (made * 10, made * 10 + 9);
                    down.push(format!("DELETE FROM {table} WHERE id BETWEEN {low} AND {high};"));
                }
                _ => {
                    writeln!(up, "CREATE TABLE t{made} (id INTEGER PRIMARY KEY, a INTEGER);").unwrap();
                    down.push(format!("DROP TABLE t{made};"));
                    tables.push(format!("t{made}"));
                }
            }
        }
        down.reverse();
        let version = index + 1;
        files.push((format!("V{version}__x.sql"), up));
        if !down.is_empty() {
            files.push((format!("U{version}__x.sql"), down.join("\n")));
        }
    }
    let borrowed: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    (load(dialect, &borrowed), tables)
}

/// Shape and rows.
async fn state(world: &World, tables: &[String]) -> String {
    let mut state = world.shape().await;
    for table in tables {
        if state.contains(table.as_str()) {
            let rows = world.sql(&format!("SELECT count(*) FROM {table}")).await;
            write!(state, "\n{table}: {rows}").unwrap();
        }
    }
    state
}

fn stop() -> Stop {
    Stop::within(LONG, CancellationToken::new())
}

async fn holds(dialect: Dialect, migrations: Vec<Vec<Change>>, before: usize, fault: Fault) {
    let (good, tables) = files(dialect, &migrations, None);
    let mut world = World::new(dialect).await;
    if before > 0 {
        let goal = Goal::Up(Target::Version(version(&before.to_string())));
        world.migrate_as("u0", &good, goal, stop(), &mut |_| {}).await.unwrap();
    }
    let was = state(&world, &tables).await;
    let wrong = match fault {
        Fault::Wrong(migration, statement) => {
            let migration = before + migration.index(migrations.len() - before);
            Some((migration, statement.index(migrations[migration].len())))
        }
        _ => None,
    };
    let (scripts, _) = files(dialect, &migrations, wrong);
    let proxy = match dialect {
        Dialect::Postgres => Some(Proxy::start(postgres().await.addr()).await.unwrap()),
        Dialect::MySql => Some(Proxy::start(mariadb().await.addr()).await.unwrap()),
        Dialect::Sqlite => None,
    };
    let direct = world.target.clone();
    if let Some(proxy) = &proxy {
        let server = match dialect {
            Dialect::Postgres => postgres().await.addr(),
            _ => mariadb().await.addr(),
        };
        let url = direct.url.expose().replace(&server.to_string(), &proxy.addr().to_string());
        world.target.url = Secret::new(url);
    }
    let nth = match fault {
        Fault::Dropped(nth) | Fault::Cut(nth) => nth,
        Fault::None | Fault::Wrong(..) => 0,
    };
    let (reached, mut when) = tokio::sync::mpsc::unbounded_channel();
    let mut seen = 0;
    let mut listener = |_| {
        seen += 1;
        if seen == nth {
            reached.send(()).unwrap();
        }
    };
    let job = crate::run_world::job("u1", &scripts, stop());
    let goal = Goal::Up(Target::Newest);
    let migration =
        Migration { target: &world.target, timeouts: patient(), goal: goal.clone(), options: lenient() };
    let mut running = Box::pin(migrate(&migration, &job, &mut listener));
    let first = tokio::select! {
        biased;
        Some(()) = when.recv() => None,
        ended = &mut running => Some(ended.unwrap()),
    };
    let ended = match (first, fault) {
        (Some(ended), _) => {
            drop(running);
            ended
        }
        (None, Fault::Cut(_)) if proxy.is_some() => {
            let proxy = proxy.as_ref().unwrap();
            proxy.cut().await.unwrap();
            proxy.heal().await.unwrap();
            running.await.unwrap()
        }
        (None, _) => {
            drop(running);
            world.migrate_patiently("u1", &scripts, goal).await.unwrap()
        }
    };
    world.target = direct;
    if wrong.is_some() {
        assert!(matches!(ended.outcome, Outcome::Failed(_)), "{ended:?}");
        assert_eq!(state(&world, &tables).await, was);
        assert_eq!(world.applied().await.len(), before);
    } else {
        assert_eq!(ended.outcome, Outcome::Succeeded);
        let clean = World::new(dialect).await;
        clean.up(&good).await.unwrap();
        assert_eq!(state(&world, &tables).await, state(&clean, &tables).await);
        assert_eq!(world.applied().await.len(), migrations.len());
    }
}

fn run(dialect: Dialect, migrations: Vec<Vec<Change>>, before: usize, fault: Fault) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(holds(dialect, migrations, before, fault));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn everything_is_applied_or_nothing_is_on_postgres((migrations, before) in history(), fault in fault()) {
        run(Dialect::Postgres, migrations, before, fault);
    }

    #[test]
    fn everything_is_applied_or_nothing_is_on_mariadb((migrations, before) in history(), fault in fault()) {
        run(Dialect::MySql, migrations, before, fault);
    }

    #[test]
    fn everything_is_applied_or_nothing_is_on_sqlite((migrations, before) in history(), fault in fault()) {
        run(Dialect::Sqlite, migrations, before, fault);
    }
}
