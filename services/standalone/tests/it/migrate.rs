//! `grey migrate`: a standalone with tenants' databases in SQLite files.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::grey::{Done, Grey, file, run};

/// The tenants, and whether they are paying.
const TENANTS: [(&str, &str); 3] = [("acme", "gold"), ("bluth", "free"), ("ecorp", "gold")];

/// A standalone with a database for each tenant but the last one.
struct World {
    grey: Grey,
    dir: TempDir,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("migrations/orders");
        std::fs::create_dir_all(&files).unwrap();
        let examples =
            Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../migrations/orders");
        for entry in std::fs::read_dir(examples).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), files.join(entry.file_name())).unwrap();
        }
        let folder = dir.path().join("migrations");
        let env = [("GREY__SCHEMA_MIGRATOR__MIGRATIONS", folder.to_str().unwrap())];
        let grey = Grey::start_with(&[], &env).await;
        grey.run(&["service", "put", "orders", "--default", "v1.1"]).await.ok();
        grey.run(&["version", "put", "orders", "v1.2", "--schema-min", "1.2"]).await.ok();
        for (tenant, tier) in TENANTS {
            grey.run(&["tenant", "put", tenant, "--tier", tier]).await.ok();
        }
        grey.run(&["tenant", "put", "nobase"]).await.ok();
        let world = Self { grey, dir };
        for (tenant, _) in TENANTS {
            let database = file(world.dir.path(), &format!("{tenant}.db"), "");
            let url = format!("sqlite://{}", database.display());
            world.grey.run(&["database", "put", tenant, "orders", "--url", &url]).await.ok();
        }
        world
    }

    async fn migrate(&self, args: &[&str]) -> Done {
        self.grey.run(&[&["migrate"], args].concat()).await
    }

    async fn schema_of(&self, tenant: &str) -> Value {
        let args = ["migrate", "status", "orders", "--tenants", tenant, "--live"];
        self.grey.json(&args).await["schemas"][0]["schema"].clone()
    }
}

#[tokio::test]
async fn a_plan_prints_the_exact_statements_and_changes_nothing() {
    let world = World::start().await;
    let done = world.migrate(&["plan", "orders", "--tenants", "all"]).await.ok();
    assert!(done.out.starts_with("-- tenants   acme, bluth, ecorp\n"), "{done}");
    assert!(done.out.contains("CREATE INDEX orders_by_status ON orders (status);"), "{done}");
    let plan = world.grey.json(&["migrate", "plan", "orders", "--tenants", "acme", "--to", "1.1"]).await;
    assert_eq!(plan["plans"][0]["toSchema"], "1.1", "{plan}");
    assert_eq!(plan["plans"][0]["steps"].as_array().unwrap().len(), 1, "{plan}");
    assert_eq!(world.schema_of("acme").await, Value::Null);
}

#[tokio::test]
async fn tenants_are_upgraded_by_selector_and_undone() {
    let world = World::start().await;
    let up = ["up", "orders", "--tenants", "tier=gold"];
    world.migrate(&up).await.refused(2, "--yes");
    let done = world.migrate(&[&up[..], &["--yes", "--to", "1.1"]].concat()).await.ok();
    assert!(done.out.contains("acme                     succeeded, nothing -> 1.1 in"), "{done}");
    assert!(done.out.ends_with("2 succeeded, of 2 databases\n"), "{done}");
    let all = world.migrate(&["up", "orders", "--tenants", "all", "--yes", "--version", "v1.2"]).await.ok();
    assert!(all.out.ends_with("3 succeeded, of 3 databases; 1 tenant has none\n"), "{all}");
    assert_eq!(world.schema_of("bluth").await, "1.2");

    let done = world.migrate(&["status", "orders", "--live"]).await.ok();
    assert!(done.out.contains("TENANT  SERVICE  SCHEMA  PENDING") && done.out.contains("ecorp"), "{done}");
    let done =
        world.migrate(&["undo", "orders", "--tenants", "acme,bluth", "--to", "1.1", "--yes"]).await.ok();
    assert!(done.out.contains("succeeded, 1.2 -> 1.1"), "{done}");
    assert_eq!((world.schema_of("acme").await, world.schema_of("ecorp").await), ("1.1".into(), "1.2".into()));
    let pending = world.grey.json(&["migrate", "status", "orders", "--live", "--pending"]).await;
    assert_eq!(pending["schemas"].as_array().unwrap().len(), 2, "{pending}");
}

