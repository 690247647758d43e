//! A tenant's database and its version move together, through every service that takes part.

use crate::server::{DEADLINE, Server, settings, stage};
use grey_proto::router::RouteRequest;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_testkit::{Postgres, Redis, eventually};
use reqwest::{Client, Method, StatusCode};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

const INSTANCES: &str = "services:
  orders:
    - {id: old, address: 10.0.0.1:80, version: v1.1}
    - {id: new, address: 10.0.0.2:80, version: v1.2}
";

/// The second step fails where an order has no note; the wait in it is long enough to be killed in.
const FILES: [(&str, &str); 5] = [
    ("V1.1__create_orders.sql", "CREATE TABLE orders (id BIGINT PRIMARY KEY, note TEXT);"),
    ("U1.1__create_orders.sql", "DROP TABLE orders;"),
    (
        "V1.2__demand_notes.sql",
        "ALTER TABLE orders ADD COLUMN status TEXT;
         SELECT pg_sleep(1);
         ALTER TABLE orders ADD CONSTRAINT note_present CHECK (note IS NOT NULL) NOT VALID;
         ALTER TABLE orders VALIDATE CONSTRAINT note_present;",
    ),
    (
        "U1.2__demand_notes.sql",
        "ALTER TABLE orders DROP CONSTRAINT note_present;
         ALTER TABLE orders DROP COLUMN status;",
    ),
    ("C1.2__demand_notes.sql", "SELECT id FROM orders WHERE note IS NULL;"),
];

