//! Histories: of many tenants at once, taken over from Flyway, declared; facts and backups.

use crate::run_world::{LONG, World, job, lenient, mariadb, postgres, scripts, target, timeouts, version};
use grey_runtime::Secret;
use grey_schema_migrator::backup;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::plan::{Facts, History, Target};
use grey_schema_migrator::run::{Goal, Job, MigrateError, Migration, Outcome, Progress, Tooling, migrate};
use grey_schema_migrator::tenant::{
    self, Baseline, Declared, Error, Repair, Stop, baseline, flyway, read_many, repair,
};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use tokio_util::sync::CancellationToken;

fn stop() -> Stop {
    Stop::within(LONG, CancellationToken::new())
}

async fn apply(target: &tenant::Target, to: &str) {
    let scripts = scripts(target.dialect);
    let goal = Goal::Up(Target::Version(version(to)));
    let migration = Migration { target, timeouts: timeouts(), goal, options: lenient() };
    let ended = Box::pin(migrate(&migration, &job("u1", &scripts, stop()), &mut |_| {})).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Succeeded);
}

fn present(history: &Result<History, Error>) -> String {
    let present = history.as_ref().unwrap().present();
    present.map_or_else(|| "none".to_owned(), ToString::to_string)
}

#[tokio::test]
async fn histories_of_schemas_in_one_database_are_read_together() {
    let world = World::new(Dialect::Postgres).await;
    let mut targets = Vec::new();
    for (number, to) in [(0, Some("1")), (1, None), (2, Some("2")), (3, Some("1"))] {
        world.sql(&format!("CREATE SCHEMA s{number}")).await;
        let target = tenant::Target { schema: Some(format!("s{number}")), ..world.target.clone() };
        if let Some(to) = to {
            apply(&target, to).await;
        }
        targets.push(target);
    }
    // Each tenant has its tables in its own schema.
    assert_eq!(world.sql("SELECT count(*) FROM s2.notes").await, "1");
    let histories = read_many(&targets, &timeouts(), 2).await;
    assert_eq!(histories.iter().map(present).collect::<Vec<_>>(), ["1", "none", "2", "1"]);
    for (target, history) in targets.iter().zip(&histories) {
        let alone = tenant::Connection::open(target, &timeouts()).await.unwrap().history().await.unwrap();
        assert_eq!(history.as_ref().unwrap(), &alone);
    }
    // One that is wrong does not hide the others.
    targets.push(tenant::Target { schema: Some("nowhere".to_owned()), ..world.target.clone() });
    let histories = read_many(&targets, &timeouts(), 2).await;
    assert_eq!(histories.iter().take(4).map(present).collect::<Vec<_>>(), ["1", "none", "2", "1"]);
    assert!(matches!(histories.last(), Some(Err(Error::Refused { .. }))), "{:?}", histories.last());
}

#[tokio::test]
async fn histories_of_databases_on_one_server_are_read_together() {
    for dialect in [Dialect::MySql, Dialect::Postgres, Dialect::Sqlite] {
        let mut targets = Vec::new();
        let mut worlds = Vec::new();
        for to in [Some("2"), None, Some("1")] {
            let world = World::new(dialect).await;
            if let Some(to) = to {
                apply(&world.target, to).await;
            }
            targets.push(world.target.clone());
            worlds.push(world);
        }
        let histories = read_many(&targets, &timeouts(), 4).await;
        assert_eq!(histories.iter().map(present).collect::<Vec<_>>(), ["2", "none", "1"], "{dialect}");
        for (world, history) in worlds.iter().zip(&histories) {
            assert_eq!(history.as_ref().unwrap(), &world.open().await.history().await.unwrap(), "{dialect}");
        }
    }
}

#[tokio::test]
async fn a_leftover_is_seen_by_whoever_reads_many() {
    let worlds = [World::new(Dialect::MySql).await, World::new(Dialect::MySql).await];
    apply(&worlds[0].target, "2").await;
    let text = "INSERT INTO grey_schema_journal_shop (upgrade, actor, version, direction, step, state, line, \
                unfinished, started_at, changed_at) VALUES ('u', 'a', '3', 'up', 1, 'done', 1, 1, 0, 0)";
    worlds[0].sql(text).await;
    let targets: Vec<_> = worlds.iter().map(|world| world.target.clone()).collect();
    let histories = read_many(&targets, &timeouts(), 1).await;
    assert_eq!(histories[0].as_ref().unwrap().leftovers.len(), 1);
    assert!(histories[1].as_ref().unwrap().leftovers.is_empty());
}

