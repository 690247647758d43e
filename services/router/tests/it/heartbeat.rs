//! What the fleet hears of a router.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use grey_core::change::FormatLevel;
use grey_proto::router::IdentifyRequest;
use grey_state::heartbeats::{Goodbye, Heartbeat};
use grey_state::{Error, Heartbeats, State};

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
            live(&world.state).await.iter().any(|beat| beat.position == world.table.position())
        })
        .await;
    }
    let beats = live(&world.state).await;
    assert_eq!(beats.len(), 1);
    let beat = &beats[0];
    assert_eq!((beat.router.as_str(), beat.address.as_str()), ("r1", "router.test:7400"));
    assert_eq!((beat.region.as_str(), beat.digest), ("eu", world.table.digest()));
    assert_eq!(beat.level, FormatLevel::CURRENT, "what it obeys");
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
    let beat = live(&world.state).await.remove(0);
    assert!(beat.router.starts_with("router-") && beat.run > 0, "made up: {beat:?}");
    let goodbye = Goodbye { router: beat.router, run: beat.run };
    world.state.heartbeats.leave(&goodbye).await.unwrap();
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

/// Heartbeats that do not arrive until they are let through.
struct Cut {
    cut: AtomicBool,
    heartbeats: Arc<dyn Heartbeats>,
}

#[tonic::async_trait]
impl Heartbeats for Cut {
    async fn beat(&self, heartbeat: &Heartbeat) -> Result<(), Error> {
        match self.cut.load(Relaxed) {
            true => Err(Error::Timeout { attempted: "announce the router", deadline: Duration::ZERO }),
            false => self.heartbeats.beat(heartbeat).await,
        }
    }

    async fn leave(&self, goodbye: &Goodbye) -> Result<(), Error> {
        self.heartbeats.leave(goodbye).await
    }

    async fn live(&self) -> Result<Vec<Heartbeat>, Error> {
        self.heartbeats.live().await
    }

    async fn left(&self) -> Result<Vec<Goodbye>, Error> {
        self.heartbeats.left().await
    }
}

#[tokio::test]
async fn a_router_that_nobody_knows_of_is_not_ready() {
    let mut world = World::memory().await.with_payment().await;
    let cut = Arc::new(Cut { cut: AtomicBool::new(true), heartbeats: Arc::clone(&world.state.heartbeats) });
    world.state.heartbeats = Arc::clone(&cut) as Arc<dyn Heartbeats>;
    let router = Router::start_unready(world.state.clone(), |c| {
        c.heartbeat.interval = Duration::from_millis(5);
    })
    .await;
    router.reached(world.table.position().revision).await;
    eventually("it says what it lacks", async || {
        let (code, body) = router.get("/health/ready").await;
        code == 503 && body.contains("not announced")
    })
    .await;
    cut.cut.store(false, Relaxed);
    router.ready().await;
    router.stop().await;
}

#[tokio::test]
async fn a_router_says_who_it_is_and_how_far() {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.router.id = "r1".into()).await;
    router.follows(&world).await;
    let told = router.client.clone().identify(IdentifyRequest {}).await.unwrap().into_inner();
    let position = world.table.position();
    assert_eq!((told.id.as_str(), told.epoch, told.revision), ("r1", position.epoch.0, position.revision.0));
    assert!(told.current);
    router.stop().await;
    let left = world.state.heartbeats.left().await.unwrap();
    assert_eq!(left.iter().map(|goodbye| goodbye.router.as_str()).collect::<Vec<_>>(), ["r1"]);
}
