//! `grey migrate repair`: MariaDB, where half a migration stays when it fails.

use grey_testkit::MariaDb;

use crate::migrate_stage::Stage;

/// The second one fails in its third statement, and cannot be undone.
const FILES: [(&str, &str); 3] = [
    ("V1.1__make_notes.sql", "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY);"),
    ("U1.1__make_notes.sql", "DROP TABLE notes;"),
    (
        "V1.2__add_body.sql",
        "ALTER TABLE notes ADD COLUMN body VARCHAR(50);\n\
         CREATE TABLE tags (id INT NOT NULL PRIMARY KEY);\n\
         INSERT INTO nowhere VALUES (1);\n",
    ),
];
const UP: [&str; 6] = ["up", "shop", "--tenants", "acme", "--accept", "missing-undo"];

#[tokio::test]
async fn a_database_that_was_mended_by_hand_is_repaired_with_consent() {
    let maria = MariaDb::start().await.unwrap();
    let stage = Stage::start(&FILES).await;
    stage.tenant("acme", &maria.database("acme").await.unwrap()).await;
    let failed = stage.migrate(&[&UP[..], &["--json"]].concat()).await;
    assert_eq!(failed.code, 1, "{failed}");
    let upgrade = failed.json()["upgrades"][0]["upgrade"].clone();
    assert_eq!(upgrade["state"], "UPGRADE_STATE_NEEDS_REPAIR", "{failed}");
    assert_eq!(upgrade["errorReason"], "MIGRATION_REFUSED", "{failed}");

    let repair = ["repair", "shop", "--tenants", "acme"];
    let shown = stage.migrate(&repair).await.ok();
    assert!(shown.out.starts_with("acme shop: applying 1.2 add body, upgrade "), "{shown}");
    for line in [
        "  done      line 1: ALTER TABLE notes ADD COLUMN body VARCHAR(50)\n",
        "  done      line 2: CREATE TABLE tags (id INT NOT NULL PRIMARY KEY)\n",
        "  not done  line 3: INSERT INTO nowhere VALUES (1)\n",
    ] {
        assert!(shown.out.contains(line), "{shown}");
    }
    let document = stage.grey.json(&[&["migrate"], &repair[..]].concat()).await;
    assert_eq!(document["halfDone"][0]["steps"][1]["state"], "STEP_STATE_DONE", "{document}");

    let undone = [&repair[..], &["--as", "undone"]].concat();
    let asked = stage.migrate(&undone).await.refused(2, "agree by --yes");
    assert!(asked.err.contains("not done  line 3"), "{asked}");
    assert_eq!(stage.grey.json(&[&["migrate"], &repair[..]].concat()).await, document);
    maria.query("acme", "DROP TABLE tags; ALTER TABLE notes DROP COLUMN body").await.unwrap();
    let agreed = stage.migrate(&[&undone[..], &["--yes", "--reason", "dropped"]].concat()).await.ok();
    assert!(
        agreed.out.contains("TENANT  SERVICE  SCHEMA  PENDING") && agreed.out.contains("1.1"),
        "{agreed}"
    );
    assert_eq!(stage.migrate(&repair).await.ok().out, "nothing is half done\n");
    stage.migrate(&undone).await.refused(2, "nothing is half done in `acme`'s database");
}

#[tokio::test]
async fn a_repair_is_asked_for_in_the_terminal_even_of_one_tenant() {
    let text = format!("-- grey: no-transaction\n{}", FILES[2].1);
    let stage = Stage::start(&[FILES[0], FILES[1], (FILES[2].0, &text)]).await;
    stage.sqlite("acme").await;
    assert_eq!(stage.migrate(&UP).await.code, 1);
    // As if the rest had been done by hand.
    let applied = ["repair", "shop", "--tenants", "acme", "--as", "applied"];
    let refused = stage.migrate_in_terminal(&applied, "n\n").await;
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.out.contains("not done  line 4"), "{refused}");
    assert!(refused.out.contains("declare applied: 1 half-done migrations. Go on? [y/N]"), "{refused}");
    assert!(refused.out.contains("not agreed to"), "{refused}");
    assert_eq!(stage.schema_of("acme").await, "1.1");
    stage.migrate_in_terminal(&applied, "y\n").await.ok();
    assert_eq!(stage.schema_of("acme").await, "1.2");
}
