//! Upgrades asked for over gRPC, from the request to the pin.

use crate::service_world::{PLAIN, SOON, Stage, reason, sqlite_ask, to_schema, to_version, unique, up};
use grey_core::error::Reason;
use grey_edge::{PRINCIPAL_HEADER, PRINCIPAL_ROLE_HEADER};
use grey_proto::control::{DatabaseKind, Pin};
use grey_proto::schema::{
    BaselineRequest, CancelUpgradeRequest, Flip, FlipState, ListSchemasRequest, ListUpgradesRequest,
    PlanRequest, RollbackRequest, StartUpgradeRequest, StepState, UpgradeOptions, UpgradeState,
    ValidateRequest,
};
use grey_proto::status::from_status;
use grey_runtime::Secret;
use grey_runtime::access::{Token, TokenHash};
use grey_schema_migrator::backup;
use grey_schema_migrator::files::Dialect;
use grey_testkit::eventually;
use tonic::Request;

const HELD: &str = "DO $$ BEGIN PERFORM pg_sleep(120); END $$;";

fn flip(version: &str) -> Option<Flip> {
    let pin = Pin { version: version.to_owned(), ..Pin::default() };
    Some(Flip { pin: Some(pin), ..Flip::default() })
}

#[tokio::test]
async fn an_upgrade_runs_on_every_dialect_and_everything_is_told() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    for (dialect, tenant) in [(Dialect::Postgres, "pg"), (Dialect::MySql, "maria"), (Dialect::Sqlite, "lite")]
    {
        let name = stage.tenant(dialect, tenant).await;
        let queued = replica.up(tenant).await;
        assert_eq!(queued.steps.len(), 2);
        let told = replica.follow(&queued.id).await;
        let last = told.last().unwrap();
        assert_eq!(last.state(), UpgradeState::Succeeded, "{tenant}: {}", last.error);
        assert_eq!((last.from_schema.as_str(), last.schema.as_str()), ("", "1.2"));
        let done = last.steps.iter().all(|step| {
            step.state() == StepState::Done && step.statements_done == 1 && step.elapsed.is_some()
        });
        assert!(done, "{:?}", last.steps);
        assert_eq!((last.attempts, last.actor.as_str()), (1, "anonymous"));
        assert_eq!(stage.ask(dialect, &name, "SELECT count(*) FROM tags").await.trim(), "0");
        eventually(SOON, "the schema is reported", async || stage.plane.observed(tenant).await == "1.2")
            .await;
    }
    let metrics = replica.metrics().await;
    assert!(
        metrics.contains("grey_schema_upgrades_total{dialect=\"mysql\",state=\"succeeded\"} 1"),
        "{metrics}"
    );
    assert!(!metrics.contains("maria"), "{metrics}");
    replica.stop().await;
}

#[tokio::test]
async fn a_tenant_is_pinned_once_its_upgrade_has_succeeded() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    stage.sqlite("acme").await;
    let request = StartUpgradeRequest { target: to_version("2.0"), flip: flip("2.0"), ..up("acme") };
    let queued = replica.try_start(request).await.unwrap();
    assert_eq!(queued.flip.unwrap().state(), FlipState::Pending);
    let ended = replica.ended(&queued.id).await;
    let flip = ended.flip.unwrap();
    assert_eq!((flip.state(), flip.error.as_str()), (FlipState::Done, ""));
    assert_eq!(stage.plane.pinned("acme").await, "v2.0");
    assert_eq!(stage.plane.observed("acme").await, "1.2");
    let pinned = stage.plane.newest_event().await;
    assert_eq!(pinned.cause, format!("upgrade/{}", queued.id), "{pinned:?}");
    replica.stop().await;
}

