//! Pins and the rules about them.

use grey_core::error::Reason;
use grey_proto::control::{
    DeletePinRequest, GetTenantRequest, ListPinsRequest, ObserveSchemaRequest, ObservedSchema, Pin,
    PutPinRequest,
};

use crate::fixture::{Plane, fact, on_both, pin, reason};

on_both! {
    a_pin_needs_what_it_names
    a_pin_outside_the_schema_window_is_refused
    a_pin_is_replaced_locked_and_removed
    pins_are_listed_by_tenant_and_service
}

async fn a_pin_needs_what_it_names(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    assert_eq!(reason(plane.put_pin("nobody", "payment", "1.0").await), Reason::UnknownTenant);
    assert_eq!(reason(plane.put_pin("acme", "nothing", "1.0").await), Reason::UnknownService);
    assert_eq!(reason(plane.put_pin("acme", "payment", "1.1").await), Reason::UnknownVersion);
    for (tenant, service, expected) in [
        ("nobody", "payment", Reason::UnknownTenant),
        ("acme", "nothing", Reason::UnknownService),
        ("acme", "payment", Reason::UnknownPin),
    ] {
        let request = DeletePinRequest { tenant: tenant.into(), service: service.into(), write: None };
        assert_eq!(reason(plane.pins().delete_pin(request).await), expected);
    }
    assert_eq!(plane.revision().await, before);
}

async fn a_pin_outside_the_schema_window_is_refused(plane: Plane) {
    plane.acme().await;
    let refused = plane.put_pin("acme", "payment", "2.0").await;
    assert_eq!(fact(refused.clone(), "window"), ">= 1.1");
    assert_eq!(fact(refused.clone(), "schema"), "");
    assert_eq!(refused.clone().unwrap_err().code(), tonic::Code::FailedPrecondition);
    assert_eq!(reason(refused), Reason::NoLegalVersion);
    let seen = |schema: &str| {
        let (tenant, service, schema) = ("acme".into(), "payment".into(), schema.into());
        let schema = ObservedSchema { tenant, service, schema, ..ObservedSchema::default() };
        ObserveSchemaRequest { schema: Some(schema), write: None }
    };
    plane.tenants().observe_schema(seen("1.0")).await.unwrap();
    let refused = plane.put_pin("acme", "payment", "2.0").await;
    assert!(refused.clone().unwrap_err().message().contains("schema 1 "), "{refused:?}");
    assert_eq!(fact(refused, "schema"), "1");
    plane.tenants().observe_schema(seen("1.10")).await.unwrap();
    plane.put_pin("acme", "payment", "2.0").await.unwrap();
}

async fn a_pin_is_replaced_locked_and_removed(plane: Plane) {
    plane.acme().await;
    plane.put_version("payment", "1.5", None).await;
    let first = plane.put_pin("acme", "payment", "1.0").await.unwrap();
    let second = plane.put_pin("acme", "payment", "1.5").await.unwrap();
    let locked = Pin { locked: true, ..pin("acme", "payment", "1.5") };
    let request = PutPinRequest { pin: Some(locked), ..PutPinRequest::default() };
    let third = plane.pins().put_pin(request).await.unwrap().into_inner().pin.unwrap();
    assert_eq!((second, third.revision, third.version.as_str()), (first + 1, first + 2, "v1.5"));
    let get = GetTenantRequest { id: "acme".into() };
    let read = plane.tenants().get_tenant(get.clone()).await.unwrap().into_inner();
    assert_eq!(read.pins, [third]);
    let request = DeletePinRequest { tenant: "acme".into(), service: "payment".into(), write: None };
    plane.pins().delete_pin(request).await.unwrap();
    assert!(plane.tenants().get_tenant(get).await.unwrap().into_inner().pins.is_empty());
}

async fn pins_are_listed_by_tenant_and_service(plane: Plane) {
    for service in ["a", "b"] {
        plane.put_service(service, "1").await;
    }
    for i in 0..5 {
        plane.put_tenant(&format!("t{i}")).await;
        for service in ["a", "b"] {
            plane.put_pin(&format!("t{i}"), service, "1").await.unwrap();
        }
    }
    let list = async |tenant: &str, service: &str| {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let (tenant, service) = (tenant.into(), service.into());
            let request = ListPinsRequest { tenant, service, page_size: 2, page_token };
            let page = plane.pins().list_pins(request).await.unwrap().into_inner();
            found.extend(page.pins.into_iter().map(|pin| format!("{}/{}", pin.tenant, pin.service)));
            if page.next_page_token.is_empty() {
                return found;
            }
            page_token = page.next_page_token;
        }
    };
    assert_eq!(list("", "b").await, ["t0/b", "t1/b", "t2/b", "t3/b", "t4/b"]);
    assert_eq!(list("t3", "").await, ["t3/a", "t3/b"]);
    assert_eq!(list("t3", "a").await, ["t3/a"]);
    assert!(list("nobody", "").await.is_empty());
}
