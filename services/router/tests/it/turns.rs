//! Fleet-wide turns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use grey_core::error::Reason;
use grey_core::ids::{Name, ServiceId};
use grey_core::instance::Instance;
use grey_core::policy::{Balancing, Policy, Scope};
use grey_core::table::Locality;
use grey_core::version::Version;
use grey_proto::router::route_outcome::Outcome;
use grey_proto::router::{RouteBatchRequest, RouteRequest};
use grey_state::{Error, Turns};
use tokio::sync::Semaphore;

use crate::world::{DEADLINE, Router, World, call, eventually, hold, pin, put_policy, told, within};

const INSTANCES: [(&str, &str); 4] = [("a", "v1.0"), ("b", "v1.0"), ("c", "v1.0"), ("d", "v1.0")];

async fn world() -> World {
    let mut world = World::memory().await.with_payment().await;
    let balancing = Balancing { scope: Scope::Global, ..Balancing::default() };
    world.publish(vec![put_policy("payment", Policy { balancing, ..Policy::default() })]).await;
    world.run("payment", &INSTANCES).await;
    world
}

async fn served(router: &Router, counts: &mut BTreeMap<String, usize>) {
    let id = router.route(call("acme", "payment")).await.unwrap().instance.unwrap().id;
    *counts.entry(id).or_default() += 1;
}

