//! Upgrades asked for over HTTP and the command line, with every service behind: what succeeds, and what is refused.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use grey_testkit::{MariaDb, eventually};
use reqwest::{Client, Method, StatusCode};
use sea_orm::{ConnectionTrait as _, Database, Statement};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::grey::{DEADLINE, Grey, file};

const FILES: [(&str, &str); 5] = [
    ("V1.1__orders.sql", "CREATE TABLE orders (id INT PRIMARY KEY);"),
    ("U1.1__orders.sql", "DROP TABLE orders;"),
    ("V1.2__lines.sql", "CREATE TABLE lines (id INT PRIMARY KEY);\nINSERT INTO lines VALUES (1);"),
    ("U1.2__lines.sql", "DROP TABLE lines;"),
    ("C1.2__lines.sql", "SELECT id FROM lines WHERE id <> 1;"),
];

/// Never ends by itself.
const ENDLESS: &str = "INSERT INTO lines WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c \
                       WHERE n < 100000000000) SELECT n FROM c WHERE n < 0;";

struct World {
    grey: Grey,
    dir: TempDir,
    client: Client,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let orders = dir.path().join("migrations/orders");
        std::fs::create_dir_all(&orders).unwrap();
        for (name, text) in FILES {
            file(&orders, name, text);
        }
        let folder = dir.path().join("migrations");
        let env = [("GREY__SCHEMA_MIGRATOR__MIGRATIONS", folder.to_str().unwrap())];
        let grey = Grey::start_with(&[], &env).await;
        grey.run(&["service", "put", "orders", "--default", "v1.1"]).await.ok();
        grey.run(&["version", "put", "orders", "v1.2", "--schema-min", "1.2"]).await.ok();
        grey_runtime::tls::install_provider();
        let client = Client::builder().no_proxy().build().unwrap();
        Self { grey, dir, client }
    }

    /// A tenant with an empty SQLite file.
    async fn sqlite(&self, tenant: &str) -> PathBuf {
        let path = file(self.dir.path(), &format!("{tenant}.db"), "");
        self.tenant(tenant, &format!("sqlite://{}", path.display())).await;
        path
    }

    async fn tenant(&self, tenant: &str, url: &str) {
        self.grey.run(&["tenant", "put", tenant]).await.ok();
        self.grey.run(&["database", "put", tenant, "orders", "--url", url]).await.ok();
    }

    fn orders(&self) -> PathBuf {
        self.dir.path().join("migrations/orders")
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let url = format!("{}/api/{path}", self.grey.http[0]);
        let answer = self.client.request(method, url).json(&body).send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// Every way to ask for an upgrade of a tenant to a version.
    fn ways(tenant: &str, version: &str) -> [(Method, String, Value); 3] {
        [
            (
                Method::POST,
                format!("tenants/{tenant}/schema-upgrade"),
                json!({"service": "orders", "version": version}),
            ),
            (Method::POST, format!("grey-router/upgrade-schema/{tenant}/orders:{version}"), json!({})),
            (
                Method::PUT,
                format!("tenants/{tenant}/services/orders/version?migrate=true"),
                json!({"version": version}),
            ),
        ]
    }

    /// Asked for in every way, an upgrade is refused.
    async fn refused(&self, tenant: &str, version: &str, status: StatusCode, reason: &str) -> Vec<Value> {
        let mut answers = Vec::new();
        for (method, path, body) in Self::ways(tenant, version) {
            let (code, answer) = self.call(method, &path, body).await;
            let told = answer["error"]["reason"].as_str();
            assert_eq!((code, told), (status, Some(reason)), "{path}: {answer}");
            answers.push(answer["error"].clone());
        }
        let up = ["migrate", "up", "orders", "--tenants", tenant, "--version", version];
        self.grey.run(&up).await.refused(1, reason);
        answers
    }

    /// Nobody is pinned, and no upgrade of these tenants was ever queued.
    async fn nothing_has_happened(&self, tenants: &[&str]) {
        for tenant in tenants {
            let (code, listed) =
                self.call(Method::GET, &format!("upgrades?tenant={tenant}"), json!({})).await;
            assert_eq!(code, StatusCode::OK, "{listed}");
            let upgrades = listed["upgrades"].as_array().map_or(0, Vec::len);
            assert_eq!(upgrades, 0, "{tenant}: {listed}");
        }
        let pins = self.grey.json(&["pin", "list", "--service", "orders"]).await;
        assert_eq!(pins["pins"].as_array().map_or(0, Vec::len), 0, "{pins}");
    }

    /// Follows an upgrade as server-sent events to its end.
    async fn events(&self, id: &str) -> String {
        let url = format!("{}/api/upgrades/{id}/events", self.grey.http[0]);
        let stream = async { self.client.get(url).send().await.unwrap().text().await.unwrap() };
        tokio::time::timeout(DEADLINE, stream).await.unwrap()
    }
}