#[tokio::test]
async fn a_failed_upgrade_leaves_schema_and_pin_where_they_were() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    let file = stage.sqlite("acme").await;
    let first = StartUpgradeRequest { target: to_schema("1.1"), ..up("acme") };
    let first = replica.try_start(first).await.unwrap();
    assert_eq!(replica.ended(&first.id).await.state(), UpgradeState::Succeeded);
    let insert = |id: u32| format!("INSERT INTO notes (id) VALUES ({id});");
    let five = [insert(1), insert(2), insert(1), insert(4), insert(5)].join("\n");
    stage.write("V1.3__fill.sql", &five);
    let request = StartUpgradeRequest { flip: flip("2.0"), ..up("acme") };
    let queued = replica.try_start(request).await.unwrap();
    let ended = replica.ended(&queued.id).await;
    assert_eq!(ended.state(), UpgradeState::Failed);
    assert!(ended.error.contains("V1.3__fill.sql") && ended.error.contains("UNIQUE"), "{}", ended.error);
    assert_eq!((ended.from_schema.as_str(), ended.schema.as_str()), ("1.1", "1.1"));
    let states: Vec<_> = ended.steps.iter().map(|step| (step.schema.as_str(), step.state())).collect();
    assert_eq!(states, [("1.2", StepState::Undone), ("1.3", StepState::Failed)]);
    assert_eq!(ended.flip.unwrap().state(), FlipState::Refused);
    eventually(SOON, "the schema is reported", async || stage.plane.observed("acme").await == "1.1").await;
    assert_eq!(stage.plane.pinned("acme").await, "");
    assert_eq!(sqlite_ask(&file, "SELECT count(*) FROM notes").await, "0");
    let gone = "SELECT count(*) FROM sqlite_master WHERE name = 'tags'";
    assert_eq!(sqlite_ask(&file, gone).await, "0");
    replica.stop().await;
}

#[tokio::test]
async fn a_second_upgrade_of_a_busy_tenant_is_refused_and_the_first_can_be_cancelled() {
    let stage = Stage::new(&[("V1.1__wait.sql", HELD)]).await;
    let replica = stage.replica().await;
    stage.tenant(Dialect::Postgres, "acme").await;
    let first = replica.up("acme").await;
    eventually(SOON, "its step runs", async || {
        replica.get(&first.id).await.steps.iter().any(|step| step.state() == StepState::Running)
    })
    .await;
    let refused = from_status(&replica.try_start(up("acme")).await.unwrap_err());
    assert_eq!((refused.reason, refused.get("upgrade")), (Reason::UpgradeRunning, Some(first.id.as_str())));
    let cancel = CancelUpgradeRequest { id: first.id.clone() };
    let asked = replica.grpc().cancel_upgrade(cancel.clone()).await.unwrap().into_inner().upgrade.unwrap();
    assert!(asked.cancelling);
    let ended = replica.ended(&first.id).await;
    assert_eq!((ended.state(), ended.schema.as_str()), (UpgradeState::Cancelled, ""));
    let again = replica.grpc().cancel_upgrade(cancel).await;
    assert_eq!(reason(again), Reason::InvalidArgument);
    replica.stop().await;
}

#[tokio::test]
async fn a_repeated_request_gets_what_it_got_before() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    stage.sqlite("acme").await;
    let request = StartUpgradeRequest { idempotency_key: "once".to_owned(), ..up("acme") };
    let first = replica.try_start(request.clone()).await.unwrap();
    assert_eq!(replica.try_start(request.clone()).await.unwrap().id, first.id);
    assert_eq!(replica.ended(&first.id).await.state(), UpgradeState::Succeeded);
    assert_eq!(replica.try_start(request.clone()).await.unwrap().id, first.id);
    let other = StartUpgradeRequest { target: to_schema("1.1"), ..request };
    assert_eq!(reason(replica.try_start(other).await), Reason::InvalidArgument);
    replica.stop().await;
}

#[tokio::test]
async fn migrations_are_undone_down_to_a_schema() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    let file = stage.sqlite("acme").await;
    let queued = replica.up("acme").await;
    replica.ended(&queued.id).await;
    let request = RollbackRequest {
        tenant: "acme".into(),
        service: "shop".into(),
        schema: "1.1".into(),
        options: Some(UpgradeOptions { accept: vec!["destructive".into()], ..UpgradeOptions::default() }),
        reason: "trial".into(),
    };
    let queued = replica.grpc().rollback(request).await.unwrap().into_inner().upgrade.unwrap();
    let ended = replica.ended(&queued.id).await;
    assert_eq!((ended.state(), ended.schema.as_str()), (UpgradeState::Succeeded, "1.1"), "{}", ended.error);
    assert_eq!(ended.reason, "trial");
    assert_eq!(sqlite_ask(&file, "SELECT count(*) FROM sqlite_master WHERE name = 'tags'").await, "0");
    eventually(SOON, "the schema is reported", async || stage.plane.observed("acme").await == "1.1").await;
    replica.stop().await;
}