#[tokio::test]
async fn one_that_fails_is_told_and_the_others_go_on() {
    let world = World::start().await;
    file(
        world.dir.path(),
        "bluth.db",
        "this is no database, and long enough to be read as one that is damaged",
    );
    let done = world.migrate(&["up", "orders", "--tenants", "all", "--yes", "--json"]).await;
    assert_eq!(done.code, 1, "{done}");
    let upgrades = done.json()["upgrades"].as_array().unwrap().clone();
    let of = |tenant: &str| upgrades.iter().find(|one| one["tenant"] == tenant).unwrap();
    for good in ["acme", "ecorp"] {
        assert_eq!(of(good)["upgrade"]["state"], "UPGRADE_STATE_SUCCEEDED", "{done}");
    }
    assert_ne!(of("bluth")["upgrade"]["state"], "UPGRADE_STATE_SUCCEEDED", "{done}");
    assert!(done.err.contains("1 of 3 upgrades did not succeed: bluth"), "{done}");
}

#[tokio::test]
async fn files_are_validated_without_a_database() {
    let world = World::start().await;
    let done = world.migrate(&["validate", "orders"]).await.ok();
    assert!(done.out.contains("migrations of orders read"), "{done}");
    file(&world.dir.path().join("migrations/orders"), "V1.3__broken.sql", "CREATE TABLE 'x (;");
    let done = world.migrate(&["validate", "orders", "--dialect", "sqlite"]).await;
    assert_eq!(done.code, 1, "{done}");
    assert!(format!("{}{}", done.out, done.err).contains("V1.3__broken.sql"), "{done}");
}

#[tokio::test]
async fn what_databases_have_applied_is_compared_with_the_files() {
    let world = World::start().await;
    world.migrate(&["up", "orders", "--tenants", "acme,ecorp", "--to", "1.1", "--yes"]).await.ok();
    let done = world.migrate(&["validate", "orders", "--tenants", "all"]).await.ok();
    assert!(done.out.contains("3 of 3 databases agree with the files"), "{done}");
    let folder = world.dir.path().join("migrations/orders");
    let name =
        std::fs::read_dir(&folder).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let name = name.into_iter().find(|name| name.starts_with("V1.1__")).unwrap();
    let text = std::fs::read_to_string(folder.join(&name)).unwrap();
    std::fs::write(folder.join(&name), format!("{text}\n-- changed since\nSELECT 1;\n")).unwrap();
    let done = world.migrate(&["validate", "orders", "--tenants", "all", "--json"]).await;
    assert_eq!(done.code, 1, "{done}");
    let changed = |looked: &&serde_json::Value| looked["findings"][0]["rule"] == "checksum";
    let document = done.json();
    let tenants: Vec<_> = document["tenants"].as_array().unwrap().iter().filter(changed).collect();
    let tenants: Vec<_> = tenants.iter().map(|looked| looked["tenant"].as_str().unwrap()).collect();
    assert_eq!(tenants, ["acme", "ecorp"], "{done}");
}

#[tokio::test]
async fn a_baseline_is_believed() {
    let world = World::start().await;
    world.migrate(&["baseline", "orders", "--tenants", "acme", "--at", "1.1"]).await.ok();
    assert_eq!(world.schema_of("acme").await, "1.1");
}

