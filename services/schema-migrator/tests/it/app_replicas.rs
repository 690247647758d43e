//! Replicas that share the work, die, drain and come back, and a control plane that is away.

use crate::service_world::{PLAIN, Plane, Replica, SOON, Stage, to_version, up};
use grey_proto::control::Pin;
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::schema::{
    Flip, FlipState, StartUpgradeRequest, StepState, UpgradeState, UpgradeStep, WatchUpgradeRequest,
};
use grey_schema_migrator::Config;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::jobs::{Database, Queue, Seen};
use grey_testkit::{Spawned, eventually};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// A replica as a process of its own, and how to talk to it.
pub(crate) async fn process(
    config: &Config,
    folder: &Path,
    env: &[(&str, &str)],
) -> (Spawned, SchemaServiceClient<Channel>) {
    let file = folder.join("replica.toml");
    let mut config = config.clone();
    config.telemetry.log_filter = "info".to_owned();
    // What is printed has its secrets masked: those come by the environment.
    std::fs::write(&file, grey_runtime::config::to_toml(&config).unwrap()).unwrap();
    let key = config.vault.keys.first().unwrap();
    let keys = format!("[{{id=\"{}\",secret=\"{}\"}}]", key.id, key.secret.expose());
    let mut builder = Spawned::builder(env!("CARGO_BIN_EXE_grey-schema-migrator"))
        .arg("--config")
        .arg(&file)
        .env("GREY__DATABASE__URL", config.database.url.expose())
        .env("GREY__CONTROL__TOKEN", "\"\"")
        .env("GREY__VAULT__KEYS", keys);
    for (name, value) in env {
        builder = builder.env(name, value);
    }
    let spawned = builder.start().unwrap();
    let line = spawned.wait_for_line("grpc.address", SOON).await.unwrap();
    let address = line.split("grpc.address=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    (spawned, SchemaServiceClient::new(channel))
}

#[tokio::test]
async fn the_upgrade_of_a_killed_replica_is_taken_over_and_finished() {
    let stage = Stage::on_postgres(&PLAIN).await;
    stage.write("V1.3__held.sql", GATED);
    let name = stage.tenant(Dialect::Postgres, "acme").await;
    let postgres = crate::run_world::postgres().await;
    // The kill hits the replica inside a statement, which waits for this.
    let gate = hold(&name).await;
    let mut config = stage.config();
    config.tenants.lock = Duration::from_secs(60);
    let (first, mut client) = process(&config, stage.folder.path(), &[]).await;
    let queued = client.start_upgrade(up("acme")).await.unwrap().into_inner().upgrade.unwrap();
    let second = Replica::start(config).await;
    eventually(SOON, "the held step runs", async || runs(&second, &queued.id, "1.3").await).await;
    let worker = second.get(&queued.id).await.worker;
    first.kill9().unwrap();
    gate.release().await;
    let ended = second.ended(&queued.id).await;
    assert_eq!(ended.state(), UpgradeState::Succeeded, "{}", ended.error);
    assert_eq!((ended.schema.as_str(), ended.attempts), ("1.3", 2));
    assert_ne!(ended.worker, worker);
    let history = "SELECT string_agg(version, ',' ORDER BY seq) FROM grey_schema_history_shop";
    assert_eq!(postgres.query(&name, history).await.unwrap().trim(), "1.1,1.2,1.3");
    eventually(SOON, "the schema is reported", async || stage.plane.observed("acme").await == "1.3").await;
    second.stop().await;
}

async fn runs(replica: &Replica, id: &str, schema: &str) -> bool {
    let steps = replica.get(id).await.steps;
    steps.iter().any(|step| step.schema == schema && step.state() == StepState::Running)
}

/// A lock that a migration waits for and a test holds.
struct Gate(sea_orm::DatabaseTransaction);

/// Waits at the gate.
const GATED: &str = "DO $$ BEGIN PERFORM pg_advisory_xact_lock(4711); END $$;";

impl Gate {
    async fn release(self) {
        self.0.commit().await.unwrap();
    }
}

async fn hold(name: &str) -> Gate {
    use sea_orm::{ConnectionTrait, Database, TransactionTrait};
    let postgres = crate::run_world::postgres().await;
    let base = postgres.url();
    let (server, _) = base.rsplit_once('/').unwrap();
    let db = Database::connect(format!("{server}/{name}")).await.unwrap();
    let transaction = db.begin().await.unwrap();
    transaction.execute_unprepared("SELECT pg_advisory_xact_lock(4711)").await.unwrap();
    Gate(transaction)
}

#[tokio::test]
async fn a_drained_replica_puts_back_what_it_runs_and_the_queue_survives() {
    let stage = Stage::on_postgres(&PLAIN).await;
    stage.write("V1.3__held.sql", GATED);
    let name = stage.tenant(Dialect::Postgres, "acme").await;
    stage.tenant(Dialect::Postgres, "later").await;
    let postgres = crate::run_world::postgres().await;
    let gate = hold(&name).await;
    let mut config = stage.config();
    config.jobs.concurrency = 1;
    config.drain_grace = Duration::from_millis(50);
    config.tenants.lock = Duration::from_secs(60);
    let first = Replica::start(config.clone()).await;
    let held = first.up("acme").await;
    let later = first.up("later").await;
    eventually(SOON, "the held step runs", async || runs(&first, &held.id, "1.3").await).await;
    assert_eq!(first.get(&later.id).await.state(), UpgradeState::Queued);
    first.stop().await;
    let applied = "SELECT count(*) FROM pg_tables WHERE tablename IN ('notes', 'tags')";
    assert_eq!(postgres.query(&name, applied).await.unwrap().trim(), "0");
    gate.release().await;
    let second = Replica::start(config).await;
    let ended = second.ended(&held.id).await;
    assert_eq!((ended.state(), ended.attempts), (UpgradeState::Succeeded, 2), "{}", ended.error);
    assert_eq!(second.ended(&later.id).await.state(), UpgradeState::Succeeded);
    second.stop().await;
}

#[tokio::test]
async fn what_the_control_plane_missed_is_told_when_it_is_back() {
    let mut stage = Stage::new(&PLAIN).await;
    stage.write("V1.3__held.sql", GATED);
    let name = stage.tenant(Dialect::Postgres, "acme").await;
    let gate = hold(&name).await;
    let mut config = stage.config();
    config.tenants.lock = Duration::from_secs(60);
    let replica = Replica::start(config.clone()).await;
    let pin = Pin { version: "2.0".to_owned(), ..Pin::default() };
    let flip = Some(Flip { pin: Some(pin), ..Flip::default() });
    let request = StartUpgradeRequest { target: to_version("2.0"), flip, ..up("acme") };
    let queued = replica.try_start(request).await.unwrap();
    eventually(SOON, "the held step runs", async || runs(&replica, &queued.id, "1.3").await).await;
    let addr = stage.plane.addr;
    let store = stage.plane.stop().await;
    gate.release().await;
    let ended = replica.reaches(&queued.id, UpgradeState::Succeeded).await;
    assert_eq!(ended.flip.unwrap().state(), FlipState::Pending);
    // Not even a restart loses it.
    replica.stop().await;
    stage.plane = Plane::start_at(addr, store).await;
    let replica = Replica::start(config).await;
    let ended = replica.ended(&queued.id).await;
    assert_eq!(ended.flip.unwrap().state(), FlipState::Done);
    assert_eq!(
        (stage.plane.observed("acme").await.as_str(), stage.plane.pinned("acme").await.as_str()),
        ("1.3", "v2.0")
    );
    replica.stop().await;
}

#[tokio::test]
async fn a_tenant_that_is_gone_keeps_no_other_schema_from_being_told() {
    let stage = Stage::new(&PLAIN).await;
    let config = stage.config();
    let queue = Queue::new(Box::pin(Database::open(&config.database)).await.unwrap());
    let seen = Seen { schema: "1.2".to_owned(), fingerprint: String::new(), pending: 0 };
    let noted = |tenant: &str| (tenant.to_owned(), "shop".to_owned(), seen.clone());
    for tenant in ["acme", "zorg"] {
        stage.plane.put_tenant(tenant).await;
    }
    // All of them wait when the replica starts, so they are told of together first.
    queue.note_all(&[noted("acme"), noted("gone"), noted("zorg")]).await.unwrap();
    let replica = Replica::start(config).await;
    for tenant in ["acme", "zorg"] {
        eventually(SOON, "the schema is told", async || stage.plane.observed(tenant).await == "1.2").await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn followers_at_any_replica_see_an_upgrade_wait_run_and_end() {
    let stage = Stage::on_postgres(&PLAIN).await;
    stage.write("V1.3__held.sql", GATED);
    let name = stage.tenant(Dialect::Postgres, "acme").await;
    let gate = hold(&name).await;
    let mut config = stage.config();
    config.tenants.lock = Duration::from_secs(60);
    let first = Replica::start(config.clone()).await;
    let second = Replica::start(config).await;
    let queued = first.up("acme").await;
    // The gate opens once both have been told that the held step runs: it runs at one of the two.
    let told = AtomicUsize::new(0);
    let (at_first, at_second, ()) =
        tokio::join!(follow(&first, &queued.id, &told), follow(&second, &queued.id, &told), async {
            eventually(SOON, "both see it run", async || told.load(Ordering::Relaxed) == 2).await;
            gate.release().await;
        });
    for states in [at_first, at_second] {
        assert_eq!(states.last(), Some(&UpgradeState::Succeeded), "{states:?}");
    }
    first.stop().await;
    second.stop().await;
}

/// Follows an upgrade to its end and counts itself once its third step runs.
async fn follow(replica: &Replica, id: &str, told: &AtomicUsize) -> Vec<UpgradeState> {
    let request = WatchUpgradeRequest { id: id.to_owned() };
    let mut changes = replica.grpc().watch_upgrade(request).await.unwrap().into_inner();
    let (mut states, mut counted) = (Vec::new(), false);
    while let Some(change) = changes.message().await.unwrap() {
        let upgrade = change.upgrade.unwrap();
        states.push(upgrade.state());
        let steps: Vec<_> = upgrade.steps.iter().map(UpgradeStep::state).collect();
        if !counted && steps == [StepState::Done, StepState::Done, StepState::Running] {
            told.fetch_add(1, Ordering::Relaxed);
            counted = true;
        }
    }
    states
}