#[tokio::test]
async fn a_schema_per_tenant_is_upgraded_in_its_own_schema() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    let name = unique("shared");
    let postgres = crate::run_world::postgres().await;
    let url = postgres.database(&name).await.unwrap();
    for tenant in ["one", "two"] {
        postgres.query(&name, &format!("CREATE SCHEMA t_{tenant}")).await.unwrap();
        stage.plane.put_tenant(tenant).await;
        stage.plane.register(tenant, DatabaseKind::Schema, &format!("t_{tenant}"), &url).await;
    }
    let queued = replica.up("one").await;
    assert_eq!(replica.ended(&queued.id).await.state(), UpgradeState::Succeeded);
    let where_is = "SELECT string_agg(schemaname, ',') FROM pg_tables WHERE tablename = 'tags'";
    assert_eq!(postgres.query(&name, where_is).await.unwrap().trim(), "t_one");
    replica.stop().await;
}

#[tokio::test]
async fn a_backup_is_made_first_where_one_is_asked_for() {
    let stage = Stage::new(&PLAIN).await;
    let backups = tempfile::tempdir().unwrap();
    stage.sqlite("acme").await;
    let asked = Some(UpgradeOptions { backup: true, ..UpgradeOptions::default() });
    let request = StartUpgradeRequest { options: asked, ..up("acme") };
    let without = stage.replica().await;
    assert_eq!(reason(without.try_start(request.clone()).await), Reason::MigrationRefused);
    without.stop().await;
    let mut config = stage.config();
    config.backups = Some(backup::Options::in_folder(backups.path().to_owned()));
    let replica = crate::service_world::Replica::start(config).await;
    let queued = replica.try_start(request).await.unwrap();
    let ended = replica.ended(&queued.id).await;
    assert_eq!(ended.state(), UpgradeState::Succeeded, "{}", ended.error);
    assert!(std::path::Path::new(&ended.backup).starts_with(backups.path()), "{}", ended.backup);
    assert!(std::fs::metadata(&ended.backup).unwrap().is_file());
    replica.stop().await;
}

#[tokio::test]
async fn a_plan_shows_the_exact_sql_and_runs_nothing() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    stage.sqlite("acme").await;
    let request = PlanRequest {
        tenant: "acme".into(),
        service: "shop".into(),
        target: to_version("1.5"),
        ..PlanRequest::default()
    };
    let plan = replica.grpc().plan(request).await.unwrap().into_inner().plan.unwrap();
    assert_eq!((plan.to_schema.as_str(), plan.refused, plan.steps.len()), ("1.1", false, 1));
    let statements = &plan.steps.first().unwrap().statements;
    assert!(statements.first().unwrap().starts_with("CREATE TABLE notes"), "{statements:?}");
    let listed = replica.grpc().list_upgrades(ListUpgradesRequest::default()).await.unwrap().into_inner();
    assert!(listed.upgrades.is_empty());
    replica.stop().await;
}

#[tokio::test]
async fn a_baseline_is_declared_and_where_databases_are_is_told() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    stage.sqlite("acme").await;
    stage.sqlite("other").await;
    let (tenant, service, schema) = ("acme".to_owned(), "shop".to_owned(), "1.1".to_owned());
    let request = BaselineRequest { tenant, service, schema, ..BaselineRequest::default() };
    let declared = replica.grpc().baseline(request.clone()).await.unwrap().into_inner().schema.unwrap();
    assert_eq!((declared.schema.as_str(), declared.pending), ("1.1", 1));
    assert_eq!(reason(replica.grpc().baseline(request).await), Reason::MigrationRefused);
    eventually(SOON, "the schema is reported", async || stage.plane.observed("acme").await == "1.1").await;
    let ask = |live| ListSchemasRequest { service: "shop".into(), live, ..ListSchemasRequest::default() };
    let listed = replica.grpc().list_schemas(ask(false)).await.unwrap().into_inner().schemas;
    let told: Vec<_> =
        listed.iter().map(|it| (it.tenant.as_str(), it.schema.as_str(), it.seen_at.is_some())).collect();
    assert_eq!(told, [("acme", "1.1", true), ("other", "", false)]);
    let listed = replica.grpc().list_schemas(ask(true)).await.unwrap().into_inner().schemas;
    let told: Vec<_> =
        listed.iter().map(|it| (it.tenant.as_str(), it.pending, it.seen_at.is_some())).collect();
    assert_eq!(told, [("acme", 1, true), ("other", 2, true)]);
    replica.stop().await;
}

