//! Writing some fields leaves the others as they are.

use futures::future::join_all;
use grey_core::error::Reason;
use grey_proto::control::{
    Canary, Experiment, GetServiceRequest, GetTenantRequest, Overlay, Policy, PutOverlayRequest,
    PutPolicyRequest, PutTenantRequest, PutTenantResponse, PutVersionRequest, ServiceVersion, Tenant,
    TenantStatus, Variant, overlay,
};
use grey_proto::status::from_status;
use tonic::Status;

use crate::fixture::{Plane, expecting, on_both, reason, tenant};

on_both! {
    renaming_a_tenant_changes_nothing_else
    one_label_is_set_or_removed
    a_version_keeps_its_window
    a_policy_and_an_overlay_change_in_part
    one_field_of_an_overlays_kind_changes_and_kinds_are_not_mixed
    writers_of_different_fields_do_not_undo_each_other
    what_cannot_be_set_in_part_is_refused
}

fn mask(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

async fn set(plane: &Plane, tenant: Tenant, paths: &[&str]) -> Result<PutTenantResponse, Status> {
    let request = PutTenantRequest { tenant: Some(tenant), write: None, update_mask: mask(paths) };
    Ok(plane.tenants().put_tenant(request).await?.into_inner())
}

async fn read(plane: &Plane, id: &str) -> Tenant {
    let response = plane.tenants().get_tenant(GetTenantRequest { id: id.to_owned() }).await.unwrap();
    Tenant { revision: 0, ..response.into_inner().tenant.unwrap() }
}

async fn suspended(plane: &Plane) -> Tenant {
    let suspended = Tenant {
        name: "Acme".to_owned(),
        status: TenantStatus::Suspended.into(),
        tier: "gold".to_owned(),
        residency: vec!["eu".to_owned()],
        labels: [("env".to_owned(), "live".to_owned())].into(),
        ..tenant("acme")
    };
    let request = PutTenantRequest { tenant: Some(suspended.clone()), write: None, update_mask: Vec::new() };
    plane.tenants().put_tenant(request).await.unwrap();
    suspended
}

async fn renaming_a_tenant_changes_nothing_else(plane: Plane) {
    let before = suspended(&plane).await;
    let given = Tenant { name: "Acme Corp".to_owned(), ..tenant("acme") };
    let told = set(&plane, given, &["name"]).await.unwrap().tenant.unwrap();
    let wanted = Tenant { name: "Acme Corp".to_owned(), ..before };
    assert_eq!(Tenant { revision: 0, ..told }, wanted);
    assert_eq!(read(&plane, "acme").await, wanted);
    set(&plane, tenant("acme"), &["tier", "residency"]).await.unwrap();
    let wanted = Tenant { tier: String::new(), residency: Vec::new(), ..wanted };
    assert_eq!(read(&plane, "acme").await, wanted);
}

async fn one_label_is_set_or_removed(plane: Plane) {
    let before = suspended(&plane).await;
    let given = Tenant { labels: [("team".to_owned(), "red".to_owned())].into(), ..tenant("acme") };
    set(&plane, given, &["labels.team"]).await.unwrap();
    assert_eq!(read(&plane, "acme").await.labels.len(), 2);
    set(&plane, tenant("acme"), &["labels.team"]).await.unwrap();
    assert_eq!(read(&plane, "acme").await, before);
}

async fn a_version_keeps_its_window(plane: Plane) {
    plane.acme().await;
    let version =
        ServiceVersion { service: "payment".to_owned(), version: "3.0".to_owned(), ..Default::default() };
    let request = PutVersionRequest { version: Some(version), write: None, update_mask: mask(&["schema"]) };
    assert_eq!(reason(plane.catalog().put_version(request).await), Reason::UnknownVersion);
    let version =
        ServiceVersion { service: "payment".to_owned(), version: "2".to_owned(), ..Default::default() };
    let request = PutVersionRequest { version: Some(version), write: None, update_mask: mask(&["schema"]) };
    let told = plane.catalog().put_version(request).await.unwrap().into_inner().version.unwrap();
    assert_eq!((told.version.as_str(), told.schema), ("v2.0", None), "a window that is named is replaced");
}

async fn a_policy_and_an_overlay_change_in_part(plane: Plane) {
    plane.acme().await;
    let policy = Policy { service: "payment".to_owned(), stateless: true, ..Policy::default() };
    let request = PutPolicyRequest { policy: Some(policy), write: None, update_mask: mask(&["stateless"]) };
    plane.catalog().put_policy(request).await.unwrap();
    let roles = vec!["tester".to_owned()];
    let policy = Policy { service: "payment".to_owned(), override_roles: roles, ..Policy::default() };
    let request =
        PutPolicyRequest { policy: Some(policy), write: None, update_mask: mask(&["override_roles"]) };
    let told = plane.catalog().put_policy(request).await.unwrap().into_inner().policy.unwrap();
    assert!(told.stateless && told.override_roles == ["tester"], "{told:?}");

    let canary =
        Canary { baseline: "1.0".to_owned(), canary: "2.0".to_owned(), weight: 100, buckets: Vec::new() };
    let overlay = Overlay {
        service: "payment".to_owned(),
        id: "c".to_owned(),
        order: 7,
        kind: Some(overlay::Kind::Canary(canary.clone())),
        ..Overlay::default()
    };
    let request = PutOverlayRequest { overlay: Some(overlay.clone()), write: None, update_mask: Vec::new() };
    plane.catalog().put_overlay(request).await.unwrap();
    let kind = Some(overlay::Kind::Canary(Canary { weight: 500, ..canary }));
    let overlay = Overlay { order: 0, kind, ..overlay };
    let request = PutOverlayRequest { overlay: Some(overlay), write: None, update_mask: mask(&["canary"]) };
    plane.catalog().put_overlay(request).await.unwrap();
    let asked = GetServiceRequest { id: "payment".to_owned() };
    let told = plane.catalog().get_service(asked).await.unwrap().into_inner().overlays;
    let [told] = told.as_slice() else { panic!("{told:?}") };
    let Some(overlay::Kind::Canary(canary)) = &told.kind else { panic!("{told:?}") };
    assert_eq!((told.order, canary.weight), (7, 500));
}

async fn one_field_of_an_overlays_kind_changes_and_kinds_are_not_mixed(plane: Plane) {
    plane.acme().await;
    let put = async |kind: overlay::Kind, paths: &[&str]| {
        let overlay = Overlay {
            service: "payment".to_owned(),
            id: "c".to_owned(),
            kind: Some(kind),
            ..Overlay::default()
        };
        let request = PutOverlayRequest { overlay: Some(overlay), write: None, update_mask: mask(paths) };
        plane.catalog().put_overlay(request).await.map(|told| told.into_inner().overlay.unwrap())
    };
    let canary = |baseline: &str, canary: &str, weight| {
        let (baseline, canary) = (baseline.to_owned(), canary.to_owned());
        overlay::Kind::Canary(Canary { baseline, canary, weight, buckets: Vec::new() })
    };
    let variant = Variant { id: "a".to_owned(), version: "2.0".to_owned(), weight: 40, ..Variant::default() };
    let experiment = Experiment { variants: vec![variant], includes_pinned: true };
    put(canary("1.0", "2.0", 100), &[]).await.unwrap();
    let told = put(canary("", "", 300), &["canary.weight"]).await.unwrap();
    let Some(overlay::Kind::Canary(told)) = told.kind else { panic!("{told:?}") };
    assert_eq!((told.baseline.as_str(), told.canary.as_str(), told.weight), ("v1.0", "v2.0", 300));

    for (given, path) in [
        (overlay::Kind::Experiment(experiment.clone()), "experiment.includes_pinned"),
        (overlay::Kind::Experiment(experiment.clone()), "canary.weight"),
        (canary("1.0", "2.0", 7), "experiment"),
        (canary("1.0", "2.0", 7), "canary.buckets"),
    ] {
        let refused = put(given, &["order", path]).await.unwrap_err();
        assert_eq!(from_status(&refused).get("field"), Some("update_mask[1]"), "{path}: {refused}");
    }
    let told = put(overlay::Kind::Experiment(experiment), &["experiment"]).await.unwrap();
    let Some(overlay::Kind::Experiment(told)) = told.kind else { panic!("{told:?}") };
    assert_eq!((told.variants.len(), told.includes_pinned), (1, true));
    let kind = overlay::Kind::Experiment(Experiment::default());
    let told = put(kind, &["experiment.includes_pinned"]).await.unwrap();
    let Some(overlay::Kind::Experiment(told)) = told.kind else { panic!("{told:?}") };
    assert_eq!((told.variants.len(), told.includes_pinned), (1, false));
}

async fn writers_of_different_fields_do_not_undo_each_other(plane: Plane) {
    plane.put_tenant("acme").await;
    let label = |at: usize| {
        let labels = [(format!("l{at}"), "x".to_owned())].into();
        (Tenant { labels, ..tenant("acme") }, format!("labels.l{at}"))
    };
    let writes = (0..6).map(|at| {
        let (given, path) = label(at);
        let plane = &plane;
        async move { set(plane, given, &[&path]).await }
    });
    for written in join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(read(&plane, "acme").await.labels.len(), 6);
}

async fn what_cannot_be_set_in_part_is_refused(plane: Plane) {
    let before = suspended(&plane).await;
    assert_eq!(reason(set(&plane, tenant("nobody"), &["name"]).await), Reason::UnknownTenant);
    for path in ["id", "revision", "labels.", "tier.x", "Name"] {
        let refused = set(&plane, tenant("acme"), &["name", path]).await;
        assert_eq!(reason(refused), Reason::InvalidArgument, "{path}");
    }
    let request =
        PutTenantRequest { tenant: Some(tenant("acme")), write: expecting(0), update_mask: mask(&["tier"]) };
    assert_eq!(reason(plane.tenants().put_tenant(request).await), Reason::RevisionMismatch);
    assert_eq!(read(&plane, "acme").await, before);
}
