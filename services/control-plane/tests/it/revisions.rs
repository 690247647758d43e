//! One order of all writes, expectations, and writes that change nothing.

use std::collections::BTreeSet;

use grey_core::change::Principal;
use grey_core::error::Reason;
use grey_proto::control::{
    DeletePinRequest, ListEventsRequest, Policy, PutPinRequest, PutPolicyRequest, PutServiceRequest,
    PutTenantRequest, PutVersionRequest, Service, ServiceVersion,
};

use crate::fixture::{Plane, expecting, fact, on_both, pin, reason, revision, tenant};

on_both! {
    revisions_are_gapless_under_16_writers
    stale_expectations_are_refused_and_nothing_changes
    the_same_fact_again_changes_nothing
    events_tell_who_and_why
    events_are_listed_both_ways
}

async fn revisions_are_gapless_under_16_writers(plane: Plane) {
    let writers = (0..16).map(|writer| {
        let mut tenants = plane.tenants();
        async move {
            let mut seen = Vec::new();
            for i in 0..10 {
                let request = PutTenantRequest {
                    tenant: Some(tenant(&format!("t{writer}-{i}"))),
                    write: None,
                    update_mask: Vec::new(),
                };
                seen.push(revision(tenants.put_tenant(request).await.unwrap().into_inner().result));
            }
            seen
        }
    });
    let seen = futures::future::join_all(writers).await;
    assert!(seen.iter().all(|own| own.is_sorted()), "{seen:?}");
    let all: BTreeSet<u64> = seen.into_iter().flatten().collect();
    assert_eq!(all, (1..=160).collect());
    let events = plane.events().await;
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), (1..=160).collect::<Vec<_>>());
    assert!(events.iter().map(|event| event.at.as_ref().unwrap().seconds).is_sorted());
}

async fn stale_expectations_are_refused_and_nothing_changes(plane: Plane) {
    let tenant_revision = plane.acme().await;
    let pinned = plane.put_pin("acme", "payment", "1.0").await.unwrap();
    let before = plane.revision().await;

    let renamed = || Some(grey_proto::control::Tenant { name: "Acme".into(), ..tenant("acme") });
    for wrong in [0, tenant_revision, pinned + 1, u64::MAX] {
        let request =
            PutTenantRequest { tenant: renamed(), write: expecting(wrong), update_mask: Vec::new() };
        let refused = plane.tenants().put_tenant(request).await.map(drop);
        assert_eq!(fact(refused.clone(), "present"), pinned.to_string());
        assert_eq!(refused.clone().unwrap_err().code(), tonic::Code::Aborted);
        assert_eq!(reason(refused), Reason::RevisionMismatch, "{wrong}");
    }
    let service = Service { id: "payment".into(), default_version: "2.0".into(), revision: 0 };
    let request = PutServiceRequest { service: Some(service), write: expecting(9) };
    assert_eq!(reason(plane.catalog().put_service(request).await), Reason::RevisionMismatch);
    let version =
        ServiceVersion { service: "payment".into(), version: "2.0".into(), ..ServiceVersion::default() };
    let request = PutVersionRequest { version: Some(version), write: expecting(0), update_mask: Vec::new() };
    assert_eq!(reason(plane.catalog().put_version(request).await), Reason::RevisionMismatch);
    let policy = Policy { service: "payment".into(), stateless: true, ..Policy::default() };
    let request = PutPolicyRequest { policy: Some(policy), write: expecting(1), update_mask: Vec::new() };
    assert_eq!(fact(plane.catalog().put_policy(request).await, "present"), "0");
    let request =
        DeletePinRequest { tenant: "acme".into(), service: "payment".into(), write: expecting(pinned + 1) };
    assert_eq!(reason(plane.pins().delete_pin(request).await), Reason::RevisionMismatch);
    assert_eq!(plane.revision().await, before);

    let request = PutTenantRequest { tenant: renamed(), write: expecting(pinned), update_mask: Vec::new() };
    let written = plane.tenants().put_tenant(request).await.unwrap().into_inner();
    assert_eq!(written.tenant.unwrap().revision, before + 1);
    let request =
        PutTenantRequest { tenant: Some(tenant("new")), write: expecting(0), update_mask: Vec::new() };
    assert!(plane.tenants().put_tenant(request).await.is_ok());
}

async fn the_same_fact_again_changes_nothing(plane: Plane) {
    plane.acme().await;
    let pinned = plane.put_pin("acme", "payment", "v1.0").await.unwrap();
    plane.put_tenant("other").await;
    let before = plane.revision().await;

    assert_eq!(plane.put_tenant("acme").await, before);
    assert_eq!(plane.put_service("payment", "v1.0.0").await, before);
    assert_eq!(plane.put_version("payment", "2", Some(("1.1", ""))).await, before);
    let request = PutPinRequest {
        pin: Some(pin("acme", "payment", "1")),
        write: expecting(pinned),
        ..PutPinRequest::default()
    };
    let again = plane.pins().put_pin(request).await.unwrap().into_inner();
    assert_eq!(again.pin.unwrap().revision, pinned);
    assert_eq!(again.result.unwrap().revision, before);
    let request =
        PutTenantRequest { tenant: Some(tenant("acme")), write: expecting(pinned), update_mask: Vec::new() };
    let again = plane.tenants().put_tenant(request).await.unwrap().into_inner();
    assert_eq!(again.tenant.unwrap().revision, pinned);
    assert_eq!(plane.revision().await, before);
    assert_eq!(u64::try_from(plane.events().await.len()).unwrap(), before);
}

async fn events_tell_who_and_why(plane: Plane) {
    let write = grey_proto::control::WriteOptions {
        reason: "onboarding #7".into(),
        cause: "upgrade/7".into(),
        ..Default::default()
    };
    let request =
        PutTenantRequest { tenant: Some(tenant("acme")), write: Some(write), update_mask: Vec::new() };
    let direct = plane.tenants().put_tenant(request.clone()).await;
    assert_eq!(reason(direct), Reason::InvalidArgument, "nobody makes up a cause in their own name");
    let asker = Principal { id: "ann".into(), role: "admin".into(), via: String::new() };
    plane.tenants().put_tenant(grey_edge::on_behalf_of(&asker, request)).await.unwrap();
    let events = plane.events().await;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    let principal = event.principal.clone().unwrap();
    let told = (principal.id.as_str(), principal.role.as_str(), principal.via.as_str());
    assert_eq!(told, ("ann", "admin", "anonymous"));
    assert_eq!((event.reason.as_str(), event.cause.as_str()), ("onboarding #7", "upgrade/7"));
    assert_eq!(event.level, 1);
}

async fn events_are_listed_both_ways(plane: Plane) {
    for i in 0..120 {
        plane.put_tenant(&format!("t{i}")).await;
    }
    let list = async |after, limit, newest_first| {
        let request = ListEventsRequest { after, limit, newest_first, ..ListEventsRequest::default() };
        let listed = plane.history().list_events(request).await.unwrap().into_inner();
        assert_eq!(listed.revision, 120);
        listed.events.iter().map(|event| event.revision).collect::<Vec<_>>()
    };
    assert_eq!(list(0, 0, false).await, (1..=100).collect::<Vec<_>>());
    assert_eq!(list(100, 1000, false).await, (101..=120).collect::<Vec<_>>());
    assert_eq!(list(0, 70, true).await, (51..=120).rev().collect::<Vec<_>>());
    assert_eq!(list(110, 1000, true).await, (111..=120).rev().collect::<Vec<_>>());
    assert!(list(u64::MAX, 10, false).await.is_empty());
}
