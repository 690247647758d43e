//! Schemas of views through the service: both versions live, sessions are led, and what is in use stays.

use crate::run_world::{LONG, mariadb, patient, postgres, target};
use crate::service_world::{Replica, Stage, reason, unique};
use grey_core::error::Reason;
use grey_proto::control::DatabaseKind;
use grey_proto::schema::{
    DropViewsRequest, DropViewsResponse, ListViewsRequest, SwitchViewsRequest, UpgradeState, ViewSchema,
};
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::tenant::{Connection, Stop};
use sea_orm::{ConnectionTrait, Database, Statement};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The second migration leaves both versions their own shape of the table.
const FILES: [(&str, &str); 4] = [
    ("V1.1__customers.sql", "CREATE TABLE customers (id INTEGER PRIMARY KEY, state TEXT);"),
    ("U1.1__customers.sql", "DROP TABLE customers;"),
    (
        "V1.2__notes.postgres.sql",
        "-- grey: views version=1.1 of=customers\n\
         ALTER TABLE customers ADD COLUMN note TEXT;\n\
         -- grey: views of=customers\n",
    ),
    (
        "U1.2__notes.postgres.sql",
        "-- grey: drop-views\n-- grey: drop-views version=1.1\nALTER TABLE customers DROP COLUMN note;\n",
    ),
];

/// A tenant `acme` at schema 1.2, in a database where a role `app` may read.
struct World {
    stage: Stage,
    replica: Replica,
    name: String,
    url: String,
    app: String,
}

impl World {
    async fn start() -> Self {
        let stage = Stage::new(&FILES).await;
        let mut config = stage.config();
        // A call may find the lock of the one before: the server frees it once it notices the closed connection.
        config.tenants.lock = Duration::from_secs(30);
        let replica = Replica::start(config).await;
        let (name, app) = (unique("views"), unique("app"));
        let url = postgres().await.database(&name).await.unwrap();
        stage.plane.put_tenant("acme").await;
        stage.plane.register("acme", DatabaseKind::Database, "", &url).await;
        let world = Self { stage, replica, name, url, app };
        world
            .sql(&format!(
                "CREATE ROLE {app} LOGIN; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {app}",
                app = world.app
            ))
            .await;
        let queued = world.replica.up("acme").await;
        let ended = world.replica.ended(&queued.id).await;
        assert_eq!(
            (ended.state(), ended.schema.as_str()),
            (UpgradeState::Succeeded, "1.2"),
            "{}",
            ended.error
        );
        world
    }

    async fn sql(&self, sql: &str) -> String {
        postgres().await.query(&self.name, sql).await.unwrap()
    }

    /// What a new session of the role sees of the one customer.
    async fn seen(&self) -> String {
        let (before, after) = self.url.split_once("://").unwrap();
        let (_, host) = after.split_once('@').unwrap();
        let db = Database::connect(format!("{before}://{}@{host}", self.app)).await.unwrap();
        let query = "SELECT to_json(customers)::text FROM customers";
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), query)).await.unwrap();
        row.unwrap().try_get_by_index(0).unwrap()
    }

    async fn list(&self) -> Vec<ViewSchema> {
        let request = ListViewsRequest { tenant: "acme".into(), service: "shop".into() };
        self.replica.grpc().list_views(request).await.unwrap().into_inner().views
    }

    async fn switch(&self, schema: &str, roles: &[&str]) -> Result<Vec<ViewSchema>, Status> {
        let request = SwitchViewsRequest {
            tenant: "acme".into(),
            service: "shop".into(),
            schema: schema.into(),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            reason: "trial".into(),
        };
        self.replica.grpc().switch_views(request).await.map(|answer| answer.into_inner().views)
    }

    async fn drop_views(&self, schemas: &[&str]) -> Result<DropViewsResponse, Status> {
        let request = DropViewsRequest {
            tenant: "acme".into(),
            service: "shop".into(),
            schemas: schemas.iter().map(|&schema| schema.to_owned()).collect(),
            reason: "trial".into(),
        };
        self.replica.grpc().drop_views(request).await.map(tonic::Response::into_inner)
    }
}

fn brief(views: &[ViewSchema]) -> Vec<String> {
    let text = |it: &ViewSchema| {
        let current = if it.current { " current" } else { "" };
        format!("{} {}{current} [{}] [{}]", it.version, it.name, it.used_by.join(" "), it.roles.join(" "))
    };
    views.iter().map(text).collect()
}

