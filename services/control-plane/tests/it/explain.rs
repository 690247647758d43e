//! Why a call is, or was, decided as it is.

use grey_core::error::Reason;
use grey_core::ids::{InstanceId, ServiceId};
use grey_core::instance::Instance;
use grey_core::version::Version;
use grey_proto::control::ExplainAtRequest;
use grey_proto::router::route_outcome::Outcome;
use grey_proto::router::{DecisionReason, Explanation, RouteRequest};
use grey_proto::status::from_status;
use grey_state::FencingToken;
use grey_state::instances::ServiceInstances;
use sea_orm::ConnectionTrait;

use crate::fixture::{Plane, on_both, reason};

on_both! {
    every_revision_explains_itself
    what_is_not_in_the_log_is_not_explained
    only_events_of_the_tenant_and_the_service_are_read
    an_event_of_theirs_that_is_gone_is_not_left_out
}

pub(crate) fn instance(id: &str, version: &str) -> Instance {
    Instance {
        id: InstanceId::new(id).unwrap(),
        version: Version::new(version).unwrap(),
        address: "10.0.0.1:80".into(),
        region: None,
        zone: None,
        weight: 100,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: None,
        metadata: Default::default(),
    }
}

async fn explain(plane: &Plane, revision: u64) -> Result<Explanation, tonic::Status> {
    let call = RouteRequest { tenant: "acme".into(), service: "payment".into(), ..RouteRequest::default() };
    let request = ExplainAtRequest { call: Some(call), revision };
    Ok(plane.history().explain_at(request).await?.into_inner().explanation.unwrap())
}

fn version(explanation: &Explanation) -> Result<(String, DecisionReason), String> {
    match explanation.outcome.as_ref().unwrap().outcome.as_ref().unwrap() {
        Outcome::Decision(decision) => Ok((decision.version.clone(), decision.reason())),
        Outcome::Error(error) => Err(error.reason.clone()),
    }
}

pub(crate) async fn run_instances(plane: &Plane) {
    let service = ServiceId::new("payment").unwrap();
    let instances = vec![instance("a", "1.0"), instance("b", "1.5")];
    plane.state.instances.replace(FencingToken(1), &ServiceInstances { service, instances }).await.unwrap();
}

async fn every_revision_explains_itself(plane: Plane) {
    run_instances(&plane).await;
    let known = plane.acme().await;
    plane.put_version("payment", "1.5", None).await;
    let pinned = plane.put_pin("acme", "payment", "1.5").await.unwrap();
    plane.put_tenant("beta").await;
    let removed = plane
        .pins()
        .delete_pin(grey_proto::control::DeletePinRequest {
            tenant: "acme".into(),
            service: "payment".into(),
            write: None,
        })
        .await
        .unwrap()
        .into_inner()
        .result
        .unwrap()
        .revision;

    let by_default = Ok(("v1.0".to_owned(), DecisionReason::Default));
    let by_pin = Ok(("v1.5".to_owned(), DecisionReason::Pin));
    for (revision, expected) in [
        (1, Err("UNKNOWN_TENANT".to_owned())),
        (known, by_default.clone()),
        (pinned, by_pin.clone()),
        (pinned + 1, by_pin),
        (removed, by_default.clone()),
        (0, by_default),
    ] {
        let explanation = explain(&plane, revision).await.unwrap();
        assert_eq!(version(&explanation), expected, "revision {revision}: {explanation:?}");
        assert_eq!(explanation.revision, if revision == 0 { removed } else { revision });
        assert!(!explanation.steps.is_empty());
    }
}

async fn what_is_not_in_the_log_is_not_explained(plane: Plane) {
    plane.acme().await;
    assert_eq!(reason(explain(&plane, 99).await), Reason::RevisionUnavailable);
    let request = ExplainAtRequest { call: None, revision: 0 };
    assert_eq!(reason(plane.history().explain_at(request).await), Reason::InvalidArgument);
}

async fn execute(plane: &Plane, sql: &str) {
    let database = sea_orm::Database::connect(&plane.store.url).await.unwrap();
    database.execute_unprepared(sql).await.unwrap();
}

/// A history in which every third event is about acme and payment; tells the revisions of those that are not.
async fn shared_history(plane: &Plane) -> Vec<u64> {
    run_instances(plane).await;
    plane.acme().await;
    let mut others = vec![plane.put_service("users", "1.0").await, plane.put_tenant("beta").await];
    // More than are read at once.
    for round in 0..210 {
        let version = ["1.0", "1.5"][round % 2];
        if round == 0 {
            plane.put_version("payment", "1.5", None).await;
        }
        plane.put_pin("acme", "payment", version).await.unwrap();
        others.push(plane.put_pin("beta", "payment", version).await.unwrap());
    }
    others
}

async fn only_events_of_the_tenant_and_the_service_are_read(plane: Plane) {
    let others = shared_history(&plane).await;
    let head = plane.revision().await;
    let asked = [3, 4, 7, 8, 150, head - 3, head - 2, head - 1];
    let mut before = Vec::new();
    for revision in asked {
        before.push(explain(&plane, revision).await.unwrap());
    }
    // Whoever reads one of them fails.
    let others: Vec<String> = others.iter().map(u64::to_string).collect();
    execute(
        &plane,
        &format!("UPDATE events SET body = substr(body, 1, 5) WHERE revision IN ({})", others.join(",")),
    )
    .await;
    for (revision, expected) in asked.into_iter().zip(before) {
        let explanation = explain(&plane, revision).await.unwrap();
        assert_eq!(explanation.revision, revision);
        assert_eq!(explanation, expected, "revision {revision}");
    }
    let (odd, even) = (version_at(&plane, head - 1).await, version_at(&plane, head - 3).await);
    assert_eq!((odd.as_str(), even.as_str()), ("v1.5", "v1.0"), "the last pins of acme");
}

async fn version_at(plane: &Plane, revision: u64) -> String {
    version(&explain(plane, revision).await.unwrap()).map_or_else(|reason| reason, |(version, _)| version)
}

async fn an_event_of_theirs_that_is_gone_is_not_left_out(plane: Plane) {
    plane.acme().await;
    plane.put_version("payment", "1.5", None).await;
    let pinned = plane.put_pin("acme", "payment", "1.5").await.unwrap();
    plane.put_tenant("beta").await;
    execute(&plane, &format!("DELETE FROM events WHERE revision = {pinned}")).await;
    assert!(explain(&plane, pinned - 1).await.is_ok());
    let refused = from_status(&explain(&plane, pinned).await.unwrap_err());
    assert_eq!(refused.reason, Reason::RevisionUnavailable);
    assert!(refused.message.contains(&format!("event {pinned}")), "{refused}");
}