#[tokio::test]
async fn a_pin_waits_for_its_migration() {
    let world = World::start().await;
    let pin = ["pin", "set", "acme", "orders", "v1.2"];
    world.migrate(&["up", "orders", "--tenants", "acme", "--to", "1.1"]).await.ok();
    let done = world.grey.run(&[&pin[..], &["--migrate", "--wait", "20s"]].concat()).await.ok();
    assert!(done.out.contains("succeeded, 1.1 -> 1.2"), "{done}");
    assert!(done.out.ends_with("pinned acme's orders to v1.2\n"), "{done}");
    let pins = world.grey.json(&["pin", "list", "--tenant", "acme"]).await;
    assert_eq!(pins["pins"][0]["version"], "v1.2", "{pins}");

    let done = world.grey.run(&["pin", "set", "bluth", "orders", "v1.2", "--migrate"]).await.ok();
    let upgrade = done.out.split_whitespace().find(|word| word.ends_with(';')).unwrap().trim_end_matches(';');
    let watched = world.migrate(&["watch", upgrade]).await.ok();
    assert!(watched.out.contains("bluth") && watched.out.contains("succeeded"), "{watched}");
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_its_reason() {
    let world = World::start().await;
    let cases: [(&[&str], &str); 5] = [
        (&["up", "orders", "--tenants", "nobase"], "UNKNOWN_DATABASE"),
        (&["plan", "orders", "--tenants", "nobase"], "UNKNOWN_DATABASE"),
        (&["up", "orders", "--tenants", "acme", "--version", "v9.9"], "UNKNOWN_VERSION"),
        (&["watch", "0190c0de-0000-7000-8000-000000000000"], "UNKNOWN_UPGRADE"),
        (&["cancel", "0190c0de-0000-7000-8000-000000000000"], "UNKNOWN_UPGRADE"),
    ];
    for (args, reason) in cases {
        world.migrate(args).await.refused(1, reason);
    }
    world.migrate(&["up", "orders", "--tenants", "tier=none"]).await.refused(2, "no tenant is selected");
    run(&["migrate", "up", "orders", "--tenants", "tier="], &[], "").await.refused(2, "tier");
    run(&["migrate", "up", "orders"], &[], "").await.refused(2, "--tenants");
    let nowhere = ["migrate", "status", "--migrator", "http://127.0.0.1:1"];
    run(&nowhere, &[], "").await.refused(1, "--migrator");
}

#[tokio::test]
async fn all_is_undone_only_where_the_tenant_is_named_again() {
    let world = World::start().await;
    world.migrate(&["up", "orders", "--tenants", "acme"]).await.ok();
    let shown = world.migrate(&["undo", "orders", "--tenants", "acme", "--to", "0", "--dry-run"]).await.ok();
    assert!(shown.out.contains("DROP TABLE orders"), "{shown}");
    assert_eq!(world.schema_of("acme").await, "1.2");
    let undo = ["undo", "orders", "--tenants", "acme", "--to", "0", "--yes"];
    world.migrate(&undo).await.refused(2, "--confirm acme");
    world.migrate(&[&undo[..], &["--confirm", "bluth"]].concat()).await.refused(2, "--confirm acme");
    assert_eq!(world.schema_of("acme").await, "1.2");
    world.migrate(&[&undo[..], &["--confirm", "acme"]].concat()).await.ok();
    assert_eq!(world.schema_of("acme").await, Value::Null);
}

#[tokio::test]
async fn what_was_done_what_drifted_and_what_is_accepted_is_told() {
    let world = World::start().await;
    world.migrate(&["up", "orders", "--tenants", "acme", "--reason", "wave 1"]).await.ok();
    let told = world.migrate(&["history", "acme"]).await.ok();
    assert!(told.out.starts_with("acme orders\nSCHEMA  OUTCOME"), "{told}");
    assert!(told.out.contains("1.2     applied") && told.out.contains("wave 1"), "{told}");
    world.migrate(&["history", "nobase"]).await.refused(2, "has no database");

    let drift = ["drift", "orders", "--tenants", "acme"];
    let well = world.migrate(&drift).await.ok();
    assert!(well.out.contains("acme orders at 1.2: as it was left"), "{well}");
    let url = format!("sqlite://{}/acme.db", world.dir.path().display());
    let database = sea_orm::Database::connect(url).await.unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(&database, "CREATE TABLE by_hand (id INT)").await.unwrap();
    let drifted = world.migrate(&drift).await;
    assert_eq!(drifted.code, 1, "{drifted}");
    assert!(
        drifted.out.contains("added    by_hand") && drifted.err.contains("have drifted: acme"),
        "{drifted}"
    );
    world.migrate(&[&drift[..], &["--accept", "--yes", "--reason", "needed"]].concat()).await.ok();
    world.migrate(&drift).await.ok();

    let folder = world.dir.path().join("migrations/orders");
    let name = "V1.1__create_orders.sqlite.sql";
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    file(&folder, name, &format!("{text}\n-- tidied\n"));
    let up = world.migrate(&["up", "orders", "--tenants", "acme"]).await;
    assert!(up.err.contains(&format!("--accept-checksum {name}")), "{up}");
    let accept = ["repair", "orders", "--tenants", "acme", "--accept-checksum", name];
    world.migrate(&accept).await.refused(2, "--reason");
    world.migrate(&[&accept[..], &["--reason", "only a comment"]].concat()).await.ok();
    world.migrate(&["up", "orders", "--tenants", "acme"]).await.ok();
    let told = world.migrate(&["history", "acme", "orders"]).await.ok();
    assert!(told.out.contains("accepted") && told.out.contains("only a comment"), "{told}");
}