async fn flyway_table(world: &World, rows: &str) {
    world.sql(
        "CREATE TABLE flyway_schema_history (installed_rank INTEGER PRIMARY KEY, version VARCHAR(50), \
         description VARCHAR(200), type VARCHAR(20), script VARCHAR(1000), checksum INTEGER, success BOOLEAN)",
    )
    .await;
    world.sql(&format!("INSERT INTO flyway_schema_history VALUES {rows}")).await;
}

#[tokio::test]
async fn what_flyway_has_migrated_is_taken_over() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        world.sql("CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL)").await;
        flyway_table(
            &world,
            "(1, '1', 'items', 'SQL', 'V1__items.sql', 1, TRUE), (2, '1.5', 'x', 'SQL', 'V1.5__x.sql', 1, TRUE), \
             (3, '1.5', 'x', 'UNDO_SQL', 'U1.5__x.sql', 1, TRUE), (4, NULL, 'r', 'SQL', 'R__r.sql', 1, TRUE)",
        )
        .await;
        let mut connection = world.open().await;
        assert_eq!(flyway(&connection).await.unwrap(), Some([version("1")].into()), "{dialect}");
        connection.lock(&stop()).await.unwrap();
        let (scripts_of_it, second) = (scripts(dialect), version("2"));
        let wanted =
            |schema| Baseline { schema, scripts: &scripts_of_it, skip: &[], actor: "test", id: "b1" };
        assert_eq!(baseline(&connection, &wanted(None)).await.unwrap().schema, version("1"), "{dialect}");
        let again = baseline(&connection, &wanted(Some(&second))).await.unwrap_err();
        assert!(matches!(again, Error::Conflict(_)), "{dialect}: {again:?}");
        drop(connection);
        assert_eq!(world.history().await, ["1 baseline"], "{dialect}");
        let ended = world.up(&scripts(dialect)).await.unwrap();
        assert_eq!(ended.outcome, Outcome::Succeeded, "{dialect}");
        assert_eq!(world.history().await, ["1 baseline", "2 applied"], "{dialect}");
    }
}

#[tokio::test]
async fn a_flyway_history_that_failed_or_is_missing_is_not_taken_over() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let mut connection = world.open().await;
        connection.lock(&stop()).await.unwrap();
        let scripts = scripts(dialect);
        let wanted = Baseline { schema: None, scripts: &scripts, skip: &[], actor: "test", id: "b1" };
        let error = baseline(&connection, &wanted).await.unwrap_err();
        assert!(error.to_string().contains("no Flyway history"), "{dialect}: {error}");
        flyway_table(&world, "(1, '1', 'items', 'SQL', 'V1__items.sql', 1, FALSE)").await;
        let error = baseline(&connection, &wanted).await.unwrap_err();
        assert!(error.to_string().contains("migration 1 failed"), "{dialect}: {error}");
        assert!(connection.history().await.unwrap().entries.is_empty(), "{dialect}");
    }
}

#[tokio::test]
async fn facts_tell_rows_and_server() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        apply(&world.target, "2").await;
        world.sql(if dialect == Dialect::MySql { "ANALYZE TABLE items" } else { "ANALYZE" }).await;
        let facts = world.open().await.facts(&["items".to_owned()].into()).await.unwrap();
        assert_eq!(facts.rows.get("items"), Some(&2), "{dialect}: {facts:?}");
        assert!(facts.rows.keys().all(|name| !name.starts_with("grey_")), "{dialect}: {facts:?}");
        let server = facts.server.unwrap();
        assert_eq!(server.mariadb, dialect == Dialect::MySql, "{dialect}");
        assert!(server.major >= 3, "{dialect}: {server:?}");
    }
}

#[tokio::test]
async fn what_was_half_undone_and_is_declared_applied_stands_once() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        apply(&world.target, "2").await;
        let half = "INSERT INTO grey_schema_journal_shop (upgrade, actor, version, direction, step, state, line, \
                    unfinished, started_at, changed_at) VALUES ('u9', 'test', '2', 'down', 1, 'started', 1, 1, 1, 1)";
        world.sql(half).await;
        let scripts = scripts(dialect);
        let mut connection = world.open().await;
        connection.lock(&stop()).await.unwrap();
        let declared = Declared::Applied;
        let by_hand = Repair { version: None, declared, scripts: &scripts, actor: "test", id: "r1" };
        repair(&connection, &by_hand).await.unwrap();
        let history = connection.history().await.unwrap();
        assert_eq!(history.present(), Some(&version("2")), "{dialect}");
        let goal = Goal::Up(Target::Newest);
        let plan = goal.plan(&scripts, &history, &lenient(), &Facts::default());
        assert!(plan.findings.is_empty(), "{dialect}: {:?}", plan.findings);
    }
}