#[tokio::test]
async fn upgrades_are_listed_newest_first_a_page_at_a_time() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    let mut ids = Vec::new();
    for tenant in ["one", "two", "three"] {
        stage.sqlite(tenant).await;
        let queued = replica.up(tenant).await;
        replica.ended(&queued.id).await;
        ids.insert(0, queued.id);
    }
    let list = async |token: &str, tenant: &str| {
        let request = ListUpgradesRequest {
            page_size: 2,
            page_token: token.to_owned(),
            tenant: tenant.to_owned(),
            ..ListUpgradesRequest::default()
        };
        replica.grpc().list_upgrades(request).await.unwrap().into_inner()
    };
    let first = list("", "").await;
    let rest = list(&first.next_page_token, "").await;
    let listed: Vec<_> = first.upgrades.iter().chain(&rest.upgrades).map(|it| it.id.clone()).collect();
    assert_eq!(listed, ids);
    assert_eq!(rest.next_page_token, "");
    assert_eq!(list("", "two").await.upgrades.len(), 1);
    replica.stop().await;
}

#[tokio::test]
async fn roles_say_who_may_upgrade_and_who_may_accept() {
    let stage = Stage::new(&PLAIN).await;
    stage.sqlite("acme").await;
    let plain = stage.replica().await;
    let queued = plain.up("acme").await;
    plain.ended(&queued.id).await;
    plain.stop().await;
    stage.write("V1.3__clear.sql", "DELETE FROM notes;");
    let mut config = stage.config();
    for role in ["viewer", "operator", "admin"] {
        let token = Token { name: format!("the-{role}"), role: role.into(), sha256: TokenHash::of(role) };
        config.access.tokens.push(token);
    }
    let replica = crate::service_world::Replica::start(config).await;
    let send_for = async |ann: &str, role: &str, request: StartUpgradeRequest| {
        let mut request = Request::new(request);
        let bearer = Secret::new(format!("Bearer {role}"));
        request.metadata_mut().insert("authorization", bearer.expose().parse().unwrap());
        request.metadata_mut().insert(PRINCIPAL_HEADER, "ann".parse().unwrap());
        request.metadata_mut().insert(PRINCIPAL_ROLE_HEADER, ann.parse().unwrap());
        replica.grpc().start_upgrade(request).await.map(|answer| answer.into_inner().upgrade.unwrap())
    };
    let send = async |role: &str, request| send_for("admin", role, request).await;
    assert_eq!(reason(send("viewer", up("acme")).await), Reason::Denied);
    let refused = from_status(&send("operator", up("acme")).await.unwrap_err());
    assert_eq!((refused.reason, refused.get("rules")), (Reason::MigrationRefused, Some("destructive")));
    let options = UpgradeOptions { accept: vec!["destructive".into()], ..UpgradeOptions::default() };
    let accepting = StartUpgradeRequest { options: Some(options), ..up("acme") };
    assert_eq!(reason(send("operator", accepting.clone()).await), Reason::Denied);
    let contract = UpgradeOptions { contract: vec!["V1.3__clear.sql".into()], ..UpgradeOptions::default() };
    let contracting = StartUpgradeRequest { options: Some(contract), ..up("acme") };
    assert_eq!(reason(send("operator", contracting).await), Reason::Denied);
    // The token may, and whoever it asks for may not.
    let refused = from_status(&send_for("operator", "admin", accepting.clone()).await.unwrap_err());
    assert_eq!((refused.reason, refused.get("principal")), (Reason::Denied, Some("ann")));
    let queued = send("admin", accepting).await.unwrap();
    assert_eq!(queued.actor, "ann via the-admin");
    eventually(SOON, "it ends", async || {
        sqlite_ask(
            &stage.folder.path().join("acme.db"),
            "SELECT count(*) FROM sqlite_master WHERE name = 'tags'",
        )
        .await
            == "1"
    })
    .await;
    replica.stop().await;
}

#[tokio::test]
async fn files_are_checked_without_a_database() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    let ask = async |dialect: &str| {
        let request = ValidateRequest { service: "shop".into(), dialect: dialect.into() };
        replica.grpc().validate(request).await.map(tonic::Response::into_inner)
    };
    assert_eq!(ask("").await.unwrap().migrations, 2);
    stage.write("V1.3__broken.sql", "CREATE TABLE broken (name VARCHAR(9) DEFAULT 'oops);");
    let found = ask("postgres").await.unwrap().findings;
    assert!(found.iter().any(|finding| finding.file == "V1.3__broken.sql" && finding.line == 1), "{found:?}");
    assert_eq!(reason(ask("oracle").await), Reason::InvalidArgument);
    replica.stop().await;
}