#[tokio::test]
async fn order_is_exact_over_two_routers() {
    let world = world().await;
    let (one, two) = (world.start().await, world.start().await);
    one.follows(&world).await;
    two.follows(&world).await;
    let mut counts = BTreeMap::new();
    // Uneven use of the two: turns of their own would not come out even.
    for _ in 0..25 {
        served(&one, &mut counts).await;
        for _ in 0..2 {
            served(&two, &mut counts).await;
        }
        let calls = vec![call("acme", "payment"); 5];
        let batch = within(one.client.clone().route_batch(RouteBatchRequest { calls })).await.unwrap();
        for outcome in batch.into_inner().outcomes {
            let Some(Outcome::Decision(decision)) = outcome.outcome else { panic!("decided") };
            *counts.entry(decision.instance.unwrap().id).or_default() += 1;
        }
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [50; 4]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn each_zone_has_turns_of_its_own() {
    let mut world = world().await;
    let placed = |(id, zone): (&str, &str)| {
        let (region, zone) = (Some(Name::new("eu").unwrap()), Some(Name::new(zone).unwrap()));
        Instance { region, zone, ..crate::world::instance(id, "v1.0") }
    };
    let four = [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")];
    world.run_these("payment", four.map(placed).to_vec()).await;
    let (one, two) = (world.start().await, world.start().await);
    one.follows(&world).await;
    two.follows(&world).await;
    let mut counts = BTreeMap::new();
    // Callers of both zones take turns, so that every other turn of a common count would be another zone's.
    for _ in 0..50 {
        for (router, zone) in [(&one, "a"), (&two, "b")] {
            let request = RouteRequest { region: "eu".into(), zone: zone.into(), ..call("acme", "payment") };
            let id = router.route(request).await.unwrap().instance.unwrap().id;
            assert!(id.starts_with(zone), "{id} serves {zone}");
            *counts.entry(id).or_insert(0) += 1;
        }
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [25; 4]);
    // Half of the capacity of zone b is gone: it hands calls over to zone a, whose own order stays exact.
    world.run_these("payment", four[..3].iter().copied().map(placed).collect()).await;
    one.follows(&world).await;
    two.follows(&world).await;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        for (router, zone) in [(&one, "a"), (&two, "b")] {
            let request = RouteRequest { region: "eu".into(), zone: zone.into(), ..call("acme", "payment") };
            *counts.entry(router.route(request).await.unwrap().instance.unwrap().id).or_default() += 1;
        }
    }
    assert!(counts["a1"].abs_diff(counts["a2"]) <= 1, "{counts:?}");
    assert!((100..170).contains(&counts["b1"]), "two thirds of its callers' calls: {counts:?}");
    one.stop().await;
    two.stop().await;
}

/// Turns that never come while switched off.
struct Away {
    away: AtomicBool,
    asked: AtomicU64,
    granted: AtomicU64,
    turns: Arc<dyn Turns>,
}

#[tonic::async_trait]
impl Turns for Away {
    async fn next(
        &self,
        service: &ServiceId,
        version: &Version,
        locality: Locality<'_>,
    ) -> Result<u64, Error> {
        self.asked.fetch_add(1, Relaxed);
        if self.away.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        self.granted.fetch_add(1, Relaxed);
        self.turns.next(service, version, locality).await
    }
}

#[tokio::test]
async fn turns_that_do_not_come_are_taken_locally_until_they_do() {
    let mut world = world().await;
    let turns = Arc::clone(&world.state.turns);
    let (asked, granted) = (AtomicU64::new(0), AtomicU64::new(0));
    let away = Arc::new(Away { away: AtomicBool::new(true), asked, granted, turns });
    world.state.turns = Arc::clone(&away) as Arc<dyn Turns>;
    let router = Router::start(world.state.clone(), |c| {
        // Long enough that the first call tells a wait from none, however busy the machine is.
        c.limits.turn_deadline = std::time::Duration::from_millis(200);
    })
    .await;
    router.follows(&world).await;
    let mut counts = BTreeMap::new();
    for _ in 0..100 {
        served(&router, &mut counts).await;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [25; 4], "in local turn");
    assert!(away.asked.load(Relaxed) < 100, "calls do not wait in vain one after the other");
    let metrics = router.get("/metrics").await.1;
    assert!(metrics.contains("grey_router_turn_fallbacks_total"), "{metrics}");

    assert_eq!(away.granted.load(Relaxed), 0);
    away.away.store(false, Relaxed);
    eventually("turns are taken from the fleet again", async || {
        router.route(call("acme", "payment")).await.unwrap();
        away.granted.load(Relaxed) > 0
    })
    .await;
    router.stop().await;
}

/// Turns that come when the test says so.
struct Gate {
    asked: Semaphore,
    granted: Semaphore,
}

#[tonic::async_trait]
impl Turns for Gate {
    async fn next(&self, _: &ServiceId, _: &Version, _: Locality<'_>) -> Result<u64, Error> {
        self.asked.add_permits(1);
        self.granted.acquire().await.unwrap().forget();
        Ok(1)
    }
}

/// A router whose turns wait for the gate, with acme served by v1.0.
async fn gated() -> (World, Arc<Gate>, Router) {
    let mut world = world().await;
    let gate = Arc::new(Gate { asked: Semaphore::new(0), granted: Semaphore::new(0) });
    world.state.turns = Arc::clone(&gate) as Arc<dyn Turns>;
    let router = Router::start(world.state.clone(), |c| c.limits.turn_deadline = DEADLINE).await;
    router.follows(&world).await;
    (world, gate, router)
}

impl Gate {
    /// Returns once `calls` wait for their turns.
    async fn until_asked(&self, calls: u32) {
        within(self.asked.acquire_many(calls)).await.unwrap().forget();
    }
}

/// Returns once the router has told that it has the world's table.
async fn until_acknowledged(world: &World) {
    eventually("the router acknowledges", async || {
        let live = world.state.heartbeats.live().await.unwrap();
        live.iter().any(|beat| beat.position == world.table.position() && !beat.stale)
    })
    .await;
}

#[tokio::test]
async fn a_call_that_waits_for_its_turn_obeys_a_hold_that_was_acknowledged_meanwhile() {
    let (mut world, gate, router) = gated().await;
    let mut client = router.client.clone();
    let waiting = tokio::spawn(async move { client.route(call("acme", "payment")).await });
    gate.until_asked(1).await;
    world.publish(vec![hold("acme", "payment", "v2.0")]).await;
    until_acknowledged(&world).await;
    gate.granted.add_permits(1);
    assert_eq!(told(within(waiting).await.unwrap()).reason, Reason::TenantMoving);
    router.stop().await;
}

#[tokio::test]
async fn a_batch_that_waits_for_its_turns_obeys_a_hold_that_was_acknowledged_meanwhile() {
    let (mut world, gate, router) = gated().await;
    let mut client = router.client.clone();
    let calls = vec![call("acme", "payment"); 2];
    let waiting = tokio::spawn(async move { client.route_batch(RouteBatchRequest { calls }).await });
    // The first has its turn, and is not decided before the last has it too.
    gate.until_asked(1).await;
    gate.granted.add_permits(1);
    gate.until_asked(1).await;
    world.publish(vec![hold("acme", "payment", "v2.0")]).await;
    until_acknowledged(&world).await;
    gate.granted.add_permits(1);
    let batch = within(waiting).await.unwrap().unwrap().into_inner();
    for outcome in batch.outcomes {
        let Some(Outcome::Error(error)) = outcome.outcome else { panic!("refused") };
        assert_eq!(error.reason, Reason::TenantMoving.as_str());
    }
    router.stop().await;
}

#[tokio::test]
async fn a_turn_among_other_instances_than_those_that_serve_by_now_is_not_taken() {
    let (mut world, gate, router) = gated().await;
    world.run("payment", &[("a", "v1.0"), ("b", "v1.0"), ("c", "v2.0"), ("d", "v2.0")]).await;
    router.follows(&world).await;
    let mut client = router.client.clone();
    let waiting = tokio::spawn(async move { client.route(call("acme", "payment")).await });
    gate.until_asked(1).await;
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    until_acknowledged(&world).await;
    gate.granted.add_permits(1);
    let answer = within(waiting).await.unwrap().unwrap().into_inner();
    assert_eq!(answer.version, "v2.0");
    let metrics = router.get("/metrics").await.1;
    let fallback = metrics.lines().find(|line| line.starts_with("grey_router_turn_fallbacks_total"));
    assert!(fallback.is_some_and(|line| line.ends_with(" 1")), "{fallback:?}");
    router.stop().await;
}
