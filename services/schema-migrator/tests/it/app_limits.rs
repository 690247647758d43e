//! How many upgrades run at once, how long each may take, and how many of a tenant's there are.

use crate::run_world::postgres;
use crate::service_world::{PLAIN, Replica, SOON, Stage, to_schema, unique, up};
use futures::future::join_all;
use grey_core::error::Reason;
use grey_proto::control::DatabaseKind;
use grey_proto::schema::{
    CancelUpgradeRequest, ListUpgradesRequest, StartUpgradeRequest, StartUpgradesRequest, StepState, Upgrade,
    UpgradeOptions, UpgradeState,
};
use grey_proto::status::from_status;
use grey_runtime::config::{Source, load};
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::{Config, DEFAULTS};
use grey_testkit::eventually;
use sea_orm::{ConnectionTrait, Database, DatabaseTransaction, TransactionTrait};
use std::time::Duration;

/// Waits for a lock that a test holds.
const GATED: &str = "DO $$ BEGIN PERFORM pg_advisory_xact_lock_shared(815); END $$;";
const HELD: &str = "DO $$ BEGIN PERFORM pg_sleep(120); END $$;";

async fn hold(name: &str) -> DatabaseTransaction {
    let base = postgres().await.url();
    let (server, _) = base.rsplit_once('/').unwrap();
    let db = Database::connect(format!("{server}/{name}")).await.unwrap();
    let transaction = db.begin().await.unwrap();
    transaction.execute_unprepared("SELECT pg_advisory_xact_lock(815)").await.unwrap();
    transaction
}

async fn list(replica: &Replica) -> Vec<Upgrade> {
    replica.grpc().list_upgrades(ListUpgradesRequest::default()).await.unwrap().into_inner().upgrades
}

fn count(upgrades: &[Upgrade], state: UpgradeState) -> usize {
    upgrades.iter().filter(|upgrade| upgrade.state() == state).count()
}

/// How many upgrades are inside of a step.
async fn in_a_step(replica: &Replica) -> usize {
    let mut inside = 0;
    // A list tells no steps.
    for upgrade in list(replica).await {
        let steps = replica.get(&upgrade.id).await.steps;
        inside += usize::from(steps.iter().any(|step| step.state() == StepState::Running));
    }
    inside
}

#[test]
fn five_upgrades_of_five_minutes_are_the_default() {
    let config: Config = load(Source { defaults: DEFAULTS, file: None, env: Vec::new() }).unwrap();
    assert_eq!((config.jobs.concurrency, config.jobs.timeout), (5, Duration::from_secs(300)));
    assert!(config.jobs.per_server <= 5);
}

#[tokio::test]
async fn no_more_upgrades_run_at_once_than_allowed() {
    let stage = Stage::new(&[("V1.1__wait.sql", GATED)]).await;
    let mut config = stage.config();
    (config.jobs.concurrency, config.jobs.per_server) = (3, 100);
    config.tenants.lock = Duration::from_secs(60);
    let replica = Replica::start(config).await;
    let name = unique("shared");
    let url = postgres().await.database(&name).await.unwrap();
    let tenants: Vec<String> = (0..6).map(|n| format!("t{n}")).collect();
    for tenant in &tenants {
        postgres().await.query(&name, &format!("CREATE SCHEMA {tenant}")).await.unwrap();
        stage.plane.put_tenant(tenant).await;
        stage.plane.register(tenant, DatabaseKind::Schema, tenant, &url).await;
    }
    let gate = hold(&name).await;
    let request = StartUpgradesRequest { tenants, service: "shop".into(), ..StartUpgradesRequest::default() };
    let started = replica.grpc().start_upgrades(request).await.unwrap().into_inner().upgrades;
    assert!(started.iter().all(|it| it.upgrade.is_some()), "{started:?}");
    eventually(SOON, "three are inside their step", async || in_a_step(&replica).await == 3).await;
    let upgrades = list(&replica).await;
    assert_eq!((count(&upgrades, UpgradeState::Running), count(&upgrades, UpgradeState::Queued)), (3, 3));
    // One that ends makes room for one.
    let one = upgrades.iter().find(|upgrade| upgrade.state() == UpgradeState::Running).unwrap();
    let cancel = CancelUpgradeRequest { id: one.id.clone() };
    replica.grpc().cancel_upgrade(cancel).await.unwrap();
    replica.reaches(&one.id, UpgradeState::Cancelled).await;
    eventually(SOON, "three are inside their step", async || in_a_step(&replica).await == 3).await;
    let upgrades = list(&replica).await;
    assert_eq!((count(&upgrades, UpgradeState::Running), count(&upgrades, UpgradeState::Queued)), (3, 2));
    gate.commit().await.unwrap();
    eventually(SOON, "the others succeed", async || {
        count(&list(&replica).await, UpgradeState::Succeeded) == 5
    })
    .await;
    replica.stop().await;
}