struct World {
    control: Server,
    migrator: Server,
    router: Server,
    _mirror: Server,
    client: Client,
    tenants: DatabaseConnection,
    _servers: (Redis, Postgres),
    _files: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        grey_runtime::tls::install_provider();
        let (redis, postgres) = (Redis::start().await.unwrap(), Postgres::start().await.unwrap());
        let files = tempfile::tempdir().unwrap();
        write_files(files.path());
        let urls = format!("[\"{}\"]", redis.url());
        let key = "[{ id = \"one\", secret = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\" }]";
        let vault = settings([("VAULT__KEYS", key), ("VAULT__ACTIVE", "one")]);
        let migrator_port = grey_testkit::ReservedPort::any().unwrap();
        let database = postgres.database("control").await.unwrap();
        let mut control = settings([
            ("DATABASE__URL", &database),
            ("REDIS__URLS", &urls),
            ("MIGRATOR__URL", &format!("http://{}", migrator_port.addr())),
        ]);
        control.extend(vault.clone());
        let control = Server::new("grey-control-plane", control);
        let mut migrator = settings([
            ("DATABASE__URL", &postgres.database("migrator").await.unwrap()),
            ("CONTROL__URL", &format!("http://{}", control.grpc)),
            ("MIGRATIONS__FOLDER", files.path().join("migrations").to_str().unwrap()),
            // Whoever is killed is followed soon.
            ("JOBS__LEASE", "6s"),
        ]);
        migrator.extend(vault);
        let migrator = Server::on("grey-schema-migrator", migrator, migrator_port);
        let instances = files.path().join("instances.yaml");
        let sources = format!("[{{ name = \"file\", kind = \"file\", path = \"{}\" }}]", instances.display());
        let mirror =
            Server::new("grey-registry-sync", settings([("SOURCES", &sources), ("REDIS__URLS", &urls)]));
        let router = Server::new("grey-router", settings([("REDIS__URLS", &urls)]));
        control.until_ready().await;
        migrator.until_ready().await;
        let tenants = postgres.database("tenants").await.unwrap();
        let world = Self {
            control,
            migrator,
            router,
            _mirror: mirror,
            client: Client::builder().no_proxy().build().unwrap(),
            tenants: Box::pin(Database::connect(&tenants)).await.unwrap(),
            _servers: (redis, postgres),
            _files: files,
        };
        world.declare(&tenants).await;
        world.router.until_ready().await;
        world
    }

    /// Two tenants, each with a schema of its own at version 1.1; only acme's orders all have notes.
    async fn declare(&self, url: &str) {
        self.ok(Method::PUT, "services/orders", json!({ "defaultVersion": "v1.1" })).await;
        for (version, window) in
            [("v1.1", json!({ "min": "1.1", "max": "1.2" })), ("v1.2", json!({ "min": "1.2" }))]
        {
            let path = format!("services/orders/versions/{version}");
            self.ok(Method::PUT, &path, json!({ "schema": window })).await;
        }
        for (tenant, note) in [("acme", "'ring twice'"), ("globex", "NULL")] {
            self.sql(&format!("CREATE SCHEMA {tenant}")).await;
            self.ok(Method::PUT, &format!("tenants/{tenant}"), json!({})).await;
            let database = json!({ "kind": "schema", "schema": tenant, "url": url });
            let path = format!("tenants/{tenant}/services/orders/database");
            let registered = self.ok(Method::PUT, &path, database).await;
            assert!(!registered.to_string().contains("postgres://"), "{registered}");
            let upgrade = json!({ "service": "orders", "schema": "1.1" });
            let path = format!("tenants/{tenant}/schema-upgrade");
            let (status, started) = self.call(Method::POST, &path, Some(upgrade)).await;
            assert_eq!(status, StatusCode::ACCEPTED, "{started}");
            let ended = self.ended(started["upgradeId"].as_str().unwrap()).await;
            assert_eq!(ended["state"], "UPGRADE_STATE_SUCCEEDED", "{ended}");
            self.sql(&format!("INSERT INTO {tenant}.orders VALUES (1, {note})")).await;
        }
    }

    async fn sql(&self, sql: &str) {
        self.tenants.execute_unprepared(sql).await.unwrap();
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("http://{}/api/{path}", self.control.http));
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    #[track_caller]
    fn accepted(&self, (status, body): (StatusCode, Value)) -> String {
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        body["upgrade"].as_str().unwrap().to_owned()
    }

    async fn ok(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, Some(body)).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    async fn upgrade(&self, id: &str) -> Value {
        let (status, body) = self.call(Method::GET, &format!("upgrades/{id}"), None).await;
        // While the migrator is away, its upgrades cannot be read.
        if status.is_success() { body["upgrade"].clone() } else { Value::Null }
    }

    /// The upgrade once nothing of it is left to do.
    async fn ended(&self, id: &str) -> Value {
        eventually(DEADLINE, "the upgrade has ended", async || {
            let upgrade = self.upgrade(id).await;
            let over = !["UPGRADE_STATE_QUEUED", "UPGRADE_STATE_RUNNING"]
                .iter()
                .any(|state| upgrade["state"] == *state);
            let flipped = upgrade["flip"].is_null() || upgrade["flip"]["state"] != "FLIP_STATE_PENDING";
            !upgrade.is_null() && over && flipped
        })
        .await;
        self.upgrade(id).await
    }

    /// Which version serves a tenant, and on which schema.
    async fn route(&self, tenant: &str) -> (String, String) {
        let answer = route(&mut RouterServiceClient::new(self.router.channel()), tenant).await;
        answer.unwrap_or_else(|status| panic!("{tenant}: {status}"))
    }

    /// Asks for both tenants' versions all the time, until told to stop; every answer's version and schema.
    fn watch(&self, stop: CancellationToken) -> Answers {
        let answers: Answers = Arc::default();
        let (told, channel) = (Arc::clone(&answers), self.router.channel());
        tokio::spawn(async move {
            let mut client = RouterServiceClient::new(channel);
            while !stop.is_cancelled() {
                for tenant in ["acme", "globex"] {
                    let answer = route(&mut client, tenant).await;
                    told.lock().unwrap().push((tenant, answer.map_err(|status| status.to_string())));
                }
            }
        });
        answers
    }
}

