//! Services, versions and policies, and what may not be taken away while it is in use.

use grey_core::error::Reason;
use grey_core::service::{MAX_SERVICES, MAX_VERSIONS};
use grey_proto::control::change::Change;
use grey_proto::control::failover::Rule;
use grey_proto::control::{
    ApplyChangeSetRequest, DeletePinRequest, DeleteServiceRequest, DeleteVersionRequest, Failover,
    GetServiceRequest, ListServicesRequest, Policy, ProposedChange, PutPolicyRequest, PutServiceRequest,
    PutVersionRequest, Service, ServiceVersion, VersionList,
};

use crate::fixture::{Plane, fact, on_both, reason};

on_both! {
    a_new_service_declares_its_default
    the_default_must_be_declared
    a_service_with_pins_stays
    a_version_in_use_stays
    a_policy_names_declared_versions_only
    services_are_listed_by_page
    versions_need_their_service
    a_service_has_a_bounded_number_of_versions
    services_are_bounded_in_number
}

fn get(id: &str) -> GetServiceRequest {
    GetServiceRequest { id: id.into() }
}

fn delete_version(version: &str) -> DeleteVersionRequest {
    DeleteVersionRequest { service: "payment".into(), version: version.into(), write: None }
}

fn fail_over_to(versions: &[&str]) -> Policy {
    let versions = versions.iter().map(|version| (*version).to_owned()).collect();
    let failover = Failover { rule: Some(Rule::ToVersions(VersionList { versions })) };
    Policy { service: "payment".into(), failover: Some(failover), ..Policy::default() }
}

async fn put_policy(plane: &Plane, policy: Policy) -> Result<Policy, tonic::Status> {
    let response = plane
        .catalog()
        .put_policy(PutPolicyRequest { policy: Some(policy), write: None, update_mask: Vec::new() })
        .await?;
    Ok(response.into_inner().policy.unwrap())
}

async fn a_new_service_declares_its_default(plane: Plane) {
    plane.put_service("payment", "1.0").await;
    let read = plane.catalog().get_service(get("payment")).await.unwrap().into_inner();
    let [version] = read.versions.as_slice() else { panic!("{read:?}") };
    assert_eq!((version.version.as_str(), version.schema.as_ref(), version.revision), ("v1.0", None, 1));
    assert_eq!(read.service.unwrap().default_version, "v1.0");
    assert_eq!(plane.events().await.first().unwrap().changes.len(), 2);
}

async fn the_default_must_be_declared(plane: Plane) {
    plane.put_service("payment", "1.0").await;
    let service = Service { id: "payment".into(), default_version: "3.0".into(), revision: 0 };
    let put = || PutServiceRequest { service: Some(service.clone()), write: None };
    assert_eq!(reason(plane.catalog().put_service(put()).await), Reason::UnknownVersion);
    plane.put_version("payment", "3.0", None).await;
    assert!(plane.catalog().put_service(put()).await.is_ok());
}

async fn a_service_with_pins_stays(plane: Plane) {
    plane.acme().await;
    plane.put_tenant("beta").await;
    plane.put_pin("acme", "payment", "1.0").await.unwrap();
    plane.put_pin("beta", "payment", "1.0").await.unwrap();
    let delete = || DeleteServiceRequest { id: "payment".into(), write: None };
    let refused = plane.catalog().delete_service(delete()).await.map(drop);
    assert_eq!(fact(refused.clone(), "pins"), "2");
    assert_eq!(reason(refused), Reason::InUse);
    for tenant in ["acme", "beta"] {
        let request = DeletePinRequest { tenant: tenant.into(), service: "payment".into(), write: None };
        plane.pins().delete_pin(request).await.unwrap();
    }
    plane.catalog().delete_service(delete()).await.unwrap();
    assert_eq!(reason(plane.catalog().get_service(get("payment")).await), Reason::UnknownService);
    assert_eq!(reason(plane.catalog().delete_service(delete()).await), Reason::UnknownService);
    plane.put_service("payment", "9.0").await;
    let read = plane.catalog().get_service(get("payment")).await.unwrap().into_inner();
    assert_eq!(read.versions.len(), 1, "{read:?}");
}

async fn a_version_in_use_stays(plane: Plane) {
    plane.acme().await;
    plane.put_version("payment", "1.5", None).await;
    put_policy(&plane, fail_over_to(&["1.0", "1.5"])).await.unwrap();
    plane.put_pin("acme", "payment", "1.5").await.unwrap();
    let refused = plane.catalog().delete_version(delete_version("1.5")).await.map(drop);
    assert_eq!(fact(refused.clone(), "by"), "policy,pins");
    assert_eq!(reason(refused), Reason::InUse);
    assert_eq!(fact(plane.catalog().delete_version(delete_version("1.0")).await, "by"), "default,policy");
    plane.catalog().delete_version(delete_version("2.0")).await.unwrap();
    assert_eq!(reason(plane.catalog().delete_version(delete_version("2.0")).await), Reason::UnknownVersion);
    put_policy(&plane, Policy { service: "payment".into(), ..Policy::default() }).await.unwrap();
    assert_eq!(fact(plane.catalog().delete_version(delete_version("1.5")).await, "by"), "pins");
}