#[tokio::test]
async fn views_that_a_declared_version_works_on_stay_and_go_when_it_does() {
    let world = World::start().await;
    world.stage.plane.put_version("1.0", "1.2", "").await;
    let listed = ["1.1 grey_shop_v1_1 [v1.5] []", "1.2 grey_shop_v1_2 current [v1.0 v2.0] []"];
    assert_eq!(brief(&world.list().await), listed);
    // Both are live: what is written through one is read through the other.
    world.sql("INSERT INTO grey_shop_v1_1.customers VALUES (1, 'new')").await;
    world.sql("UPDATE grey_shop_v1_2.customers SET note = 'n'").await;
    assert_eq!(world.sql("SELECT state FROM grey_shop_v1_1.customers").await, "new");

    let kept = world.drop_views(&[]).await.unwrap();
    assert_eq!((kept.dropped.len(), brief(&kept.kept)), (0, listed.map(str::to_owned).to_vec()));
    let refused = world.drop_views(&["1.1"]).await.unwrap_err();
    assert!(refused.message().contains("a declared version"), "{}", refused.message());
    assert_eq!(reason::<()>(Err(refused)), Reason::MigrationRefused);
    assert_eq!(reason(world.drop_views(&["1.2"]).await), Reason::MigrationRefused);
    assert_eq!(reason(world.drop_views(&["new"]).await), Reason::InvalidArgument);

    world.stage.plane.delete_version("1.5").await;
    let gone = world.drop_views(&[]).await.unwrap();
    assert_eq!(brief(&gone.dropped), ["1.1 grey_shop_v1_1 [] []"]);
    assert_eq!(brief(&gone.kept), listed[1..]);
    assert_eq!(brief(&world.list().await), listed[1..]);
    assert_eq!(world.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'grey_shop%'").await, "1");
    world.replica.stop().await;
}

#[tokio::test]
async fn new_sessions_of_a_role_are_led_to_the_views_that_were_switched_to() {
    let world = World::start().await;
    world.sql("INSERT INTO customers VALUES (1, 'new', 'n')").await;
    for version in ["1.0", "1.5"] {
        world.stage.plane.put_version(version, "1.2", "").await;
    }
    let app = world.app.as_str();
    let switched = world.switch("1.1", &[app]).await.unwrap();
    let led = format!("1.1 grey_shop_v1_1 current [] [{app}]");
    assert_eq!(brief(&switched), [led.as_str(), "1.2 grey_shop_v1_2 [v1.0 v1.5 v2.0] []"]);
    assert_eq!(world.seen().await, r#"{"id":1,"state":"new"}"#);

    // Noted only: sessions of the role go on where they were, so those views stay.
    world.switch("1.2", &[]).await.unwrap();
    assert_eq!(world.seen().await, r#"{"id":1,"state":"new"}"#);
    assert_eq!(world.drop_views(&[]).await.unwrap().dropped, []);
    let refused = world.drop_views(&["1.1"]).await.unwrap_err();
    assert!(refused.message().contains("search path"), "{}", refused.message());

    world.switch("1.2", &[app]).await.unwrap();
    assert_eq!(world.seen().await, r#"{"id":1,"state":"new","note":"n"}"#);
    assert_eq!(world.drop_views(&["1.1"]).await.unwrap().dropped.len(), 1);
    assert_eq!(world.seen().await, r#"{"id":1,"state":"new","note":"n"}"#);
    world.replica.stop().await;
}

#[tokio::test]
async fn a_switch_that_is_refused_changes_nothing() {
    let mut world = World::start().await;
    let before = world.list().await;
    let own = world.sql("SELECT session_user").await;
    for (schema, roles, why) in [
        ("9.9", vec![], Reason::MigrationRefused),
        ("1.1", vec![own.as_str()], Reason::MigrationRefused),
        ("1.1", vec![world.app.as_str(), "nobody_at_all"], Reason::MigrationRefused),
        ("1.1", vec![""], Reason::InvalidArgument),
        ("", vec![], Reason::InvalidArgument),
    ] {
        assert_eq!(reason(world.switch(schema, &roles).await), why, "{schema} {roles:?}");
        assert_eq!(world.list().await, before, "{schema} {roles:?}");
    }
    // Nor is anything done while another session has the history, which this replica is not as long in finding out.
    let mut config = world.stage.config();
    config.tenants.lock = Duration::from_secs(2);
    let hasty = Replica::start(config).await;
    std::mem::replace(&mut world.replica, hasty).stop().await;
    let target = target(Dialect::Postgres, world.url.clone());
    let mut busy = Connection::open(&target, &patient()).await.unwrap();
    busy.lock(&Stop::within(LONG, CancellationToken::new())).await.unwrap();
    assert_eq!(reason(world.switch("1.1", &[]).await), Reason::UpgradeRunning);
    assert_eq!(reason(world.drop_views(&[]).await), Reason::UpgradeRunning);
    assert_eq!(world.list().await, before);
    world.replica.stop().await;
}

#[tokio::test]
async fn a_database_that_is_not_postgresql_has_no_views() {
    let world = World::start().await;
    let url = mariadb().await.database(&world.name).await.unwrap();
    world.stage.plane.register("acme", DatabaseKind::Database, "", &url).await;
    assert_eq!(world.list().await, []);
    assert_eq!(reason(world.switch("1.1", &[]).await), Reason::MigrationRefused);
    assert_eq!(world.drop_views(&[]).await.unwrap(), DropViewsResponse::default());
    world.replica.stop().await;
}
