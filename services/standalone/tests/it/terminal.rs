//! Questions that are asked in a terminal before many databases are changed.

use sea_orm::{ConnectionTrait as _, Database};
use serde_json::Value;

use crate::migrate_stage::Stage;

const FILES: [(&str, &str); 4] = [
    ("V1.1__make_notes.sql", "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY);"),
    ("U1.1__make_notes.sql", "DROP TABLE notes;"),
    ("V1.2__make_tags.sql", "CREATE TABLE tags (id INT NOT NULL PRIMARY KEY);"),
    ("U1.2__make_tags.sql", "DROP TABLE tags;"),
];
const TENANTS: [&str; 2] = ["acme", "bluth"];

#[tokio::test]
async fn several_tenants_are_upgraded_only_if_the_person_agrees() {
    let stage = Stage::start(&FILES).await;
    for tenant in TENANTS {
        stage.sqlite(tenant).await;
    }
    let up = ["up", "shop", "--tenants", "all"];
    for answer in ["n\n", "\n", ""] {
        let refused = stage.migrate_in_terminal(&up, answer).await;
        assert_eq!(refused.code, 2, "{answer:?}: {refused}");
        assert!(refused.out.contains("upgrade shop: 2 tenants. Go on? [y/N]"), "{refused}");
        assert!(refused.out.contains("not agreed to"), "{refused}");
        assert_eq!(stage.schema_of("acme").await, Value::Null);
    }
    let done = stage.migrate_in_terminal(&up, "y\n").await.ok();
    assert!(done.out.contains("2 succeeded, of 2 databases"), "{done}");
    for tenant in TENANTS {
        assert_eq!(stage.schema_of(tenant).await, "1.2");
    }
    // One tenant is no question.
    let undo = ["undo", "shop", "--tenants", "acme", "--to", "1.1", "--accept", "destructive"];
    let done = stage.migrate_in_terminal(&undo, "").await.ok();
    assert!(!done.out.contains("Go on?"), "{done}");
    assert_eq!(stage.schema_of("acme").await, "1.1");
}

#[tokio::test]
async fn what_flyway_has_migrated_is_taken_over_and_gone_on_with() {
    let stage = Stage::start(&FILES).await;
    for tenant in TENANTS {
        let url = stage.sqlite(tenant).await;
        let database = Box::pin(Database::connect(url)).await.unwrap();
        let flyway = "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY);
            CREATE TABLE flyway_schema_history (installed_rank INT NOT NULL PRIMARY KEY, version VARCHAR(50),
                description VARCHAR(200) NOT NULL, type VARCHAR(20) NOT NULL, script VARCHAR(1000) NOT NULL,
                checksum INT, installed_by VARCHAR(100) NOT NULL, installed_on TEXT NOT NULL,
                execution_time INT NOT NULL, success BOOLEAN NOT NULL);
            INSERT INTO flyway_schema_history VALUES
                (1, '1.1', 'make notes', 'SQL', 'V1.1__make_notes.sql', 7, 'sa', '2024-01-01', 3, 1)";
        database.execute_unprepared(flyway).await.unwrap();
        database.close().await.unwrap();
    }
    let baseline = ["baseline", "shop", "--tenants", "all"];
    stage.migrate(&baseline).await.refused(2, "declare where shop is: 2 tenants; agree by --yes");
    let refused = stage.migrate_in_terminal(&baseline, "n\n").await;
    assert_eq!(refused.code, 2, "{refused}");
    assert_eq!(stage.schema_of("acme").await, Value::Null);
    let told = stage.migrate_in_terminal(&baseline, "y\n").await.ok();
    assert!(told.out.contains("acme    shop     1.1     1"), "{told}");
    for tenant in TENANTS {
        assert_eq!(stage.schema_of(tenant).await, "1.1");
    }
    stage.migrate(&baseline).await.refused(2, "--yes");
    let again = stage.migrate(&[&baseline[..], &["--yes"]].concat()).await;
    assert!(again.code == 1 && again.err.matches("has a history already").count() == 2, "{again}");
    // What Flyway has run is not run again.
    stage.migrate(&["up", "shop", "--tenants", "all", "--yes"]).await.ok();
    assert_eq!(stage.schema_of("bluth").await, "1.2");
}
