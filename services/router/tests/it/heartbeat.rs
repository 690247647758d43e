//! What the fleet hears of a router.

use std::time::Duration;

use grey_state::State;
use grey_state::heartbeats::Heartbeat;

use crate::world::{Router, World, eventually, pin};

async fn live(state: &State) -> Vec<Heartbeat> {
    state.heartbeats.live().await.unwrap()
}

#[tokio::test]
async fn each_applied_revision_is_announced_at_once() {
    let mut world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| {
        c.router.id = "r1".into();
        c.router.region = "eu".into();
        c.router.advertise = "router.test:7400".into();
        // Nothing but the change itself can bring it in time.
        c.heartbeat.interval = Duration::from_secs(3_600);
        c.heartbeat.ttl = Duration::from_secs(7_200);
    })
    .await;
    router.follows(&world).await;
    for to in ["v2.0", "v1.0", "v2.0"] {
        world.publish(vec![pin("acme", "payment", to)]).await;
        eventually("the heartbeat tells the revision", async || {
            live(&world.state).await.iter().any(|beat| beat.position == *world.table.position())
        })
        .await;
    }
    let beats = live(&world.state).await;
    assert_eq!(beats.len(), 1);
    let beat = &beats[0];
    assert_eq!((beat.router.as_str(), beat.address.as_str()), ("r1", "router.test:7400"));
    assert_eq!((beat.region.as_str(), beat.digest), ("eu", world.table.digest()));
    router.stop().await;
    assert_eq!(live(&world.state).await, [], "a draining router leaves at once");
}

#[tokio::test]
async fn silent_interval_is_bridged_by_heartbeats() {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| {
        c.heartbeat.interval = Duration::from_millis(20);
        c.heartbeat.ttl = Duration::from_secs(60);
    })
    .await;
    eventually("the router is announced", async || live(&world.state).await.len() == 1).await;
    let id = live(&world.state).await[0].router.clone();
    assert!(id.starts_with("router-"), "made up: {id}");
    world.state.heartbeats.leave(&id).await.unwrap();
    eventually("it announces itself again", async || live(&world.state).await.len() == 1).await;
    router.stop().await;
}

#[tokio::test]
async fn router_without_a_table_is_not_waited_for() {
    let state = State::memory();
    let router = Router::start_unready(state.clone(), |c| {
        c.heartbeat.interval = Duration::from_millis(5);
    })
    .await;
    // Several intervals of the heartbeat go by while HTTP answers.
    for _ in 0..20 {
        assert_eq!(router.get("/health/ready").await.0, 503);
        assert_eq!(live(&state).await, []);
    }
    router.stop().await;
}