async fn with_backup(
    world: &World,
    tooling: &Tooling,
    told: &mut Vec<PathBuf>,
) -> Result<Outcome, MigrateError> {
    let scripts = scripts(world.dialect);
    let job = Job { backup: true, tooling, ..job("u2", &scripts, stop()) };
    let goal = Goal::Up(Target::Newest);
    let migration = Migration { target: &world.target, timeouts: timeouts(), goal, options: lenient() };
    let mut listener = |progress| {
        if let Progress::BackedUp { path } = progress {
            told.push(path);
        }
    };
    Box::pin(migrate(&migration, &job, &mut listener)).await.map(|ended| ended.outcome)
}

#[tokio::test]
async fn a_backup_is_made_before_anything_is_run() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        apply(&world.target, "1").await;
        let folder = tempfile::tempdir().unwrap();
        let backups = Some(backup::Options::in_folder(folder.path().to_owned()));
        let tooling = Tooling { backups, ..Tooling::default() };
        let mut told = Vec::new();
        assert_eq!(with_backup(&world, &tooling, &mut told).await.unwrap(), Outcome::Succeeded, "{dialect}");
        let [path] = told.as_slice() else { panic!("{dialect}: {told:?}") };
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{dialect}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{dialect}");
        // It has what was there before, and nothing of what came after.
        let text = match dialect {
            Dialect::Postgres => {
                let list = Command::new("pg_restore").arg("--file=-").arg(path).output().unwrap();
                assert!(list.status.success(), "{list:?}");
                String::from_utf8(list.stdout).unwrap()
            }
            Dialect::MySql => std::fs::read_to_string(path).unwrap(),
            Dialect::Sqlite => {
                let copy = World { target: target(dialect, format!("sqlite://{}", path.display())), ..world };
                copy.shape().await + &copy.sql("SELECT name FROM items").await
            }
        };
        assert!(text.contains("one; two") && !text.contains("notes"), "{dialect}: {text}");
    }
}

#[tokio::test]
async fn without_a_backup_that_was_asked_for_nothing_is_run() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let folder = tempfile::tempdir().unwrap();
        let mut wrong = backup::Options::in_folder(folder.path().to_owned());
        (wrong.pg_dump, wrong.mariadb_dump) = ("/nowhere/pg_dump".into(), "/nowhere/mariadb-dump".into());
        if dialect == Dialect::Sqlite {
            wrong.folder.push("nowhere");
        }
        for backups in [None, Some(wrong)] {
            let tooling = Tooling { backups, ..Tooling::default() };
            let error = with_backup(&world, &tooling, &mut Vec::new()).await.unwrap_err();
            assert!(error.to_string().starts_with("back the tenant's database up: "), "{dialect}: {error}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{dialect}");
        assert!(world.shape().await.is_empty(), "{dialect}");
    }
}

#[tokio::test]
async fn a_failed_backup_tells_no_password_and_leaves_no_file() {
    let postgres = postgres().await.addr();
    let mariadb = mariadb().await.addr();
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        let mut world = World::new(dialect).await;
        let folder = tempfile::tempdir().unwrap();
        let mut options = backup::Options::in_folder(folder.path().to_owned());
        // Programs that fail, having written a part and seen everything that they are given.
        let program = folder.path().join("dump");
        std::fs::write(&program, "#!/bin/sh\necho part\necho \"$@\" broken >&2\nexit 3\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        (options.pg_dump, options.mariadb_dump) = (program.clone(), program);
        let url = match dialect {
            Dialect::Postgres => format!("postgres://grey:s3cret@{postgres}/{}", world.name),
            _ => {
                world.sql("CREATE USER IF NOT EXISTS 'dump'@'127.0.0.1' IDENTIFIED BY 's3cret'").await;
                world.sql("GRANT ALL PRIVILEGES ON *.* TO 'dump'@'127.0.0.1'").await;
                format!("mysql://dump:s3cret@{mariadb}/{}", world.name)
            }
        };
        world.target.url = Secret::new(url);
        let tooling = Tooling { backups: Some(options), ..Tooling::default() };
        let error = with_backup(&world, &tooling, &mut Vec::new()).await.unwrap_err().to_string();
        assert!(error.contains("broken") && !error.contains("s3cret"), "{dialect}: {error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{dialect}");
        assert!(world.shape().await.is_empty(), "{dialect}");
    }
}
