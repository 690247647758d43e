//! The revision of a tenant and of a service covers all that belongs to it, in the history that it was read from.

use grey_control_plane::database::Database;
use grey_core::change::Epoch;
use grey_core::error::Reason;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::{
    ApplyChangeSetRequest, Change, DeleteTenantRequest, GetServiceRequest, GetTenantRequest,
    ListServicesRequest, ListTenantsRequest, ProposedChange, PutTenantRequest, WriteOptions,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{Plane, config, expecting, fact, on_both, pin, reason, tenant};

on_both! {
    a_tenant_is_not_deleted_over_a_pin_that_was_not_seen
    whatever_belongs_to_a_service_or_a_tenant_counts
    what_a_bulk_change_touches_is_indexed
    a_revision_of_an_older_history_never_matches
}

async fn tag(plane: &Plane, path: &str) -> String {
    let read = plane.send(Method::GET, path, Value::Null, &[]).await;
    assert_eq!(read.status(), StatusCode::OK, "{path}");
    read.headers()["etag"].to_str().unwrap().to_owned()
}

async fn a_tenant_is_not_deleted_over_a_pin_that_was_not_seen(plane: Plane) {
    plane.acme().await;
    let seen = tag(&plane, "/api/tenants/acme").await;
    let pinned = plane.put_pin("acme", "payment", "1.0").await.unwrap();
    let (status, refused) =
        plane.call_if(Method::DELETE, "/api/tenants/acme", Value::Null, &[("if-match", &seen)]).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{refused}");
    assert_eq!(refused["error"]["metadata"]["present"], pinned.to_string());
    let read = plane.tenants().get_tenant(GetTenantRequest { id: "acme".into() }).await.unwrap().into_inner();
    assert_eq!((read.pins.len(), read.tenant.unwrap().revision), (1, pinned));
    let now = tag(&plane, "/api/tenants/acme").await;
    let (status, _) =
        plane.call_if(Method::DELETE, "/api/tenants/acme", Value::Null, &[("if-match", &now)]).await;
    assert_eq!(status, StatusCode::OK);
    // Nothing is there any more, and what comes next begins anew.
    let request =
        PutTenantRequest { tenant: Some(tenant("acme")), write: expecting(0), update_mask: Vec::new() };
    let again = plane.tenants().put_tenant(request).await.unwrap().into_inner();
    assert_eq!(again.tenant.unwrap().revision, again.result.unwrap().revision);
}

async fn whatever_belongs_to_a_service_or_a_tenant_counts(plane: Plane) {
    plane.acme().await;
    plane.put_service("other", "1.0").await;
    plane.put_tenant("beta").await;
    let others = (tag(&plane, "/api/services/other").await, tag(&plane, "/api/tenants/beta").await);
    let canary = json!({"canary": {"baseline": "1.0", "canary": "2.0", "weight": 100}});
    let service = "/api/services/payment";
    let acme = "/api/tenants/acme";
    for (owner, method, path, body) in [
        (service, Method::PUT, format!("{service}/versions/3.0"), json!({})),
        (service, Method::PUT, format!("{service}/policy"), json!({"stateless": true})),
        (service, Method::PUT, format!("{service}/overlays/c"), canary),
        (service, Method::DELETE, format!("{service}/overlays/c"), Value::Null),
        (service, Method::DELETE, format!("{service}/versions/3.0"), Value::Null),
        (acme, Method::PUT, format!("{acme}/services/payment/schema"), json!({"schema": "1.0"})),
        (acme, Method::PUT, format!("{acme}/services/payment/version"), json!({"version": "1.0"})),
        (acme, Method::DELETE, format!("{acme}/services/payment/version"), Value::Null),
        (
            acme,
            Method::PUT,
            format!("{acme}/services/payment/database"),
            json!({"url": "mysql://app@db/acme"}),
        ),
        (acme, Method::DELETE, format!("{acme}/services/payment/database"), Value::Null),
    ] {
        let seen = tag(&plane, owner).await;
        let (status, answer) = plane.call(method.clone(), &path, body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
        let revision = answer["result"]["revision"].as_str().unwrap().to_owned();
        assert_eq!(tag(&plane, owner).await, format!("\"1-{revision}\""), "{method} {path}");
        let (status, _) = plane.call_if(Method::DELETE, owner, Value::Null, &[("if-match", &seen)]).await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{method} {path}");
    }
    assert_eq!((tag(&plane, "/api/services/other").await, tag(&plane, "/api/tenants/beta").await), others);
    // Listings tell the same.
    let listed = plane.tenants().list_tenants(ListTenantsRequest::default()).await.unwrap().into_inner();
    for listed in listed.tenants {
        let read = plane.tenants().get_tenant(GetTenantRequest { id: listed.id.clone() }).await.unwrap();
        assert_eq!(read.into_inner().tenant.unwrap(), listed);
    }
    let listed = plane.catalog().list_services(ListServicesRequest::default()).await.unwrap().into_inner();
    for listed in listed.services {
        let read = plane.catalog().get_service(GetServiceRequest { id: listed.id.clone() }).await.unwrap();
        assert_eq!(read.into_inner().service.unwrap(), listed);
    }
}

async fn what_a_bulk_change_touches_is_indexed(plane: Plane) {
    plane.put_service("payment", "1.0").await;
    let id = |i: usize| format!("t{i:04}");
    let set = async |changes: Vec<Kind>| {
        let propose = |change| ProposedChange {
            change: Some(Change { change: Some(change) }),
            expected_revision: None,
        };
        let changes = changes.into_iter().map(propose).collect();
        plane.pins().apply_change_set(ApplyChangeSetRequest { changes, write: None }).await.unwrap();
    };
    set((0..1_000).map(|i| Kind::TenantPut(tenant(&id(i)))).collect()).await;
    set((0..999).map(|i| Kind::PinPut(pin(&id(i), "payment", "1.0"))).collect()).await;
    let request = ListTenantsRequest { page_size: 1_000, ..ListTenantsRequest::default() };
    let listed = plane.tenants().list_tenants(request).await.unwrap().into_inner().tenants;
    let (last, pinned) = listed.split_last().unwrap();
    assert!(pinned.len() == 999 && pinned.iter().all(|tenant| tenant.revision == 3));
    assert_eq!(last.revision, 2);
}

async fn a_revision_of_an_older_history_never_matches(plane: Plane) {
    plane.acme().await;
    let seen = tag(&plane, "/api/tenants/acme").await;
    let database = Database::open(&config(&plane.store.url).database).await.unwrap();
    database.start_epoch(Epoch(1), Epoch(4)).await.unwrap();
    let now = tag(&plane, "/api/tenants/acme").await;
    assert_eq!((seen.as_str(), now.as_str()), ("\"1-3\"", "\"5-3\""));
    let path = "/api/tenants/acme";
    let (status, refused) = plane.call_if(Method::DELETE, path, Value::Null, &[("if-match", &seen)]).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{refused}");
    assert_eq!(
        (&refused["error"]["reason"], &refused["error"]["metadata"]["epoch"]),
        (&"REVISION_MISMATCH".into(), &"5".into())
    );
    let delete = |expected_epoch| DeleteTenantRequest {
        id: "acme".into(),
        write: Some(WriteOptions { expected_revision: Some(3), expected_epoch, ..WriteOptions::default() }),
    };
    for older in [1, 4, 6] {
        let refused = plane.tenants().delete_tenant(delete(older)).await.map(drop);
        assert_eq!(fact(refused.clone(), "epoch"), "5");
        assert_eq!(reason(refused), Reason::RevisionMismatch);
    }
    let read = plane.tenants().get_tenant(GetTenantRequest { id: "acme".into() }).await.unwrap().into_inner();
    assert_eq!((read.epoch, read.tenant.unwrap().revision), (5, 3));
    let deleted = plane.tenants().delete_tenant(delete(5)).await.unwrap().into_inner();
    assert_eq!(deleted.result.unwrap().epoch, 5);
}
