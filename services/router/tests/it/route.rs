//! One call, and several at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use grey_core::change::Change;
use grey_core::error::Reason;
use grey_core::ids::{Name, OverlayId};
use grey_core::key::Fact;
use grey_core::policy::{
    Buckets, Canary, Match, Overlay, OverlayKind, Policy, Unit, UnknownTenant, WEIGHT_SCALE,
};
use grey_proto::router::{
    DecisionReason, ExplainRequest, RouteBatchRequest, RouteOutcome, RouteRequest, route_outcome::Outcome,
};
use grey_runtime::access::{Token, TokenHash};
use grey_state::State;
use tonic::Request;

use crate::world::{
    DEADLINE, Router, World, call, pin, put_policy, put_service, put_version, service, told, version, within,
};

#[tokio::test]
async fn pinned_tenant_gets_its_version_and_the_others_the_default() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let beta = router.route(call("beta", "payment")).await.unwrap();
    assert_eq!((beta.version.as_str(), beta.reason()), ("v2.0", DecisionReason::Pin));
    assert_eq!((beta.revision, beta.epoch, beta.stale), (1, 1, false));
    let instance = beta.instance.unwrap();
    assert_eq!(instance.address, format!("{}.test:80", instance.id));
    assert_eq!(instance.metadata.get("id"), Some(&instance.id));
    let acme = router.route(call("acme", "payment")).await.unwrap();
    assert_eq!((acme.version.as_str(), acme.reason()), ("v1.0", DecisionReason::Default));
    router.stop().await;
}

#[tokio::test]
async fn change_takes_effect_without_a_restart() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    assert_eq!(router.version("acme", "payment").await, "v1.0");
    let revision = world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    router.reached(revision).await;
    assert_eq!(router.version("acme", "payment").await, "v2.0");
    router.stop().await;
}

#[tokio::test]
async fn min_revision_waits_for_the_write() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let request = RouteRequest { min_revision: 2, ..call("acme", "payment") };
    let asked = {
        let mut client = router.client.clone();
        tokio::spawn(async move { client.route(request).await })
    };
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    let answer = within(asked).await.unwrap().unwrap().into_inner();
    assert_eq!((answer.version.as_str(), answer.revision), ("v2.0", 2));
    router.stop().await;
}

#[tokio::test]
async fn min_revision_that_never_comes_is_stale() {
    let world = World::memory().await.with_payment().await;
    let adjust =
        |c: &mut grey_router::Config| c.limits.min_revision_wait = std::time::Duration::from_millis(20);
    let router = Router::start(world.state.clone(), adjust).await;
    router.follows(&world).await;
    let ahead = RouteRequest { min_revision: u64::MAX, ..call("acme", "payment") };
    let error = told(router.route(ahead.clone()).await);
    assert_eq!((error.reason, error.get("revision")), (Reason::Stale, Some("1")));
    let calls = vec![call("acme", "payment"), ahead];
    let batch = router.client.clone().route_batch(RouteBatchRequest { calls }).await.unwrap().into_inner();
    let outcomes: Vec<_> = batch.outcomes.into_iter().map(|o| o.outcome.unwrap()).collect();
    assert!(matches!(&outcomes[0], Outcome::Decision(_)));
    assert!(matches!(&outcomes[1], Outcome::Error(error) if error.reason == "STALE"));
    router.stop().await;
}

/// A call that asks for at least this position.
fn at_least(epoch: u64, revision: u64) -> RouteRequest {
    RouteRequest { min_epoch: epoch, min_revision: revision, ..call("acme", "payment") }
}

