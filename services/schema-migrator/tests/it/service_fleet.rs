//! Many tenants at once.

use crate::run_world::postgres;
use crate::service_world::{PLAIN, Replica, SOON, Stage, sqlite_ask, unique};
use grey_core::error::Reason;
use grey_proto::control::DatabaseKind;
use grey_proto::schema::{
    ListSchemasRequest, ListUpgradesRequest, StartUpgradesRequest, StartUpgradesResponse, UpgradeOptions,
    UpgradeState,
};
use grey_testkit::eventually;

async fn start(replica: &Replica, tenants: &[String]) -> StartUpgradesResponse {
    start_with(replica, tenants, UpgradeOptions::default()).await
}

async fn start_with(replica: &Replica, tenants: &[String], options: UpgradeOptions) -> StartUpgradesResponse {
    let request = StartUpgradesRequest {
        tenants: tenants.to_vec(),
        service: "shop".into(),
        options: Some(options),
        ..StartUpgradesRequest::default()
    };
    replica.grpc().start_upgrades(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn one_tenant_that_fails_among_fifty_touches_no_other() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    let tenants: Vec<String> = (0..50).map(|n| format!("t{n:02}")).collect();
    for tenant in &tenants {
        stage.sqlite(tenant).await;
    }
    let odd = stage.folder.path().join("t17.db");
    sqlite_ask(&odd, "CREATE TABLE tags (mine TEXT)").await;
    let options = UpgradeOptions { accept: vec!["not-empty".into()], ..UpgradeOptions::default() };
    let started = start_with(&replica, &tenants, options).await.upgrades;
    assert!(started.iter().all(|it| it.upgrade.is_some()), "{started:?}");
    for it in &started {
        let ended = replica.ended(&it.upgrade.as_ref().unwrap().id).await;
        let expected = if it.tenant == "t17" { UpgradeState::Failed } else { UpgradeState::Succeeded };
        assert_eq!(ended.state(), expected, "{}: {}", it.tenant, ended.error);
    }
    assert_eq!(sqlite_ask(&odd, "SELECT count(*) FROM sqlite_master WHERE name = 'notes'").await, "0");
    assert_eq!(sqlite_ask(&odd, "SELECT count(mine) FROM tags").await, "0");
    eventually(SOON, "every schema is reported", async || {
        for tenant in &tenants {
            let expected = if tenant == "t17" { "" } else { "1.2" };
            if stage.plane.observed(tenant).await != expected {
                return false;
            }
        }
        true
    })
    .await;
    let request = ListSchemasRequest { service: "shop".into(), live: true, ..ListSchemasRequest::default() };
    let listed = replica.grpc().list_schemas(request).await.unwrap().into_inner().schemas;
    let behind: Vec<_> = listed.iter().filter(|it| it.pending > 0).map(|it| it.tenant.as_str()).collect();
    assert_eq!((listed.len(), behind), (50, vec!["t17"]));
    replica.stop().await;
}

#[tokio::test]
async fn tenants_with_nothing_to_do_are_done_at_once_and_unknown_ones_are_named() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    stage.sqlite("done").await;
    stage.sqlite("behind").await;
    let first = replica.up("done").await;
    replica.ended(&first.id).await;
    let tenants = ["done".to_owned(), "behind".to_owned(), "nobody".to_owned()];
    let started = start(&replica, &tenants).await.upgrades;
    let [done, behind, nobody] = started.as_slice() else { panic!("{started:?}") };
    let skipped = done.upgrade.as_ref().unwrap();
    assert_eq!(
        (skipped.state(), skipped.attempts, skipped.schema.as_str()),
        (UpgradeState::Succeeded, 0, "1.2")
    );
    assert_eq!(nobody.reason, Reason::UnknownDatabase.as_str());
    let ended = replica.ended(&behind.upgrade.as_ref().unwrap().id).await;
    assert_eq!((ended.state(), ended.attempts), (UpgradeState::Succeeded, 1));
    replica.stop().await;
}

#[tokio::test]
async fn a_database_server_runs_no_more_upgrades_than_allowed() {
    let slow = "DO $$ BEGIN PERFORM pg_sleep(0.3); END $$;";
    let stage = Stage::on_postgres(&[("V1.1__wait.sql", slow)]).await;
    let mut config = stage.config();
    config.jobs.concurrency = 10;
    let replicas = [Replica::start(config.clone()).await, Replica::start(config).await];
    let [replica, _] = &replicas;
    let name = unique("shared");
    let url = postgres().await.database(&name).await.unwrap();
    let tenants: Vec<String> = (0..8).map(|n| format!("t{n}")).collect();
    for tenant in &tenants {
        postgres().await.query(&name, &format!("CREATE SCHEMA {tenant}")).await.unwrap();
        stage.plane.put_tenant(tenant).await;
        stage.plane.register(tenant, DatabaseKind::Schema, tenant, &url).await;
    }
    start(replica, &tenants).await;
    let mut most = 0;
    eventually(SOON, "all have ended", async || {
        let listed = replica.grpc().list_upgrades(ListUpgradesRequest::default()).await.unwrap().into_inner();
        let count = |state| listed.upgrades.iter().filter(|upgrade| upgrade.state() == state).count();
        most = most.max(count(UpgradeState::Running));
        count(UpgradeState::Succeeded) == tenants.len()
    })
    .await;
    assert_eq!(most, 2);
    for replica in replicas {
        replica.stop().await;
    }
}
