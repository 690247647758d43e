//! Outcomes of calls move later decisions.

use std::time::Duration;

use grey_core::error::Reason;
use grey_core::ids::InstanceId;
use grey_core::policy::{Balancing, Policy, Strategy};
use grey_proto::router::{CallOutcome, ReportRequest};
use grey_runtime::access::{Token, TokenHash};
use tonic::{Code, Request};

use crate::world::{Router, World, call, put_policy, told, version, within};

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
        ..CallOutcome::default()
    }
}

/// Latency in microseconds and share of successes, as the router has them of an instance of v1.
fn figures(router: &Router, instance: &str) -> (f32, f32) {
    let table = router.tables.load();
    let service = table.service("payment").unwrap();
    let slot = &service.versions()[service.slot(&version("v1")).unwrap()];
    let load = &slot.pool.member(&InstanceId::new(instance).unwrap()).unwrap().load;
    // At the time of the last report.
    (load.latency_us(0), load.success())
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() < 0.001
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

#[tokio::test]
async fn one_absurd_latency_weighs_little_and_many_no_more_than_a_call_may_take() {
    let (_world, router) = started(Strategy::PeakEwma).await;
    let usual = vec![outcome("a1", true, 5), outcome("b1", true, 5)];
    report(&router, usual).await;
    let endless = Some(pbjson_types::Duration { seconds: 999_999_999, nanos: 0 });
    let absurd = CallOutcome { latency: endless, ..outcome("a1", true, 0) };
    report(&router, vec![absurd.clone()]).await;
    let one = figures(&router, "a1").0;
    assert!((5_000.0..=64.0 * 5_000.0).contains(&one), "{one}");
    report(&router, vec![absurd; 1_000]).await;
    let many = figures(&router, "a1").0;
    assert!((1_000_000.0..=30_000_000.0).contains(&many), "{many}");
    router.stop().await;
}

#[tokio::test]
async fn sum_counts_as_its_calls_within_bounds() {
    let (_world, router) = started(Strategy::HealthAware).await;
    let sum = |instance, count| CallOutcome { count, ..outcome(instance, false, 1) };
    assert_eq!(report(&router, vec![sum("a1", 10)]).await, 1);
    report(&router, vec![sum("b1", 0); 10]).await;
    let (a, b) = (figures(&router, "a1").1, figures(&router, "b1").1);
    assert!(close(a, b) && close(a, 0.95f32.powi(10)), "0 reads as 1: {a} {b}");
    let metrics = router.get("/metrics").await.1;
    assert!(metrics.contains(r#"result="failure"} 20"#), "{metrics}");
    // A message weighs as much as 64 calls at most, however many sums of whatever size are in it.
    let well = |count| CallOutcome { count, ..outcome("a1", true, 1) };
    report(&router, vec![well(u32::MAX); 100]).await;
    let share = figures(&router, "a1").1;
    assert!(close(share, 1.0 - (1.0 - a) * 0.95f32.powi(64)), "{share}");
    let metrics = router.get("/metrics").await.1;
    assert!(metrics.contains(r#"result="success"} 100000000"#), "a million each: {metrics}");
    router.stop().await;
}

#[tokio::test]
async fn code_tells_whose_fault_a_failure_was() {
    let (_world, router) = started(Strategy::HealthAware).await;
    let ended = |code: Code| CallOutcome { code: code.into(), ..outcome("a1", false, 1) };
    let of_callers = [Code::InvalidArgument, Code::NotFound, Code::PermissionDenied, Code::Cancelled];
    report(&router, of_callers.map(ended).to_vec()).await;
    assert!(close(figures(&router, "a1").1, 1.0));
    let of_instances = [Code::Unavailable, Code::Internal, Code::DeadlineExceeded, Code::Ok];
    report(&router, of_instances.map(ended).to_vec()).await;
    assert!(close(figures(&router, "a1").1, 0.95f32.powi(4)), "a failure without its code is the instance's");
    let metrics = router.get("/metrics").await.1;
    assert!(metrics.contains(r#"result="refused"} 4"#), "{metrics}");
    router.stop().await;
}

#[tokio::test]
async fn rule_and_code_are_those_that_exist() {
    let (_world, router) = started(Strategy::HealthAware).await;
    for rule in ["", "canary-1", "exp-1/arm-b"] {
        let told = CallOutcome { rule: rule.into(), ..outcome("a1", true, 1) };
        assert_eq!(report(&router, vec![told]).await, 1, "{rule}");
    }
    let long = "x".repeat(200);
    let refused = |field: &'static str, told: CallOutcome| (field, told);
    for (field, outcome) in [
        refused("rule", CallOutcome { rule: "a/b/c".into(), ..outcome("a1", true, 1) }),
        refused("rule", CallOutcome { rule: "/b".into(), ..outcome("a1", true, 1) }),
        refused("rule", CallOutcome { rule: long, ..outcome("a1", true, 1) }),
        refused("code", CallOutcome { code: 17, ..outcome("a1", false, 1) }),
        refused("code", CallOutcome { code: -1, ..outcome("a1", false, 1) }),
    ] {
        let answer = within(router.client.clone().report(ReportRequest { outcomes: vec![outcome] })).await;
        let error = told(answer);
        let field = format!("outcomes[0].{field}");
        assert_eq!((error.reason, error.get("field")), (Reason::InvalidArgument, Some(field.as_str())));
    }
    router.stop().await;
}

/// A router that knows callers of these roles, each with a token of its own name.
async fn with_callers(
    world: &World,
    callers: &[(&str, &str)],
    adjust: impl FnOnce(&mut grey_router::Config),
) -> Router {
    let token = |(name, role): &(&str, &str)| Token {
        name: (*name).to_owned(),
        role: (*role).to_owned(),
        sha256: TokenHash::of(name),
    };
    let router = Router::start(world.state.clone(), |c| {
        c.access.tokens = callers.iter().map(token).collect();
        adjust(c);
    })
    .await;
    router.follows(world).await;
    router
}

async fn report_as(router: &Router, who: Option<&str>, outcomes: Vec<CallOutcome>) -> Result<u32, Reason> {
    let mut request = Request::new(ReportRequest { outcomes });
    if let Some(who) = who {
        request.metadata_mut().insert("authorization", format!("Bearer {who}").parse().unwrap());
    }
    let answer = within(router.client.clone().report(request)).await;
    answer.map(|answer| answer.into_inner().counted).map_err(|status| told(Err::<(), _>(status)).reason)
}

#[tokio::test]
async fn only_roles_that_move_traffic_may_report() {
    let world = World::memory().await.with_payment().await;
    let callers = [
        ("g", "gateway"),
        ("s", "service"),
        ("o", "operator"),
        ("a", "admin"),
        ("v", "viewer"),
        ("t", "tester"),
    ];
    let router = with_callers(&world, &callers, |c| c.access.allow_anonymous = Some(true)).await;
    let failed = || vec![outcome("a1", false, 1)];
    for who in ["g", "s", "o", "a"] {
        assert_eq!(report_as(&router, Some(who), failed()).await, Ok(1), "{who}");
    }
    let before = figures(&router, "a1");
    for who in [Some("v"), Some("t"), None] {
        assert_eq!(report_as(&router, who, failed()).await, Err(Reason::Denied), "{who:?}");
        let mut post = reqwest::Client::new().post(format!("http://{}/api/grey-router/report", router.http));
        if let Some(who) = who {
            post = post.bearer_auth(who);
        }
        let answer = within(post.header("content-type", "application/json").body("{}").send()).await.unwrap();
        assert_eq!(answer.status(), 403, "{who:?}");
    }
    assert_eq!(figures(&router, "a1"), before);
    router.stop().await;

    let router = with_callers(&world, &callers, |c| c.report.roles = vec!["tester".to_owned()]).await;
    assert_eq!(report_as(&router, Some("t"), failed()).await, Ok(1));
    assert_eq!(report_as(&router, Some("g"), failed()).await, Err(Reason::Denied));
    router.stop().await;
}

#[tokio::test]
async fn one_reporter_of_several_does_not_outweigh_the_others() {
    let world = World::memory().await.with_payment().await;
    let callers = [("one", "gateway"), ("two", "gateway"), ("three", "gateway")];
    let router = with_callers(&world, &callers, |c| c.report.longest_call = Duration::from_secs(10)).await;
    for _ in 0..20 {
        for who in ["one", "two"] {
            report_as(&router, Some(who), vec![outcome("a1", true, 10); 5]).await.unwrap();
        }
        let absurd = CallOutcome { count: u32::MAX, ..outcome("a1", false, 999) };
        report_as(&router, Some("three"), vec![absurd; 1_000]).await.unwrap();
    }
    let (latency, success) = figures(&router, "a1");
    assert!(success > 0.6, "a third of the voices: {success}");
    assert!(latency < 100_000.0, "{latency}");
    router.stop().await;
}