#[tokio::test]
async fn minimum_of_another_epoch_is_judged_by_the_epoch_first() {
    let world = World::on(State::memory(), 5).await.with_payment().await;
    let adjust =
        |c: &mut grey_router::Config| c.limits.min_revision_wait = std::time::Duration::from_millis(20);
    let router = Router::start(world.state.clone(), adjust).await;
    router.follows(&world).await;
    let contained = [at_least(0, 0), at_least(0, 1), at_least(4, u64::MAX), at_least(5, 0), at_least(5, 1)];
    let ahead = [at_least(0, 2), at_least(5, 2), at_least(6, 0), at_least(6, 1)];
    let calls: Vec<_> = contained.iter().chain(&ahead).cloned().collect();
    let batch = router.client.clone().route_batch(RouteBatchRequest { calls: calls.clone() }).await.unwrap();
    let batch = batch.into_inner().outcomes;
    for (number, (call, in_batch)) in calls.into_iter().zip(batch).enumerate() {
        let explained = ExplainRequest { call: Some(call.clone()), revision: 0 };
        let explained = within(router.client.clone().explain(explained)).await;
        let routed = router.route(call.clone()).await;
        if number < contained.len() {
            assert_eq!(routed.unwrap().epoch, 5, "{call:?}");
            assert_eq!(explained.unwrap().into_inner().explanation.unwrap().epoch, 5, "{call:?}");
            assert!(matches!(in_batch.outcome, Some(Outcome::Decision(_))), "{call:?}: {in_batch:?}");
        } else {
            let error = told(routed);
            assert_eq!((error.reason, error.get("revision")), (Reason::Stale, Some("1")), "{call:?}");
            assert_eq!(error.get("epoch"), Some("5"));
            assert_eq!(told(explained).reason, Reason::Stale, "{call:?}");
            let RouteOutcome { outcome: Some(Outcome::Error(error)) } = in_batch else {
                panic!("{call:?}: {in_batch:?}");
            };
            assert_eq!(error.reason, "STALE");
        }
    }
    router.stop().await;
}

#[tokio::test]
async fn minimum_of_a_later_epoch_waits_for_it() {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.limits.min_revision_wait = DEADLINE).await;
    router.follows(&world).await;
    let ask = |calls: Vec<RouteRequest>| {
        let mut client = router.client.clone();
        tokio::spawn(async move { client.route_batch(RouteBatchRequest { calls }).await })
    };
    let asked = ask(vec![at_least(0, 1), at_least(2, 1), at_least(1, 7)]);
    let second = World::on(world.state.clone(), 2).await.with_payment().await;
    router.follows(&second).await;
    for outcome in within(asked).await.unwrap().unwrap().into_inner().outcomes {
        let Some(Outcome::Decision(decision)) = outcome.outcome else { panic!("decided: {outcome:?}") };
        assert_eq!((decision.epoch, decision.revision), (2, 1));
    }
    router.stop().await;
}

#[tokio::test]
async fn batch_is_decided_at_one_revision_while_changes_run() {
    let mut world = World::memory().await.with_payment().await;
    world
        .publish(vec![
            put_service("ledger", "v1.0"),
            put_version("ledger", "v1.0"),
            put_version("ledger", "v2.0"),
        ])
        .await;
    world.run("ledger", &[("l1", "v1.0"), ("l2", "v2.0")]).await;
    let router = world.start().await;
    router.follows(&world).await;
    let done = Arc::new(AtomicBool::new(false));
    let asking = {
        let (mut client, done) = (router.client.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut revisions = BTreeSet::new();
            while !done.load(Relaxed) {
                let calls: Vec<_> =
                    (0..100).flat_map(|_| [call("acme", "payment"), call("acme", "ledger")]).collect();
                let batch = client.route_batch(RouteBatchRequest { calls }).await.unwrap().into_inner();
                let mut seen = BTreeSet::new();
                for outcome in batch.outcomes {
                    let Some(Outcome::Decision(decision)) = outcome.outcome else { panic!("decided") };
                    seen.insert((decision.revision, decision.version));
                }
                // Both services change together, so one batch sees one revision and one version.
                assert_eq!(seen.len(), 1, "{seen:?}");
                revisions.extend(seen);
            }
            revisions
        })
    };
    for round in 0..200 {
        let to = if round % 2 == 0 { "v2.0" } else { "v1.0" };
        let revision = world.publish(vec![pin("acme", "payment", to), pin("acme", "ledger", to)]).await;
        router.reached(revision).await;
    }
    done.store(true, Relaxed);
    assert!(within(asking).await.unwrap().len() > 1, "batches saw several revisions");
    router.stop().await;
}

