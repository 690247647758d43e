//! Several changes at once: all of them or none.

use grey_core::error::Reason;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::{
    ApplyChangeSetRequest, Change, DatabaseRemoved, GetTenantRequest, ListPinsRequest, PinRemoved,
    ProposedChange, Service, ServiceRemoved, ServiceVersion, TenantDatabase, TenantRemoved, VersionRemoved,
    WriteOptions,
};

use crate::databases::database;
use crate::fixture::{Plane, fact, on_both, pin, reason, revision, tenant};

on_both! {
    one_bad_change_leaves_nothing
    a_change_sees_those_before_it
    a_thousand_pins_are_one_event
    too_many_and_double_changes_are_refused
    expectations_hold_for_each_thing_and_for_the_log
    what_is_so_already_is_not_written
    databases_are_not_registered_beside_other_changes
}

async fn databases_are_not_registered_beside_other_changes(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    let placed = TenantDatabase { dialect: "postgres".into(), ..database("acme", "payment") };
    let removed = DatabaseRemoved { tenant: "acme".into(), service: "payment".into() };
    for change in [Kind::DatabasePut(placed), Kind::DatabaseRemoved(removed)] {
        let refused = apply(&plane, set([Kind::TenantPut(tenant("beta")), change])).await;
        assert_eq!(fact(refused.clone(), "field"), "changes[1]");
        assert_eq!(reason(refused), Reason::InvalidArgument);
    }
    assert_eq!(plane.revision().await, before);
}

fn propose(change: Kind) -> ProposedChange {
    ProposedChange { change: Some(Change { change: Some(change) }), expected_revision: None }
}

fn set(changes: impl IntoIterator<Item = Kind>) -> ApplyChangeSetRequest {
    ApplyChangeSetRequest { changes: changes.into_iter().map(propose).collect(), write: None }
}

async fn apply(plane: &Plane, request: ApplyChangeSetRequest) -> Result<u64, tonic::Status> {
    plane.pins().apply_change_set(request).await.map(|response| revision(response.into_inner().result))
}

async fn one_bad_change_leaves_nothing(plane: Plane) {
    plane.acme().await;
    plane.put_pin("acme", "payment", "1.0").await.unwrap();
    let before = (plane.revision().await, plane.events().await);
    let get = GetTenantRequest { id: "acme".into() };
    let tenant_before = plane.tenants().get_tenant(get.clone()).await.unwrap().into_inner();
    let bad = set([
        Kind::TenantPut(grey_proto::control::Tenant { name: "New".into(), ..tenant("acme") }),
        Kind::TenantPut(tenant("beta")),
        Kind::PinPut(pin("beta", "payment", "1.0")),
        Kind::PinRemoved(PinRemoved { tenant: "acme".into(), service: "payment".into() }),
        Kind::PinPut(pin("beta", "payment2", "1.0")),
    ]);
    assert_eq!(reason(apply(&plane, bad).await), Reason::UnknownService);
    assert_eq!((plane.revision().await, plane.events().await), before);
    assert_eq!(plane.tenants().get_tenant(get).await.unwrap().into_inner(), tenant_before);
    assert_eq!(reason(plane.put_pin("beta", "payment", "1.0").await), Reason::UnknownTenant);
}

async fn a_change_sees_those_before_it(plane: Plane) {
    let service = |default: &str| {
        Kind::ServicePut(Service { id: "payment".into(), default_version: default.into(), revision: 0 })
    };
    let version = |version: &str| {
        let (service, version) = ("payment".into(), version.into());
        Kind::VersionPut(ServiceVersion { service, version, ..ServiceVersion::default() })
    };
    let whole = set([
        service("1.0"),
        version("1.0"),
        version("2.0"),
        Kind::TenantPut(tenant("acme")),
        Kind::PinPut(pin("acme", "payment", "2.0")),
    ]);
    assert_eq!(apply(&plane, whole).await.unwrap(), 1);
    let gone = VersionRemoved { service: "payment".into(), version: "1.0".into() };
    assert_eq!(apply(&plane, set([service("2.0"), Kind::VersionRemoved(gone)])).await.unwrap(), 2);
    let early = VersionRemoved { service: "payment".into(), version: "2.0".into() };
    let wrong_order = set([Kind::VersionRemoved(early), version("3.0"), service("3.0")]);
    assert_eq!(reason(apply(&plane, wrong_order).await), Reason::InUse);
    let everything = set([
        Kind::TenantRemoved(TenantRemoved { tenant: "acme".into() }),
        Kind::ServiceRemoved(ServiceRemoved { service: "payment".into() }),
    ]);
    assert_eq!(apply(&plane, everything).await.unwrap(), 3);
}