async fn a_policy_names_declared_versions_only(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    assert_eq!(reason(put_policy(&plane, fail_over_to(&["7.0"])).await), Reason::UnknownVersion);
    assert_eq!(fact(put_policy(&plane, fail_over_to(&["2.0", "8.0"])).await, "version"), "v8.0");
    let policy = Policy { service: "nothing".into(), ..Policy::default() };
    assert_eq!(reason(put_policy(&plane, policy).await), Reason::UnknownService);
    assert_eq!(plane.revision().await, before);

    let written = put_policy(&plane, fail_over_to(&["2.0"])).await.unwrap();
    let read = plane.catalog().get_service(get("payment")).await.unwrap().into_inner();
    assert_eq!(read.policy, Some(written.clone()));
    assert_eq!(put_policy(&plane, fail_over_to(&["2.0"])).await.unwrap().revision, written.revision);
    assert_eq!(plane.revision().await, written.revision);
}

async fn services_are_listed_by_page(plane: Plane) {
    for i in 0..5 {
        plane.put_service(&format!("s{i}"), "1").await;
    }
    let page = |page_token| ListServicesRequest { page_size: 3, page_token };
    let first = plane.catalog().list_services(page(String::new())).await.unwrap().into_inner();
    let second =
        plane.catalog().list_services(page(first.next_page_token.clone())).await.unwrap().into_inner();
    let ids = |services: Vec<Service>| services.into_iter().map(|service| service.id).collect::<Vec<_>>();
    assert_eq!(
        (ids(first.services), ids(second.services)),
        (vec!["s0".into(), "s1".into(), "s2".into()], vec!["s3".into(), "s4".into()])
    );
    assert!(second.next_page_token.is_empty());
}

async fn versions_need_their_service(plane: Plane) {
    let version =
        ServiceVersion { service: "ghost".into(), version: "1".into(), ..ServiceVersion::default() };
    let request = PutVersionRequest { version: Some(version), write: None, update_mask: Vec::new() };
    assert_eq!(reason(plane.catalog().put_version(request).await), Reason::UnknownService);
    plane.acme().await;
    plane.put_version("payment", "10.0", None).await;
    plane.put_version("payment", "2.1-rc.1", None).await;
    let read = plane.catalog().get_service(get("payment")).await.unwrap().into_inner();
    let order: Vec<_> = read.versions.iter().map(|version| version.version.as_str()).collect();
    assert_eq!(order, ["v1.0", "v2.0", "v2.1-rc.1", "v10.0"]);
}

fn change_set(changes: impl Iterator<Item = Change>) -> ApplyChangeSetRequest {
    let changes = changes.map(|change| ProposedChange {
        change: Some(grey_proto::control::Change { change: Some(change) }),
        expected_revision: None,
    });
    ApplyChangeSetRequest { changes: changes.collect(), write: None }
}

async fn a_service_has_a_bounded_number_of_versions(plane: Plane) {
    plane.put_service("payment", "1.0").await;
    let version = |i: u64| ServiceVersion {
        service: "payment".into(),
        version: format!("1.{i}"),
        ..ServiceVersion::default()
    };
    let most = change_set((1..MAX_VERSIONS).map(|i| Change::VersionPut(version(i))));
    plane.pins().apply_change_set(most).await.unwrap();
    let put = |i| PutVersionRequest { version: Some(version(i)), write: None, update_mask: Vec::new() };
    assert_eq!(reason(plane.catalog().put_version(put(MAX_VERSIONS)).await), Reason::TooLarge);
    plane.catalog().delete_version(delete_version("1.7")).await.unwrap();
    assert!(plane.catalog().put_version(put(MAX_VERSIONS)).await.is_ok());
}

async fn services_are_bounded_in_number(plane: Plane) {
    let service = |i: u64| Service { id: format!("s{i}"), default_version: "1.0".into(), revision: 0 };
    for from in (0..MAX_SERVICES).step_by(1_000) {
        let some = change_set((from..from + 1_000).map(|i| Change::ServicePut(service(i))));
        plane.pins().apply_change_set(some).await.unwrap();
    }
    let one_more = PutServiceRequest { service: Some(service(MAX_SERVICES)), write: None };
    assert_eq!(reason(plane.catalog().put_service(one_more).await), Reason::TooLarge);
}
