//! The example services' migrations, as they are in the repository.

use grey_core::ids::ServiceId;
use grey_schema_migrator::files::{Dialect, Folder, Scripts, Step};
use grey_testkit::{MariaDb, Postgres};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement as Query};
use std::path::Path;

/// The repository's own migrations of an example service.
pub(crate) fn example(service: &str, dialect: Dialect) -> Scripts {
    let checkout = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let folder = Folder::new(Path::new(&checkout).join("../../migrations"));
    folder.load(&ServiceId::new(service).unwrap(), dialect).unwrap()
}

#[test]
fn examples_load_for_every_dialect() {
    for dialect in Dialect::ALL {
        for service in ["orders", "payment"] {
            let scripts = example(service, dialect);
            let versions: Vec<_> = scripts.migrations.iter().map(|it| it.schema.to_string()).collect();
            assert_eq!(versions, ["1.1", "1.2"], "{service} {dialect}");
            assert!(scripts.migrations.iter().all(|it| it.undo.is_some()), "{service} {dialect}");
        }
        let orders = example("orders", dialect);
        let last = orders.migrations.last().unwrap();
        assert!(matches!(last.steps.last(), Some(Step::Backfill(_))), "{dialect}: {last:?}");
        assert_eq!(last.checks.len(), 2, "{dialect}");
    }
}

#[test]
fn dialects_have_variants_of_their_own() {
    let create = |dialect| example("orders", dialect).migrations.first().unwrap().clone();
    assert_eq!(create(Dialect::Postgres).steps.len(), 2);
    assert!(create(Dialect::Postgres).transactional);
    assert_eq!(create(Dialect::MySql).steps.len(), 1);
    assert!(!create(Dialect::MySql).transactional);
    assert_ne!(create(Dialect::Sqlite).checksum, create(Dialect::Postgres).checksum);
    let index = |dialect| example("payment", dialect).migrations.last().unwrap().clone();
    assert!(!index(Dialect::Postgres).transactional);
    assert!(index(Dialect::Sqlite).transactional);
}

async fn rows(database: &DatabaseConnection, sql: &str) -> usize {
    let statement = Query::from_string(database.get_database_backend(), sql);
    database.query_all_raw(statement).await.unwrap().len()
}

async fn run(database: &DatabaseConnection, steps: &[Step]) {
    for step in steps {
        let sql = match step {
            Step::Backfill(backfill) => backfill.between("0", "1000"),
            other => other.to_string(),
        };
        database.execute_unprepared(&sql).await.unwrap();
    }
}

/// Runs the examples up and down as they are, with orders that are older than the second migration.
async fn up_and_down(url: &str, dialect: Dialect) {
    let database = Database::connect(url).await.unwrap();
    for service in ["orders", "payment"] {
        let scripts = example(service, dialect);
        for migration in &scripts.migrations {
            run(&database, &migration.steps).await;
            if migration.file.contains("create_orders") {
                let order = "INSERT INTO orders (id, customer, total_cents, preferences, created_at) \
                    VALUES (7, 'ann', 100, '{}', '2020-01-02 03:04:05')";
                database.execute_unprepared(order).await.unwrap();
            }
            for check in &migration.checks {
                assert_eq!(rows(&database, &check.sql).await, 0, "{dialect}: {}", check.sql);
            }
        }
        if service == "orders" {
            let kept = "SELECT id FROM orders WHERE status_updated_at = created_at";
            assert_eq!(rows(&database, kept).await, 1, "{dialect}");
            let order =
                "INSERT INTO orders (id, customer, total_cents, preferences) VALUES (8, 'bob', 1, '{}')";
            database.execute_unprepared(order).await.unwrap();
            let set = "SELECT id FROM orders WHERE id = 8 AND status_updated_at IS NOT NULL";
            assert_eq!(rows(&database, set).await, 1, "{dialect}");
        }
        for migration in scripts.migrations.iter().rev() {
            run(&database, &migration.undo.as_ref().unwrap().steps).await;
        }
        let table = if service == "orders" { "SELECT id FROM orders" } else { "SELECT id FROM payments" };
        assert!(database.execute_unprepared(table).await.is_err(), "{dialect}");
    }
    database.close().await.unwrap();
}

#[tokio::test]
async fn examples_run_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("tenant.db").display());
    up_and_down(&url, Dialect::Sqlite).await;
}

#[tokio::test]
async fn examples_run_on_postgres() {
    let server = Postgres::start().await.unwrap();
    up_and_down(&server.url(), Dialect::Postgres).await;
}

#[tokio::test]
async fn examples_run_on_mariadb() {
    let server = MariaDb::start().await.unwrap();
    up_and_down(&server.database("tenant").await.unwrap(), Dialect::MySql).await;
}
