//! On a real Redis, which goes away in every way it can.

use grey_state::State;
use grey_state::redis::Options;
use grey_testkit::{Proxy, Redis};

use crate::world::{Router, World, call, eventually, pin};

async fn state(url: String) -> State {
    State::redis(&Options { urls: vec![url], ..Options::default() }).await.unwrap()
}

fn fast(config: &mut grey_router::Config) {
    config.feed.wait = std::time::Duration::from_millis(50);
}

#[tokio::test]
async fn router_starts_from_the_projection_and_follows_the_feed() {
    let redis = Redis::start().await.unwrap();
    let mut world = World::on(state(redis.url()).await, "one").await.with_payment().await;
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
        live.len() == 1 && live[0].position == *world.table.position()
    })
    .await;
    router.stop().await;
    assert!(world.state.heartbeats.live().await.unwrap().is_empty());
}

#[tokio::test]
async fn cut_link_keeps_serving_and_catches_up() {
    let redis = Redis::start().await.unwrap();
    let link = Proxy::start(redis.addr()).await.unwrap();
    let mut world = World::on(state(redis.url()).await, "one").await.with_payment().await;
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
    let mut world = World::on(state(redis.url()).await, "one").await.with_payment().await;
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