#[tokio::test]
async fn an_upgrade_that_is_out_of_time_is_stopped_and_taken_back() {
    let stage = Stage::new(&PLAIN).await;
    stage.write("V1.3__held.sql", HELD);
    let name = stage.tenant(Dialect::Postgres, "acme").await;
    let mut config = stage.config();
    config.jobs.timeout = Duration::from_secs(2);
    let replica = Replica::start(config).await;
    let one = UpgradeOptions { timeout: Some(Duration::from_secs(1).into()), ..UpgradeOptions::default() };
    // As configured, and as the request says.
    for options in [None, Some(one)] {
        let queued = replica.try_start(StartUpgradeRequest { options, ..up("acme") }).await.unwrap();
        let ended = replica.ended(&queued.id).await;
        assert_eq!((ended.state(), ended.schema.as_str()), (UpgradeState::Failed, ""), "{}", ended.error);
        assert!(ended.error.contains("the time for the run is up"), "{}", ended.error);
        let left = "SELECT count(*) FROM pg_tables WHERE tablename IN ('notes', 'tags')";
        assert_eq!(postgres().await.query(&name, left).await.unwrap().trim(), "0");
    }
    // More than is configured may be asked for.
    let options = UpgradeOptions { timeout: Some(SOON.into()), ..UpgradeOptions::default() };
    stage.write("V1.3__held.sql", "DO $$ BEGIN PERFORM pg_sleep(3); END $$;");
    let request = StartUpgradeRequest { options: Some(options), ..up("acme") };
    let queued = replica.try_start(request).await.unwrap();
    let ended = replica.ended(&queued.id).await;
    assert_eq!(ended.state(), UpgradeState::Succeeded, "{}", ended.error);
    replica.stop().await;
}

#[tokio::test]
async fn of_many_requests_at_once_for_one_tenant_one_is_taken_and_the_others_are_told_of_it() {
    let stage = Stage::on_postgres(&[("V1.1__wait.sql", GATED)]).await;
    let name = stage.tenant(Dialect::Postgres, "acme").await;
    let mut config = stage.config();
    config.tenants.lock = Duration::from_secs(60);
    let replicas = [Replica::start(config.clone()).await, Replica::start(config).await];
    let gate = hold(&name).await;
    let answers = join_all((0..10).map(|n| replicas[n % 2].try_start(up("acme")))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let [Ok(taken)] = taken.as_slice() else { panic!("{taken:?}") };
    for refusal in refused {
        let refusal = from_status(&refusal.unwrap_err());
        let told = (refusal.reason, refusal.get("upgrade"));
        assert_eq!(told, (Reason::UpgradeRunning, Some(taken.id.as_str())), "{refusal:?}");
    }
    gate.commit().await.unwrap();
    assert_eq!(replicas[0].ended(&taken.id).await.state(), UpgradeState::Succeeded);
    // Whether many ask for what is done already or not, nothing runs twice.
    let again = StartUpgradeRequest { target: to_schema("1.1"), ..up("acme") };
    let again = replicas[1].try_start(again).await.unwrap();
    assert_eq!(replicas[1].ended(&again.id).await.state(), UpgradeState::Succeeded);
    let rows = "SELECT count(*) FROM grey_schema_history_shop";
    assert_eq!(postgres().await.query(&name, rows).await.unwrap().trim(), "1");
    for replica in replicas {
        replica.stop().await;
    }
}
