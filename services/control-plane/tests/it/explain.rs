//! Why a call is, or was, decided as it is.

use grey_core::error::Reason;
use grey_core::ids::{InstanceId, ServiceId};
use grey_core::instance::Instance;
use grey_core::version::Version;
use grey_proto::control::ExplainAtRequest;
use grey_proto::router::route_outcome::Outcome;
use grey_proto::router::{DecisionReason, Explanation, RouteRequest};
use grey_state::FencingToken;
use grey_state::instances::ServiceInstances;

use crate::fixture::{Plane, on_both, reason};

on_both! {
    every_revision_explains_itself
    what_is_not_in_the_log_is_not_explained
}

fn instance(id: &str, version: &str) -> Instance {
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

async fn every_revision_explains_itself(plane: Plane) {
    let service = ServiceId::new("payment").unwrap();
    let instances = vec![instance("a", "1.0"), instance("b", "1.5")];
    plane.state.instances.replace(FencingToken(1), &ServiceInstances { service, instances }).await.unwrap();
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
