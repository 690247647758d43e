//! Outcomes of calls move later decisions.

use grey_core::policy::{Balancing, Policy, Strategy};
use grey_proto::router::{CallOutcome, ReportRequest};

use crate::world::{Router, World, call, put_policy, within};

async fn report(router: &Router, outcomes: Vec<CallOutcome>) -> u32 {
    within(router.client.clone().report(ReportRequest { outcomes })).await.unwrap().into_inner().counted
}

fn outcome(instance: &str, success: bool, millis: i32) -> CallOutcome {
    CallOutcome {
        tenant: "acme".into(),
        service: "payment".into(),
        version: "1".into(),
        instance: instance.into(),
        success,
        latency: Some(pbjson_types::Duration { seconds: 0, nanos: millis * 1_000_000 }),
    }
}

async fn started(strategy: Strategy) -> (World, Router) {
    let mut world = World::memory().await.with_payment().await;
    let balancing = Balancing { strategy, ..Balancing::default() };
    world.publish(vec![put_policy("payment", Policy { balancing, ..Policy::default() })]).await;
    let router = world.start().await;
    router.follows(&world).await;
    (world, router)
}

async fn share_of(router: &Router, instance: &str, calls: usize) -> usize {
    let mut count = 0;
    for _ in 0..calls {
        let id = router.route(call("acme", "payment")).await.unwrap().instance.unwrap().id;
        count += usize::from(id == instance);
    }
    count
}

#[tokio::test]
async fn slow_instance_is_left_by_peak_ewma() {
    let (_world, router) = started(Strategy::PeakEwma).await;
    assert_eq!(report(&router, vec![outcome("a1", true, 900), outcome("b1", true, 1)]).await, 2);
    assert_eq!(share_of(&router, "b1", 50).await, 50);
    router.stop().await;
}

#[tokio::test]
async fn failing_instance_is_left_by_health() {
    let (_world, router) = started(Strategy::HealthAware).await;
    let outcomes = (0..200).map(|_| outcome("a1", false, 1)).collect();
    assert_eq!(report(&router, outcomes).await, 200);
    assert!(share_of(&router, "b1", 200).await > 150, "a1 keeps a small share to show that it is well again");
    router.stop().await;
}

#[tokio::test]
async fn outcomes_of_what_is_gone_are_not_counted() {
    let (_world, router) = started(Strategy::PeakEwma).await;
    let gone = vec![
        outcome("zz", true, 1),
        CallOutcome { service: "nothing".into(), ..outcome("a1", true, 1) },
        CallOutcome { version: "v9".into(), ..outcome("a1", true, 1) },
        CallOutcome { version: "v2.0".into(), ..outcome("a1", true, 1) },
        outcome("a1", true, 1),
    ];
    assert_eq!(report(&router, gone).await, 1);
    let metrics = router.get("/metrics").await.1;
    let count = |result: &str| {
        metrics.lines().any(|line| line.starts_with("grey_router_reports_total") && line.contains(result))
    };
    assert!(count(r#"result="gone"} 4"#), "{metrics}");
    assert!(count(r#"result="success"} 1"#), "{metrics}");
    router.stop().await;
}
