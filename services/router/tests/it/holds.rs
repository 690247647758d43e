//! Tenants that are being moved: refused by every router that has acknowledged it, until the flip.

use std::path::Path;
use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_state::State;
use grey_state::redis::Options;
use grey_testkit::{Redis, Spawned};
use tonic::transport::Channel;

use crate::world::{DEADLINE, Router, World, call, connect, eventually, hold, lift, pin, told, within};

#[tokio::test]
async fn a_held_tenants_calls_are_refused_with_a_hint_until_the_flip() {
    let mut world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |_| {}).await;
    world.publish(vec![hold("acme", "payment", "v2.0")]).await;
    router.follows(&world).await;
    let refused = router.route(call("acme", "payment")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert_eq!(told::<()>(Err(refused)).reason, Reason::TenantMoving);
    assert_eq!(router.version("beta", "payment").await, "v2.0", "nobody else is refused");

    let url = format!("http://{}/api/grey-router/route", router.http);
    let body = serde_json::json!({"tenant": "acme", "service": "payment"});
    let answer = within(reqwest::Client::new().post(url).json(&body).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().unwrap()));

    world.publish(vec![lift("acme", "payment"), pin("acme", "payment", "v2.0")]).await;
    router.follows(&world).await;
    assert_eq!(router.version("acme", "payment").await, "v2.0");
    router.stop().await;
}

fn program(redis: &str, snapshot: &Path) -> Spawned {
    Spawned::builder(env!("CARGO_BIN_EXE_grey-router"))
        .env("GREY__GRPC__LISTEN", "127.0.0.1:0")
        .env("GREY__HTTP__LISTEN", "127.0.0.1:0")
        .env("GREY__ROUTER__ID", "r1")
        .env("GREY__REDIS__URLS", format!("[\"{redis}\"]"))
        .env("GREY__SNAPSHOT__FILE", snapshot)
        .env("GREY__SNAPSHOT__INTERVAL", "20ms")
        .start()
        .unwrap()
}

async fn client(program: &Spawned) -> RouterServiceClient<Channel> {
    let line = program.wait_for_line("server.grpc=", DEADLINE).await.unwrap();
    let addr = line.split("server.grpc=").nth(1).unwrap().split(' ').next().unwrap();
    connect(addr.parse().unwrap()).await
}

#[tokio::test]
async fn what_was_acknowledged_is_refused_after_kill_9_though_the_snapshot_file_is_older() {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&Options { urls: vec![redis.url()], ..Options::default() }).await.unwrap();
    let mut world = World::on(state, 1).await.with_payment().await;
    let directory = tempfile::tempdir().unwrap();
    let (file, older) = (directory.path().join("router.snapshot"), directory.path().join("older"));
    let first = program(&redis.url(), &file);
    eventually("the snapshot is written", async || file.exists()).await;
    std::fs::copy(&file, &older).unwrap();
    world.publish(vec![hold("acme", "payment", "v2.0")]).await;
    eventually("the hold is acknowledged", async || {
        let live = world.state.heartbeats.live().await.unwrap();
        live.iter().any(|beat| beat.position == world.table.position() && !beat.stale)
    })
    .await;
    first.kill9().unwrap();
    redis.kill9().unwrap();
    std::fs::copy(&older, &file).unwrap();

    let second = program(&redis.url(), &file);
    let mut client = client(&second).await;
    let answer = within(client.route(call("beta", "payment"))).await.unwrap().into_inner();
    assert!(answer.stale);
    let refused = within(client.route(call("acme", "payment"))).await;
    assert_eq!(told(refused).reason, Reason::TenantMoving);

    redis.restart_empty().await.unwrap();
    eventually("the store is reached again", async || world.state.feed.head().await.is_ok()).await;
    world.lead_again().await;
    world.rebuild().await;
    world.publish(vec![lift("acme", "payment"), pin("acme", "payment", "v2.0")]).await;
    eventually("the flip arrives", async || {
        let answer = client.clone().route(call("acme", "payment")).await;
        answer.is_ok_and(|answer| answer.into_inner().version == "v2.0")
    })
    .await;
    assert!(second.terminate(DEADLINE + Duration::from_secs(1)).await.unwrap().success());
}