#[tokio::test]
async fn overlay_is_named_in_the_answer() {
    let mut world = World::memory().await.with_payment().await;
    let buckets = Buckets::first(WEIGHT_SCALE).unwrap();
    let overlay = Overlay {
        id: OverlayId::new("try-v2").unwrap(),
        order: 0,
        layer: OverlayId::new("try-v2").unwrap(),
        salt: "s".into(),
        unit: Unit::Tenant,
        matching: Match::default(),
        kind: OverlayKind::Canary(Canary { baseline: version("v1.0"), canary: version("v2.0"), buckets }),
    };
    world.publish(vec![Change::Put(Fact::Overlay(service("payment"), Box::new(overlay)))]).await;
    let router = world.start().await;
    router.follows(&world).await;
    let answer = router.route(call("acme", "payment")).await.unwrap();
    assert_eq!((answer.version.as_str(), answer.reason()), ("v2.0", DecisionReason::Canary));
    assert_eq!(answer.rule, "try-v2");
    router.stop().await;
}

#[tokio::test]
async fn override_needs_a_token_whose_role_the_policy_lists() {
    let mut world = World::memory().await.with_payment().await;
    let roles = [Name::new("tester").unwrap()].into();
    world.publish(vec![put_policy("payment", Policy { override_roles: roles, ..Policy::default() })]).await;
    let token = |name: &str, role: &str| Token {
        name: name.to_owned(),
        role: role.to_owned(),
        sha256: TokenHash::of(name),
    };
    let router = Router::start(world.state.clone(), |c| {
        c.access.tokens = vec![token("one", "tester"), token("two", "gateway")];
    })
    .await;
    router.follows(&world).await;
    let ask = async |token: Option<&str>| {
        let mut request =
            Request::new(RouteRequest { override_version: "v2.0".into(), ..call("acme", "payment") });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        within(router.client.clone().route(request)).await
    };
    assert_eq!(ask(Some("one")).await.unwrap().into_inner().reason(), DecisionReason::Override);
    assert_eq!(ask(Some("two")).await.unwrap().into_inner().version, "v1.0", "ignored for other roles");
    assert_eq!(told(ask(None).await).reason, Reason::Unauthenticated);
    assert_eq!(told(ask(Some("three")).await).reason, Reason::Unauthenticated);
    router.stop().await;
}

#[tokio::test]
async fn unknown_tenant_follows_the_policy() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    assert_eq!(told(router.route(call("nobody", "payment")).await).reason, Reason::UnknownTenant);
    assert_eq!(told(router.route(call("acme", "nothing")).await).reason, Reason::UnknownService);
    let lenient = Policy { unknown_tenant: UnknownTenant::UseDefault, ..Policy::default() };
    let revision = world.publish(vec![put_policy("payment", lenient)]).await;
    router.reached(revision).await;
    let answer = router.route(call("nobody", "payment")).await.unwrap();
    assert_eq!((answer.version.as_str(), answer.reason()), ("v1.0", DecisionReason::UnknownTenant));
    assert_eq!(told(router.route(call("No Body", "payment")).await).reason, Reason::InvalidArgument);
    router.stop().await;
}

#[tokio::test]
async fn call_without_a_place_comes_from_the_routers_own() {
    let mut world = World::memory().await.with_payment().await;
    let placed = |id: &str, region: &str| {
        let region = Some(Name::new(region).unwrap());
        grey_core::instance::Instance { region, ..crate::world::instance(id, "v1.0") }
    };
    world.run_these("payment", vec![placed("here", "eu"), placed("there", "us")]).await;
    let router = Router::start(world.state.clone(), |c| c.router.region = "us".into()).await;
    router.follows(&world).await;
    for _ in 0..4 {
        let answer = router.route(call("acme", "payment")).await.unwrap();
        assert_eq!(answer.instance.unwrap().id, "there");
        let from_eu = RouteRequest { region: "eu".into(), ..call("acme", "payment") };
        assert_eq!(router.route(from_eu).await.unwrap().instance.unwrap().id, "here");
    }
    router.stop().await;
}
