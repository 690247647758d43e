//! A master key that is rotated out while databases are registered: upgrades go on, and without the key they do not.

use grey_testkit::eventually;

use crate::grey::{DEADLINE, Grey, file};

/// Two master keys.
const KEYS: [(&str, &str); 2] = [
    ("old", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
    ("new", "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="),
];

/// Settings with these of the keys, the last of which seals.
fn vault(keys: &[(&str, &str)]) -> String {
    let list: Vec<_> =
        keys.iter().map(|(id, secret)| format!("{{ id = \"{id}\", secret = \"{secret}\" }}")).collect();
    format!("[vault]\nactive = \"{}\"\nkeys = [{}]\n", keys.last().unwrap().0, list.join(", "))
}

#[tokio::test]
async fn upgrades_go_on_under_a_new_master_key_and_need_it() {
    let dir = tempfile::tempdir().unwrap();
    let orders = dir.path().join("migrations/orders");
    std::fs::create_dir_all(&orders).unwrap();
    file(&orders, "V1.1__a.sql", "CREATE TABLE a (id INT);");
    file(&orders, "V1.2__b.sql", "CREATE TABLE b (id INT);");
    let (folder, data) = (dir.path().join("migrations"), dir.path().join("data"));
    let start = async |keys: &[(&str, &str)]| {
        let config = file(dir.path(), "grey.toml", &vault(keys));
        let args = ["--config", config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        Grey::start_with(&args, &[("GREY__SCHEMA_MIGRATOR__MIGRATIONS", folder.to_str().unwrap())]).await
    };
    let [old, new] = KEYS;
    let grey = start(&[old]).await;
    grey.run(&["service", "put", "orders", "--default", "v1.1"]).await.ok();
    for tenant in ["acme", "bluth"] {
        let database = file(dir.path(), &format!("{tenant}.db"), "");
        grey.run(&["tenant", "put", tenant]).await.ok();
        let url = format!("sqlite://{}", database.display());
        grey.run(&["database", "put", tenant, "orders", "--url", &url]).await.ok();
    }
    grey.process.terminate(DEADLINE).await.unwrap();
    // Both keys are there while everything is sealed anew.
    let grey = start(&[old, new]).await;
    let up = |schema| ["migrate", "up", "orders", "--tenants", "all", "--yes", "--to", schema];
    grey.run(&up("1.1")).await.ok();
    let done = grey.json(&["database", "rotate-keys"]).await;
    assert_eq!((done["rotated"].as_str(), done["activeKey"].as_str()), (Some("2"), Some("new")), "{done}");
    grey.process.terminate(DEADLINE).await.unwrap();
    // With the old key alone nothing opens any more, and nothing is run.
    let grey = start(&[old]).await;
    let one = ["migrate", "up", "orders", "--tenants", "acme", "--to", "1.2"];
    let refused = grey.run(&one).await.refused(1, "UNAVAILABLE");
    assert!(refused.err.contains("`new`") && !refused.err.contains(old.1), "{refused}");
    grey.process.terminate(DEADLINE).await.unwrap();
    let grey = start(&[new]).await;
    grey.run(&up("1.2")).await.ok();
    eventually(DEADLINE, "both are at the new schema", async || {
        let seen = grey.json(&["migrate", "status", "orders"]).await;
        seen["schemas"]
            .as_array()
            .is_some_and(|all| all.len() == 2 && all.iter().all(|it| it["schema"] == "1.2"))
    })
    .await;
    let output = grey.process.output();
    assert!(KEYS.iter().all(|(_, secret)| !output.contains(secret)), "{output}");
}