async fn a_thousand_pins_are_one_event(plane: Plane) {
    plane.put_service("payment", "1.0").await;
    let tenants = set((0..1000).map(|i| Kind::TenantPut(tenant(&format!("t{i:04}")))));
    apply(&plane, tenants).await.unwrap();
    let pins = set((0..1000).map(|i| Kind::PinPut(pin(&format!("t{i:04}"), "payment", "1.0"))));
    assert_eq!(apply(&plane, pins.clone()).await.unwrap(), 3);
    assert_eq!(apply(&plane, pins).await.unwrap(), 3);
    let list = ListPinsRequest { service: "payment".into(), page_size: 1000, ..ListPinsRequest::default() };
    let listed = plane.pins().list_pins(list.clone()).await.unwrap().into_inner().pins;
    assert!(listed.len() == 1000 && listed.iter().all(|pin| pin.revision == 3));
    let gone = set((0..1000)
        .map(|i| Kind::PinRemoved(PinRemoved { tenant: format!("t{i:04}"), service: "payment".into() })));
    assert_eq!(apply(&plane, gone).await.unwrap(), 4);
    assert!(plane.pins().list_pins(list).await.unwrap().into_inner().pins.is_empty());
}

async fn too_many_and_double_changes_are_refused(plane: Plane) {
    let many = set((0..5001).map(|i| Kind::TenantPut(tenant(&format!("t{i}")))));
    assert_eq!(reason(apply(&plane, many).await), Reason::TooLarge);
    assert_eq!(reason(apply(&plane, set([])).await), Reason::InvalidArgument);
    let twice =
        set([Kind::TenantPut(tenant("acme")), Kind::TenantRemoved(TenantRemoved { tenant: "acme".into() })]);
    assert_eq!(fact(apply(&plane, twice).await, "field"), "changes[1]");
    let mut empty = set([Kind::TenantPut(tenant("acme"))]);
    empty.changes.push(ProposedChange::default());
    assert_eq!(fact(apply(&plane, empty).await, "field"), "changes[1].change");
    assert_eq!(plane.revision().await, 0);
}

async fn expectations_hold_for_each_thing_and_for_the_log(plane: Plane) {
    plane.acme().await;
    let head = plane.revision().await;
    let mut request = set([Kind::TenantPut(tenant("beta")), Kind::PinPut(pin("acme", "payment", "1.0"))]);
    request.changes.last_mut().unwrap().expected_revision = Some(1);
    assert_eq!(fact(apply(&plane, request.clone()).await, "present"), "0");
    request.changes.last_mut().unwrap().expected_revision = Some(0);
    request.write = Some(WriteOptions { expected_revision: Some(head - 1), ..WriteOptions::default() });
    assert_eq!(fact(apply(&plane, request.clone()).await, "present"), head.to_string());
    request.write = Some(WriteOptions { expected_revision: Some(head), ..WriteOptions::default() });
    assert_eq!(apply(&plane, request).await.unwrap(), head + 1);
}

async fn what_is_so_already_is_not_written(plane: Plane) {
    plane.acme().await;
    plane.put_pin("acme", "payment", "1.0").await.unwrap();
    let mixed = set([Kind::PinPut(pin("acme", "payment", "1.0")), Kind::TenantPut(tenant("beta"))]);
    apply(&plane, mixed).await.unwrap();
    let events = plane.events().await;
    let changes = &events.last().unwrap().changes;
    assert!(matches!(changes.as_slice(), [Change { change: Some(Kind::TenantPut(_)) }]), "{changes:?}");
}
