//! Plans on real databases: they succeed, fail and are undone.

use crate::files::load;
use crate::run_world::{LONG, U1, U2, V1, V2, World, failing, scripts, version};
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::plan::Target;
use grey_schema_migrator::run::{Goal, MigrateError, Outcome, Progress};
use grey_schema_migrator::tenant::{Error, Stop};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn migrations_are_applied_once_and_recorded() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let scripts = scripts(dialect);
        let mut told = Vec::new();
        let goal = Goal::Up(Target::Newest);
        let ended = world.migrate(&scripts, goal, LONG, &mut |it| told.push(it)).await.unwrap();
        assert_eq!(ended.outcome, Outcome::Succeeded, "{dialect}");
        assert_eq!(ended.schema, Some(version("2")), "{dialect}");
        assert_eq!(world.history().await, ["1 applied", "2 applied"], "{dialect}");
        assert_eq!(world.sql("SELECT name FROM items WHERE note = 1").await, "one; two", "{dialect}");
        let done = told.iter().filter(|it| matches!(it, Progress::StepDone { .. })).count();
        assert_eq!(done, 7, "{dialect}");
        let again = world.up(&scripts).await.unwrap();
        assert_eq!(again.outcome, Outcome::Succeeded, "{dialect}");
        assert_eq!(world.history().await.len(), 2, "{dialect}");
    }
}

#[tokio::test]
async fn a_failing_statement_takes_the_whole_upgrade_back() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let before = world.shape().await;
        let ended = world.up(&failing(dialect)).await.unwrap();
        let Outcome::Failed(failure) = &ended.outcome else { panic!("{dialect}: {ended:?}") };
        assert_eq!(failure.version, version("2"));
        assert!(matches!(failure.error, Error::Statement { line: 3, .. }), "{dialect}: {failure:?}");
        assert_eq!(ended.schema, None, "{dialect}");
        assert_eq!(world.shape().await, before, "{dialect}");
        assert_eq!(world.history().await, ["1 applied", "2 failed", "1 undone"], "{dialect}");
        assert!(world.applied().await.is_empty());
        // What was wrong is put right, and nothing is in the way.
        assert_eq!(world.up(&scripts(dialect)).await.unwrap().outcome, Outcome::Succeeded, "{dialect}");
    }
}

#[tokio::test]
async fn an_upgrade_that_fails_leaves_what_others_applied() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let goal = Goal::Up(Target::Version(version("1")));
        let stop = || Stop::within(LONG, CancellationToken::new());
        world.migrate_as("u0", &failing(dialect), goal, stop(), &mut |_| {}).await.unwrap();
        let before = world.shape().await;
        let ended = world.up(&failing(dialect)).await.unwrap();
        assert!(matches!(ended.outcome, Outcome::Failed(_)), "{dialect}: {ended:?}");
        assert_eq!(ended.schema, Some(version("1")), "{dialect}");
        assert_eq!(world.shape().await, before, "{dialect}");
        assert_eq!(world.applied().await, ["1"], "{dialect}");
        assert_eq!(world.sql("SELECT count(*) FROM items").await, "2", "{dialect}");
    }
}