/// How many tables of ours there are.
async fn tables(path: &Path) -> i64 {
    let db = Database::connect(format!("sqlite://{}", path.display())).await.unwrap();
    let query = "SELECT count(*) FROM sqlite_master WHERE name IN ('orders', 'lines')";
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), query)).await.unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn an_upgrade_asked_for_by_a_version_of_a_service_runs_and_is_told_as_events() {
    let world = World::start().await;
    let path = world.sqlite("acme").await;
    let asked = world.call(Method::POST, "grey-router/upgrade-schema/acme/orders:v1.2", json!({})).await;
    let (code, started) = asked;
    assert_eq!(code, StatusCode::ACCEPTED, "{started}");
    let id = started["upgradeId"].as_str().unwrap();
    let events = world.events(id).await;
    assert!(events.contains("UPGRADE_STATE_SUCCEEDED") && events.contains("event: end"), "{events}");
    let (code, read) = world.call(Method::GET, &format!("upgrades/{id}"), json!({})).await;
    assert_eq!((code, read["upgrade"]["schema"].as_str()), (StatusCode::OK, Some("1.2")), "{read}");
    assert_eq!(tables(&path).await, 2);
    // The schema is known, so the version may be pinned, and without migrating again.
    eventually(DEADLINE, "the pin is taken", async || {
        let pin = "tenants/acme/services/orders/version";
        world.call(Method::PUT, pin, json!({"version": "v1.2"})).await.0 == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn what_is_unknown_is_refused_in_every_way_of_asking() {
    let world = World::start().await;
    let path = world.sqlite("acme").await;
    world.grey.run(&["tenant", "put", "homeless"]).await.ok();
    world.refused("acme", "v9.9", StatusCode::NOT_FOUND, "UNKNOWN_VERSION").await;
    world.refused("homeless", "v1.2", StatusCode::NOT_FOUND, "UNKNOWN_DATABASE").await;
    let schema = json!({"service": "orders", "schema": "9.9"});
    let (code, answer) = world.call(Method::POST, "tenants/acme/schema-upgrade", schema).await;
    assert_eq!(
        (code, answer["error"]["reason"].as_str()),
        (StatusCode::NOT_FOUND, Some("UNKNOWN_VERSION")),
        "{answer}"
    );
    for path in ["upgrades/0190c0de-0000-7000-8000-000000000000", "upgrades/nothing/events"] {
        let (code, answer) = world.call(Method::GET, path, json!({})).await;
        let told = (code, answer["error"]["reason"].as_str());
        assert_eq!(told, (StatusCode::NOT_FOUND, Some("UNKNOWN_UPGRADE")), "{path}: {answer}");
    }
    world.nothing_has_happened(&["acme", "homeless"]).await;
    assert_eq!(tables(&path).await, 0);
}

#[tokio::test]
async fn files_that_are_wrong_are_refused_in_every_way_of_asking() {
    let world = World::start().await;
    let path = world.sqlite("acme").await;
    let (conflict, refused) = (StatusCode::CONFLICT, "MIGRATION_REFUSED");
    let odd = world.orders().join("V1.3__odd.sql");
    // A string without an end.
    std::fs::write(&odd, "CREATE TABLE odd (name VARCHAR(9) DEFAULT 'oops);").unwrap();
    for answer in world.refused("acme", "v1.2", conflict, refused).await {
        assert!(answer["message"].as_str().unwrap().contains("V1.3__odd.sql"), "{answer}");
    }
    // What leads out of the folder.
    std::fs::remove_file(&odd).unwrap();
    let outside = file(world.dir.path(), "outside.sql", "CREATE TABLE odd (id INT);");
    symlink(outside, &odd).unwrap();
    world.refused("acme", "v1.2", conflict, refused).await;
    std::fs::remove_file(&odd).unwrap();
    world.nothing_has_happened(&["acme"]).await;
    assert_eq!(tables(&path).await, 0);
    // A file that was changed after it ran.
    world.grey.run(&["migrate", "up", "orders", "--tenants", "acme", "--to", "1.1"]).await.ok();
    file(&world.orders(), "V1.1__orders.sql", "CREATE TABLE orders (id INT PRIMARY KEY, more INT);");
    for answer in world.refused("acme", "v1.2", conflict, refused).await {
        assert!(answer["message"].as_str().unwrap().contains("checksum"), "{answer}");
    }
    assert_eq!(tables(&path).await, 1);
    let pins = world.grey.json(&["pin", "list", "--service", "orders"]).await;
    assert_eq!(pins["pins"].as_array().map_or(0, Vec::len), 0, "{pins}");
}

#[tokio::test]
async fn databases_that_do_not_let_in_or_do_not_answer_are_refused_in_every_way_of_asking() {
    let world = World::start().await;
    let maria = MariaDb::start().await.unwrap();
    let wrong = maria.url().replace("grey:grey@", "grey:s3cret-word@");
    assert!(wrong.contains("s3cret-word"), "{wrong}");
    world.tenant("wrong", &wrong).await;
    // Held to the end, so that nobody else begins to answer there.
    let silent = grey_testkit::ReservedPort::any().unwrap();
    world.tenant("away", &format!("postgres://app:s3cret-word@{}/none", silent.addr())).await;
    let refused = world.refused("wrong", "v1.2", StatusCode::CONFLICT, "DATABASE_REFUSED").await;
    let away = world.refused("away", "v1.2", StatusCode::SERVICE_UNAVAILABLE, "DATABASE_UNAVAILABLE").await;
    for answer in refused.iter().chain(&away) {
        assert!(!answer.to_string().contains("s3cret"), "{answer}");
    }
    assert!(!world.grey.process.output().contains("s3cret"), "{}", world.grey.process.output());
    world.nothing_has_happened(&["wrong", "away"]).await;
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'grey'";
    assert_eq!(maria.query("grey", tables).await.unwrap(), "0");
}

#[tokio::test]
async fn a_busy_tenant_is_told_in_every_way_of_asking_what_runs() {
    let world = World::start().await;
    let path = world.sqlite("acme").await;
    file(&world.orders(), "V1.3__endless.sql", ENDLESS);
    let [(method, place, _), ..] = World::ways("acme", "v1.2");
    let body = json!({"service": "orders", "schema": "1.3"});
    let (code, started) = world.call(method, &place, body).await;
    assert_eq!(code, StatusCode::ACCEPTED, "{started}");
    let id = started["upgradeId"].as_str().unwrap();
    eventually(DEADLINE, "it is inside the endless step", async || {
        let (_, read) = world.call(Method::GET, &format!("upgrades/{id}"), json!({})).await;
        read["upgrade"]["steps"][2]["state"] == "STEP_STATE_RUNNING"
    })
    .await;
    for answer in world.refused("acme", "v1.2", StatusCode::CONFLICT, "UPGRADE_RUNNING").await {
        assert_eq!(answer["metadata"]["upgrade"], id, "{answer}");
    }
    let (_, listed) = world.call(Method::GET, "upgrades?tenant=acme", json!({})).await;
    assert_eq!(listed["upgrades"].as_array().unwrap().len(), 1, "{listed}");
    world.grey.run(&["migrate", "cancel", id]).await.ok();
    let events = world.events(id).await;
    assert!(events.contains("UPGRADE_STATE_CANCELLED"), "{events}");
    // What it had applied before is taken back.
    assert_eq!(tables(&path).await, 0);
    let pins = world.grey.json(&["pin", "list", "--service", "orders"]).await;
    assert_eq!(pins["pins"].as_array().map_or(0, Vec::len), 0, "{pins}");
}