/// By tenant, what the router answered.
type Answers = Arc<Mutex<Vec<(&'static str, Result<(String, String), String>)>>>;

async fn route(
    client: &mut RouterServiceClient<tonic::transport::Channel>,
    tenant: &str,
) -> Result<(String, String), tonic::Status> {
    let call =
        RouteRequest { tenant: tenant.to_owned(), service: "orders".to_owned(), ..RouteRequest::default() };
    let answer = client.route(call).await?.into_inner();
    Ok((answer.version, answer.schema))
}

fn write_files(folder: &Path) {
    let orders = folder.join("migrations/orders");
    std::fs::create_dir_all(&orders).unwrap();
    for (name, sql) in FILES {
        std::fs::write(orders.join(name), sql).unwrap();
    }
    std::fs::write(folder.join("instances.yaml"), INSTANCES).unwrap();
}

fn pair(version: &str, schema: &str) -> (String, String) {
    (version.to_owned(), schema.to_owned())
}

#[tokio::test]
async fn no_tenant_is_served_by_a_version_before_its_database_is_ready() {
    let _stage = stage().await;
    let mut world = World::start().await;
    eventually(DEADLINE, "both tenants are served by the old version", async || {
        let mut client = RouterServiceClient::new(world.router.channel());
        let mut served = true;
        for tenant in ["acme", "globex"] {
            served &= route(&mut client, tenant).await.ok() == Some(pair("v1.1", "1.1"));
        }
        served
    })
    .await;
    let stop = CancellationToken::new();
    let answers = world.watch(stop.clone());

    // Without its schema, no pin; and what is missing is told.
    let pin = "tenants/acme/services/orders/version";
    let wanted = json!({ "version": "v1.2" });
    let (status, refused) = world.call(Method::PUT, pin, Some(wanted.clone())).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert!(
        refused.to_string().contains("NO_LEGAL_VERSION") && refused.to_string().contains("1.1"),
        "{refused}"
    );

    // With it, the database first. The migrator dies in the middle of it, and the work goes on when it is back.
    let upgrade =
        world.accepted(world.call(Method::PUT, &format!("{pin}?migrate=true"), Some(wanted.clone())).await);
    eventually(DEADLINE, "the upgrade runs", async || {
        world.upgrade(&upgrade).await["state"] == "UPGRADE_STATE_RUNNING"
    })
    .await;
    let (status, busy) = world.call(Method::PUT, &format!("{pin}?migrate=true"), Some(wanted.clone())).await;
    assert_eq!(status, StatusCode::CONFLICT, "{busy}");
    assert!(busy.to_string().contains("UPGRADE_RUNNING") && busy.to_string().contains(&upgrade), "{busy}");
    world.migrator.kill9();
    assert_eq!(world.route("acme").await, pair("v1.1", "1.1"));
    world.migrator.start();
    let ended = world.ended(&upgrade).await;
    assert_eq!(ended["state"], "UPGRADE_STATE_SUCCEEDED", "{ended}");
    assert_eq!(ended["flip"]["state"], "FLIP_STATE_DONE", "{ended}");
    assert!(ended["attempts"].as_u64().unwrap() > 1, "{ended}");
    eventually(DEADLINE, "acme is served by the new version", async || {
        world.route("acme").await == pair("v1.2", "1.2")
    })
    .await;

    // An upgrade that fails leaves tenant, pin and schema where they were.
    let path = "tenants/globex/services/orders/version?migrate=true";
    let upgrade = world.accepted(world.call(Method::PUT, path, Some(wanted)).await);
    let ended = world.ended(&upgrade).await;
    assert_eq!(ended["state"], "UPGRADE_STATE_FAILED", "{ended}");
    assert_eq!(ended["errorReason"], "MIGRATION_REFUSED", "{ended}");
    assert!(ended["error"].to_string().contains("note_present"), "{ended}");
    assert_eq!(ended["flip"]["state"], "FLIP_STATE_REFUSED", "{ended}");
    assert_eq!(world.route("globex").await, pair("v1.1", "1.1"));
    world.sql("INSERT INTO globex.orders VALUES (2, NULL)").await;
    let events = format!("http://{}/api/upgrades/{upgrade}/events", world.control.http);
    let events = world.client.get(events).send().await.unwrap().text().await.unwrap();
    assert!(events.contains("UPGRADE_STATE_FAILED"), "{events}");

    stop.cancel();
    let answers = answers.lock().unwrap();
    eprintln!("{} calls while databases were migrated", answers.len());
    for (tenant, answer) in answers.iter() {
        let (version, schema) = answer.as_ref().unwrap_or_else(|error| panic!("{tenant}: {error}"));
        assert!(
            version == "v1.1" || (*tenant == "acme" && schema == "1.2"),
            "{tenant}: {version} on {schema}"
        );
    }
}