#[tokio::test]
async fn half_a_migration_without_undo_says_what_is_applied() {
    let world = World::new(Dialect::MySql).await;
    let text = V2.1.replace("CREATE INDEX", "CREATE INDEXX");
    let scripts = load(Dialect::MySql, &[V1, U1, (V2.0, &text)]);
    let ended = world.up(&scripts).await.unwrap();
    let Outcome::NeedsRepair(failure) = &ended.outcome else { panic!("{ended:?}") };
    assert_eq!(failure.left, "applied and not undone: the steps on lines 1, 2, 3");
    assert_eq!(ended.schema, Some(version("1")));
    assert_eq!(world.sql("SELECT body FROM notes").await, "x");
    let leftovers = world.open().await.history().await.unwrap().leftovers;
    assert_eq!(leftovers.len(), 1);
    assert_eq!(leftovers.first().unwrap().steps_done, 3);
    // With an undo file the next run takes it back, since the file was changed too.
    let ended = world.up(&self::scripts(Dialect::MySql)).await.unwrap();
    assert!(matches!(ended.outcome, Outcome::Failed(_)), "{ended:?}");
    assert!(!world.shape().await.contains("notes"), "{}", world.shape().await);
    assert_eq!(world.up(&self::scripts(Dialect::MySql)).await.unwrap().outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn an_undo_that_leaves_something_behind_needs_repair() {
    let world = World::new(Dialect::MySql).await;
    let text = V2.1.replace("CREATE INDEX", "CREATE INDEXX");
    let scripts = load(Dialect::MySql, &[V1, U1, (V2.0, &text), (U2.0, "DROP TABLE notes;")]);
    let ended = world.up(&scripts).await.unwrap();
    let Outcome::NeedsRepair(failure) = &ended.outcome else { panic!("{ended:?}") };
    let expected = "applied: the steps on lines 1, 2, 3; of the undo file were run: those on lines 1";
    assert_eq!(failure.left, expected);
}

#[tokio::test]
async fn migrations_are_undone_down_to_a_version() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let scripts = scripts(dialect);
        let before = world.shape().await;
        let goal = Goal::Up(Target::Version(version("1")));
        let stop = || Stop::within(LONG, CancellationToken::new());
        world.migrate_as("u0", &scripts, goal, stop(), &mut |_| {}).await.unwrap();
        let first = world.shape().await;
        world.up(&scripts).await.unwrap();
        let down = Goal::Down(Some(version("1")));
        let ended = world.migrate_as("u2", &scripts, down, stop(), &mut |_| {}).await.unwrap();
        assert_eq!((ended.outcome, ended.schema), (Outcome::Succeeded, Some(version("1"))), "{dialect}");
        assert_eq!(world.shape().await, first, "{dialect}");
        let ended = world.migrate_as("u3", &scripts, Goal::Down(None), stop(), &mut |_| {}).await.unwrap();
        assert_eq!((ended.outcome, ended.schema), (Outcome::Succeeded, None), "{dialect}");
        assert_eq!(world.shape().await, before, "{dialect}");
        assert_eq!(world.history().await, ["1 applied", "2 applied", "2 undone", "1 undone"], "{dialect}");
    }
}

#[tokio::test]
async fn an_undo_that_fails_applies_again_what_it_had_undone() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let scripts = load(dialect, &[V1, (U1.0, "DROP TABLE nowhere;"), V2, U2]);
        world.up(&scripts).await.unwrap();
        let before = world.shape().await;
        let stop = Stop::within(LONG, CancellationToken::new());
        let ended = world.migrate_as("u2", &scripts, Goal::Down(None), stop, &mut |_| {}).await.unwrap();
        assert!(matches!(ended.outcome, Outcome::Failed(_)), "{dialect}: {ended:?}");
        assert_eq!(world.shape().await, before, "{dialect}");
        assert_eq!(world.applied().await, ["1", "2"], "{dialect}");
    }
}

#[tokio::test]
async fn a_changed_file_is_refused_and_nothing_is_run() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let goal = Goal::Up(Target::Version(version("1")));
        world.migrate(&scripts(dialect), goal, LONG, &mut |_| {}).await.unwrap();
        let text = V1.1.replace("50", "60");
        let error = world.up(&load(dialect, &[(V1.0, &text), U1, V2, U2])).await.unwrap_err();
        let MigrateError::Refused(refused) = &error else { panic!("{dialect}: {error:?}") };
        assert_eq!(refused.findings.first().unwrap().rule, "checksum", "{dialect}");
        assert_eq!(world.applied().await, ["1"], "{dialect}");
    }
}

#[tokio::test]
async fn a_check_that_finds_a_row_fails_the_migration() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let before = world.shape().await;
        let check = ("C2__notes.sql", "SELECT id FROM notes WHERE id = 7;\nSELECT id, body FROM notes;");
        let ended = world.up(&load(dialect, &[V1, U1, V2, U2, check])).await.unwrap();
        let Outcome::Failed(failure) = &ended.outcome else { panic!("{dialect}: {ended:?}") };
        let Error::Check { line: 2, row } = &failure.error else { panic!("{dialect}: {failure:?}") };
        let expected = if dialect == Dialect::Postgres { r#"{"id":1,"body":"x"}"# } else { "id=1, body=x" };
        assert_eq!(row, expected);
        assert_eq!(world.shape().await, before, "{dialect}");
        assert_eq!(ended.schema, None, "{dialect}");
    }
}

/// A statement that takes far longer than any test.
fn endless(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "SELECT pg_sleep(600);",
        // SLEEP itself ends early and says so in its value; a statement that goes on does not.
        Dialect::MySql => "UPDATE items SET name = SLEEP(600);",
        Dialect::Sqlite => {
            "INSERT INTO items SELECT n + 100, 'x' FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL \
             SELECT n + 1 FROM c WHERE n < 100000000000) SELECT n FROM c WHERE n < 0);"
        }
    }
}

