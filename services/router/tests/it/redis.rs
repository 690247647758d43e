//! On a real Redis, which goes away in every way it can.

use grey_state::State;
use grey_state::redis::Options;
use grey_testkit::{Proxy, Redis};

use crate::world::{Router, World, call, eventually, instance, pin, put_service, put_version, service};

async fn state(url: String) -> State {
    State::redis(&Options { urls: vec![url], ..Options::default() }).await.unwrap()
}

fn fast(config: &mut grey_router::Config) {
    config.feed.wait = std::time::Duration::from_millis(50);
}

#[tokio::test]
async fn router_starts_from_the_projection_and_follows_the_feed() {
    let redis = Redis::start().await.unwrap();
    let mut world = World::on(state(redis.url()).await, 1).await.with_payment().await;
    let router = Router::start(state(redis.url()).await, fast).await;
    router.follows(&world).await;
    assert_eq!(router.version("beta", "payment").await, "v2.0");
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    world.run("payment", &[("c2", "v2.0")]).await;
    router.follows(&world).await;
    let answer = router.route(call("acme", "payment")).await.unwrap();
    assert_eq!((answer.version.as_str(), answer.instance.unwrap().id.as_str()), ("v2.0", "c2"));
    eventually("the heartbeat arrives", async || {
        let live = world.state.heartbeats.live().await.unwrap();
        live.len() == 1 && live[0].position == world.table.position()
    })
    .await;
    router.stop().await;
    assert!(world.state.heartbeats.live().await.unwrap().is_empty());
}

#[tokio::test]
async fn cut_link_keeps_serving_and_catches_up() {
    let redis = Redis::start().await.unwrap();
    let link = Proxy::start(redis.addr()).await.unwrap();
    let mut world = World::on(state(redis.url()).await, 1).await.with_payment().await;
    let router = Router::start(state(format!("redis://{}", link.addr())).await, fast).await;
    router.follows(&world).await;
    link.cut().await.unwrap();
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    for _ in 0..50 {
        assert_eq!(router.version("acme", "payment").await, "v1.0", "the last good table");
    }
    link.heal().await.unwrap();
    router.follows(&world).await;
    assert_eq!(router.version("acme", "payment").await, "v2.0");
    router.stop().await;
}

#[tokio::test]
async fn killed_and_emptied_redis_keeps_serving_and_catches_up() {
    let redis = Redis::start().await.unwrap();
    let mut world = World::on(state(redis.url()).await, 1).await.with_payment().await;
    let router = Router::start(state(redis.url()).await, fast).await;
    router.follows(&world).await;
    redis.kill9().unwrap();
    assert_eq!(router.version("beta", "payment").await, "v2.0");
    redis.restart_empty().await.unwrap();
    eventually("the store is reached again", async || world.state.feed.head().await.is_ok()).await;
    for _ in 0..50 {
        assert_eq!(router.version("beta", "payment").await, "v2.0", "an empty store is no proof of anything");
    }
    world.lead_again().await;
    world.rebuild().await;
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    router.follows(&world).await;
    assert_eq!(router.version("acme", "payment").await, "v2.0");
    router.stop().await;
}

#[tokio::test]
async fn addresses_that_a_restored_redis_no_longer_knows_are_left() {
    let redis = Redis::start().await.unwrap();
    let mut world = World::on(state(redis.url()).await, 1).await.with_payment().await;
    let router = Router::start(state(redis.url()).await, fast).await;
    router.follows(&world).await;
    let dump = redis.save_dump().await.unwrap();
    world.run("payment", &[("dead", "v1.0")]).await;
    router.follows(&world).await;
    redis.restart_from_dump(&dump).await.unwrap();
    eventually("the store is reached again", async || world.state.instances.load().await.is_ok()).await;
    // Another list is announced under the number of the one that was lost.
    world.run("search", &[("s1", "v1.0")]).await;
    world.table.set_instances(
        &service("payment"),
        ["a1", "b1"]
            .map(|id| instance(id, "v1.0"))
            .into_iter()
            .chain(["a2", "b2"].map(|id| instance(id, "v2.0")))
            .collect(),
    );
    router.follows(&world).await;
    router.stop().await;
}

#[tokio::test]
async fn damaged_list_delays_no_cold_start_and_is_told_until_it_is_written_again() {
    let redis = Redis::start().await.unwrap();
    let mut world = World::on(state(redis.url()).await, 1).await.with_payment().await;
    world.publish(vec![put_service("search", "v1.0"), put_version("search", "v1.0")]).await;
    world.run("search", &[("s1", "v1.0")]).await;
    let mut raw = redis.connection().await.unwrap();
    let mut damage = redis::cmd("HSET");
    damage.arg("service:{payment}:version:v1.0:instances").arg("a1").arg("{");
    damage.exec_async(&mut raw).await.unwrap();

    let router = Router::start(state(redis.url()).await, fast).await;
    router.reached(world.table.position().revision).await;
    let answer = router.route(call("acme", "search")).await.unwrap();
    assert_eq!(answer.instance.unwrap().id, "s1");
    let answer = router.route(call("acme", "payment")).await.unwrap();
    assert_eq!(answer.instance.unwrap().id, "b1", "what reads of it serves");
    eventually("it is told", async || {
        let answer = router.route(call("acme", "search")).await.unwrap();
        let (code, body) = router.get("/health/ready").await;
        answer.stale && code == 200 && body.contains("damaged") && body.contains("differ")
    })
    .await;
    assert!(router.get("/metrics").await.1.contains("grey_router_instances_damaged 1"));
    let payment = world.instances("payment");
    world.run_these("payment", payment).await;
    router.follows(&world).await;
    eventually("nothing is told any more", async || {
        let body = router.get("/health/ready").await.1;
        !body.contains("damaged") && !body.contains("stale")
    })
    .await;
    router.stop().await;
}
