//! States and errors tell what is the case.

use crate::files::load;
use crate::run_world::{V1, World, version};
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::run::Outcome;
use sea_orm::ConnectionTrait as _;

#[tokio::test]
async fn what_cannot_be_undone_and_is_whole_needs_no_repair() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let second = ("V2__b.sql", "CREATE TABLE b (id INT);");
        let undo = ("U2__b.sql", "DROP TABLE b;");
        let third = ("V3__x.sql", "INSERT INTO nowhere VALUES (1);");
        let ended = world.up(&load(dialect, &[V1, second, undo, third])).await.unwrap();
        let Outcome::Failed(failure) = ended.outcome else { panic!("{dialect}: {ended:?}") };
        assert_eq!(ended.schema, Some(version("1")), "{dialect}");
        assert!(failure.to_string().contains("1 stays applied: it has no undo file"), "{dialect}: {failure}");
        assert_eq!(world.applied().await, ["1"], "{dialect}");
        // An undo file that fails leaves nothing half done either, where it is one transaction.
        let wrong = ("U2__b.sql", "INSERT INTO nowhere VALUES (1);");
        let ended = world.up(&load(dialect, &[V1, second, wrong, third])).await.unwrap();
        let Outcome::Failed(failure) = ended.outcome else { panic!("{dialect}: {ended:?}") };
        assert!(failure.to_string().contains("2 stays applied: U2__b.sql failed"), "{dialect}: {failure}");
        assert_eq!(world.applied().await, ["1", "2"], "{dialect}");
    }
}

#[tokio::test]
async fn a_failure_names_file_line_text_detail_and_hint() {
    let world = World::new(Dialect::Postgres).await;
    let text = "CREATE TABLE a (id int PRIMARY KEY);\n\nINSERT INTO a\n  VALUES (1), (1);";
    let ended = world.up(&load(Dialect::Postgres, &[("V1__a.sql", text)])).await.unwrap();
    let Outcome::Failed(failure) = ended.outcome else { panic!("{ended:?}") };
    insta::assert_snapshot!(failure, @r#"V1__a.sql: line 3: INSERT INTO a VALUES (1), (1): duplicate key value violates unique constraint "a_pkey"; detail: Key (id)=(1) already exists. (23505)"#);
    let text = "CREATE TABLE a (id int);\nSELECT lenght('x');";
    let ended = world.up(&load(Dialect::Postgres, &[("V1__a.sql", text)])).await.unwrap();
    let Outcome::Failed(failure) = ended.outcome else { panic!("{ended:?}") };
    let told = failure.to_string();
    assert!(
        told.starts_with("V1__a.sql: line 2: SELECT lenght('x'): ") && told.contains("; hint: "),
        "{told}"
    );
    // A password is in no error.
    let text = "CREATE ROLE grey_x LOGIN PASSWORD 's3cret' IN ROLE nobody_there;";
    let ended = world.up(&load(Dialect::Postgres, &[("V1__a.sql", text)])).await.unwrap();
    assert!(!format!("{ended:?}").contains("s3cret"), "{ended:?}");
    for dialect in [Dialect::MySql, Dialect::Sqlite] {
        let world = World::new(dialect).await;
        let ended =
            world.up(&load(dialect, &[("V1__a.sql", "\nINSERT INTO nowhere VALUES (1);")])).await.unwrap();
        let Outcome::Failed(failure) = ended.outcome else { panic!("{dialect}: {ended:?}") };
        let told = failure.to_string();
        assert!(told.starts_with("V1__a.sql: line 2: INSERT INTO nowhere VALUES (1): "), "{dialect}: {told}");
    }
}

/// A transaction that holds a table, so that no index is built or dropped concurrently.
const BUILD: &str =
    "-- grey: no-transaction\n-- grey: timeout lock=300ms\nCREATE INDEX CONCURRENTLY a_n ON a (n);";

#[tokio::test]
async fn an_invalid_index_is_told_and_the_next_upgrade_builds_it() {
    let world = World::new(Dialect::Postgres).await;
    let table = ("V1__a.sql", "CREATE TABLE a (n int);");
    let scripts = load(Dialect::Postgres, &[table, ("V2__index.sql", BUILD)]);
    world.up(&load(Dialect::Postgres, &[table])).await.unwrap();
    let holder = world.holder().await;
    holder.execute_unprepared("BEGIN; INSERT INTO a VALUES (1)").await.unwrap();
    let ended = world.up(&scripts).await.unwrap();
    match &ended.outcome {
        // The build had not begun, or what it left could be dropped.
        Outcome::Failed(failure) => {
            assert!(
                failure.to_string().contains("V2__index.sql: line 3: CREATE INDEX CONCURRENTLY"),
                "{failure}"
            );
            let left = world.open().await.drift(None).await.unwrap().invalid_indexes;
            assert!(left.is_empty(), "{left:?}");
        }
        Outcome::NeedsRepair(failure) => {
            let told = failure.to_string();
            assert!(told.contains("V2__index.sql: line 3: CREATE INDEX CONCURRENTLY"), "{told}");
            assert!(told.contains("the index public.a_n is left invalid"), "{told}");
            let left = world.open().await.drift(None).await.unwrap().invalid_indexes;
            assert_eq!(left, ["public.a_n"]);
        }
        other => panic!("{other:?}"),
    }
    holder.execute_unprepared("ROLLBACK").await.unwrap();
    let ended = world.up(&scripts).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Succeeded);
    assert_eq!(world.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_n'::regclass").await, "t");
}