#[tokio::test]
async fn a_running_statement_is_stopped_when_asked_or_out_of_time() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let before = world.shape().await;
        let scripts = load(dialect, &[V1, U1, ("V2__slow.sql", endless(dialect)), U2]);
        let token = CancellationToken::new();
        let asked = token.clone();
        let mut cancel = |progress| {
            if matches!(&progress, Progress::Step { version, .. } if version.to_string() == "2") {
                // Runs when the statement is under way, since there is one thread.
                let asked = asked.clone();
                tokio::spawn(async move { asked.cancel() });
            }
        };
        let goal = Goal::Up(Target::Newest);
        let stop = Stop::within(LONG, token);
        let ended = world.migrate_as("u1", &scripts, goal.clone(), stop, &mut cancel).await.unwrap();
        assert_eq!((ended.outcome, ended.schema), (Outcome::Cancelled, None), "{dialect}");
        assert_eq!(world.shape().await, before, "{dialect}");
        // The clock stops it as well.
        let stop = Stop::within(Duration::from_secs(2), CancellationToken::new());
        let ended = world.migrate_as("u2", &scripts, goal, stop, &mut |_| {}).await.unwrap();
        let Outcome::Failed(failure) = &ended.outcome else { panic!("{dialect}: {ended:?}") };
        assert_eq!(failure.error, Error::OutOfTime, "{dialect}");
        assert_eq!(world.shape().await, before, "{dialect}");
    }
}

#[tokio::test]
async fn statements_outside_a_transaction_are_undone_too() {
    let world = World::new(Dialect::Postgres).await;
    let concurrent = (
        "V2__index.sql",
        "-- grey: no-transaction\nCREATE INDEX CONCURRENTLY items_name ON items (name);\n\
         INSERT INTO items VALUES (3, 'b');\nCREATE UNIQUE INDEX CONCURRENTLY items_one ON items (name);\n",
    );
    let undo = (
        "U2__index.sql",
        "-- grey: no-transaction\nDROP INDEX CONCURRENTLY items_one;\nDROP INDEX CONCURRENTLY items_name;\n\
         DELETE FROM items WHERE id = 3;\n",
    );
    let scripts = load(Dialect::Postgres, &[V1, U1, concurrent, undo]);
    let goal = Goal::Up(Target::Version(version("1")));
    let stop = || Stop::within(LONG, CancellationToken::new());
    world.migrate_as("u0", &scripts, goal, stop(), &mut |_| {}).await.unwrap();
    let before = world.shape().await;
    // Two rows have the same name, so the last index fails, and would be left invalid.
    let ended = world.up(&scripts).await.unwrap();
    let Outcome::Failed(failure) = &ended.outcome else { panic!("{ended:?}") };
    assert!(matches!(failure.error, Error::Statement { line: 4, .. }), "{failure:?}");
    assert_eq!(world.shape().await, before);
    assert_eq!(world.sql("SELECT count(*) FROM items").await, "2");
    assert_eq!(world.applied().await, ["1"]);
}

#[tokio::test]
async fn an_invalid_index_that_was_there_before_stays() {
    let world = World::new(Dialect::Postgres).await;
    let nameless = (
        "V2__index.sql",
        "-- grey: no-transaction\nINSERT INTO items VALUES (3, 'b');\n\
         CREATE UNIQUE INDEX CONCURRENTLY ON items (name);\n",
    );
    let undo = ("U2__index.sql", "-- grey: no-transaction\nDELETE FROM items WHERE id = 3;\n");
    let scripts = load(Dialect::Postgres, &[V1, U1, nameless, undo]);
    let goal = Goal::Up(Target::Version(version("1")));
    let stop = Stop::within(LONG, CancellationToken::new());
    world.migrate_as("u0", &scripts, goal, stop, &mut |_| {}).await.unwrap();
    world.sql("CREATE INDEX older ON items (name)").await;
    world.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'older'::regclass").await;
    // Two rows have the same name, so the build fails and leaves its own index invalid.
    let ended = world.up(&scripts).await.unwrap();
    let Outcome::Failed(failure) = &ended.outcome else { panic!("{ended:?}") };
    assert!(matches!(failure.error, Error::Statement { line: 3, .. }), "{failure:?}");
    let invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid";
    assert_eq!(world.sql(invalid).await, "older");
}

#[tokio::test]
async fn rows_that_lose_what_they_refer_to_fail_a_migration_of_sqlite() {
    let world = World::new(Dialect::Sqlite).await;
    let parts = (
        "V2__parts.sql",
        "CREATE TABLE parts (item INTEGER REFERENCES items (id));\nINSERT INTO parts VALUES (1);\n\
         DELETE FROM items WHERE id = 1;\n",
    );
    let ended = world.up(&load(Dialect::Sqlite, &[V1, U1, parts])).await.unwrap();
    let Outcome::Failed(failure) = &ended.outcome else { panic!("{ended:?}") };
    assert!(failure.to_string().contains("foreign keys"), "{failure}");
}
