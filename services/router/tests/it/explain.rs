//! Why a call is decided as it is, now and before.

use grey_core::error::Reason;
use grey_core::policy::Policy;
use grey_proto::router::{ExplainRequest, Explanation, RouteRequest, route_outcome::Outcome};

use crate::world::{Router, World, call, pin, put_policy, told, within};

async fn explain(router: &Router, call: RouteRequest, revision: u64) -> Result<Explanation, tonic::Status> {
    let request = ExplainRequest { call: Some(call), revision };
    Ok(within(router.client.clone().explain(request)).await?.into_inner().explanation.unwrap())
}

fn decided(explanation: &Explanation) -> (u64, String) {
    match explanation.outcome.clone().unwrap().outcome.unwrap() {
        Outcome::Decision(decision) => (explanation.revision, decision.version),
        Outcome::Error(error) => (explanation.revision, error.reason),
    }
}

#[tokio::test]
async fn past_revision_explains_what_was_decided_then() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let revision = world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    router.reached(revision).await;
    let now = explain(&router, call("acme", "payment"), 0).await.unwrap();
    assert_eq!(decided(&now), (2, "v2.0".to_owned()));
    let then = explain(&router, call("acme", "payment"), 1).await.unwrap();
    assert_eq!(decided(&then), (1, "v1.0".to_owned()));
    assert_eq!(then.epoch, 1);
    let steps: Vec<_> = then.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["tenant", "base", "schema", "instances"]);
    router.stop().await;
}

#[tokio::test]
async fn revision_out_of_reach_points_to_the_control_plane() {
    let mut world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.feed.history = 1).await;
    router.follows(&world).await;
    for to in ["v2.0", "v1.0", "v2.0"] {
        let revision = world.publish(vec![pin("acme", "payment", to)]).await;
        router.reached(revision).await;
    }
    for revision in [1, 99] {
        let error = told(explain(&router, call("acme", "payment"), revision).await);
        assert_eq!(error.reason, Reason::RevisionUnavailable);
        assert!(error.message.contains("ExplainAt"), "{}", error.message);
    }
    assert_eq!(decided(&explain(&router, call("acme", "payment"), 3).await.unwrap()).0, 3);
    router.stop().await;
}

#[tokio::test]
async fn history_of_another_epoch_explains_nothing() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    for to in ["v2.0", "v1.0", "v2.0"] {
        world.publish(vec![pin("acme", "payment", to)]).await;
        router.follows(&world).await;
    }
    let mut restored = World::on(world.state.clone(), 2).await.with_payment().await;
    restored.publish(vec![pin("acme", "payment", "v1.0")]).await;
    router.follows(&restored).await;
    for revision in [3, 4] {
        let error = told(explain(&router, call("acme", "payment"), revision).await);
        assert_eq!((error.reason, error.get("epoch")), (Reason::RevisionUnavailable, Some("2")));
    }
    let then = explain(&router, call("acme", "payment"), 2).await.unwrap();
    assert_eq!((then.epoch, decided(&then)), (2, (2, "v1.0".to_owned())));
    router.stop().await;
}

#[tokio::test]
async fn refusal_is_explained_with_its_steps() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let explained = explain(&router, call("nobody", "payment"), 0).await.unwrap();
    assert_eq!(decided(&explained).1, "UNKNOWN_TENANT");
    assert_eq!(explained.steps[0].outcome, "not known");
    router.stop().await;
}

#[tokio::test]
async fn explaining_takes_nobodys_turn() {
    let mut world = World::memory().await.with_payment().await;
    world.publish(vec![put_policy("payment", Policy::default())]).await;
    let router = world.start().await;
    router.follows(&world).await;
    let mut served = Vec::new();
    for _ in 0..4 {
        explain(&router, call("acme", "payment"), 0).await.unwrap();
        served.push(router.route(call("acme", "payment")).await.unwrap().instance.unwrap().id);
    }
    assert_ne!(served[0], served[1], "two instances in turn, whatever was explained in between");
    assert_eq!(served[..2], served[2..]);
    router.stop().await;
}
