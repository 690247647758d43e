//! Bad input to every method: the right refusal, nothing changed, still alive.

use grey_core::error::Reason;
use grey_proto::DESCRIPTORS;
use grey_proto::control::{
    DeleteDatabaseRequest, DeletePinRequest, DeleteServiceRequest, DeleteTenantRequest, DeleteVersionRequest,
    DismissRouterRequest, ExplainAtRequest, GetServiceRequest, GetTenantRequest, ListDatabasesRequest,
    ListEventsRequest, ListPinsRequest, ListSealedDatabasesRequest, ListServicesRequest, ListTenantsRequest,
    ObserveSchemaRequest, ObservedSchema, Pin, Policy, PutDatabaseRequest, PutPinRequest, PutPolicyRequest,
    PutServiceRequest, PutTenantRequest, PutVersionRequest, SchemaWindow, Service, ServiceVersion, Tenant,
    TenantDatabase, WriteOptions,
};
use grey_proto::router::RouteRequest;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::databases::{URL, database};
use crate::fixture::{Caller, Plane, on_both, pin, reason, tenant};

on_both! {
    malformed_and_oversized_requests_are_refused_by_every_method
    wrong_values_are_refused_by_every_method
}

/// Every method of the contract, as `Service/Method`.
pub(crate) fn methods() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let services =
        files.into_iter().filter(|file| file.package() == "grey.control.v1").flat_map(|file| file.service);
    services
        .flat_map(|service| {
            let name = service.name().to_owned();
            service.method.into_iter().map(move |method| format!("{name}/{}", method.name()))
        })
        .collect()
}

/// Calls a method with any bytes: a text travels as field 1. Returns once the answer begins.
pub(crate) async fn send(plane: &Plane, method: &str, payload: String) -> Result<(), Status> {
    let mut grpc: Grpc<Caller> = Grpc::new(plane.caller());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/grey.control.v1.{method}")).unwrap();
    let codec: ProstCodec<String, ()> = ProstCodec::default();
    grpc.server_streaming(Request::new(payload), path, codec).await.map(drop)
}

async fn malformed_and_oversized_requests_are_refused_by_every_method(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    // As the bytes of a message: field 15 with a wire type that does not exist.
    // A message without fields takes any.
    let empty = ["DatabaseService/RotateKeys"];
    for method in methods().iter().filter(|method| !empty.contains(&method.as_str())) {
        let refused = send(&plane, method, "\u{7f}\u{7f}".to_owned()).await;
        assert_eq!(reason(refused), Reason::InvalidArgument, "{method}");
    }
    for method in methods() {
        let refused = send(&plane, &method, "x".repeat((1 << 20) + 1)).await;
        assert_eq!(reason(refused.clone()), Reason::TooLarge, "{method}");
        assert_eq!(refused.unwrap_err().code(), tonic::Code::ResourceExhausted, "{method}");
    }
    let unknown = send(&plane, "PinService/Unpin", String::new()).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::Unimplemented);
    assert_eq!(plane.revision().await, before);
}

const BAD_IDS: [&str; 7] = ["", "A", "a b", "{a}", "../etc", "a:b", "ä"];

fn bad_ids() -> Vec<String> {
    BAD_IDS.iter().map(|id| (*id).to_owned()).chain(["x".repeat(64)]).collect()
}

async fn wrong_values_are_refused_by_every_method(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    let bad = Reason::InvalidArgument;
    let (mut tenants, mut catalog, mut pins) = (plane.tenants(), plane.catalog(), plane.pins());
    let mut history = plane.history();

    for id in bad_ids() {
        assert_eq!(reason(tenants.get_tenant(GetTenantRequest { id: id.clone() }).await), bad, "{id}");
        let delete = DeleteTenantRequest { id: id.clone(), write: None };
        assert_eq!(reason(tenants.delete_tenant(delete).await), bad, "{id}");
        let put = PutTenantRequest { tenant: Some(tenant(&id)), write: None, update_mask: Vec::new() };
        assert_eq!(reason(tenants.put_tenant(put).await), bad, "{id}");
        assert_eq!(reason(catalog.get_service(GetServiceRequest { id: id.clone() }).await), bad, "{id}");
        let delete = DeleteServiceRequest { id: id.clone(), write: None };
        assert_eq!(reason(catalog.delete_service(delete).await), bad, "{id}");
        let service = Service { id: id.clone(), default_version: "1.0".into(), revision: 0 };
        let put = PutServiceRequest { service: Some(service), write: None };
        assert_eq!(reason(catalog.put_service(put).await), bad, "{id}");
        for (tenant, service) in [("acme", id.as_str()), (id.as_str(), "payment")] {
            assert_eq!(reason(plane.put_pin(tenant, service, "1.0").await), bad, "{id}");
            let delete = DeletePinRequest { tenant: tenant.into(), service: service.into(), write: None };
            assert_eq!(reason(pins.delete_pin(delete).await), bad, "{id}");
            let seen =
                ObservedSchema { tenant: tenant.into(), service: service.into(), ..Default::default() };
            let observe = ObserveSchemaRequest { schema: Some(seen), write: None };
            assert_eq!(reason(tenants.observe_schema(observe).await), bad, "{id}");
            let call = RouteRequest { tenant: tenant.into(), service: service.into(), ..Default::default() };
            let put = PutDatabaseRequest {
                database: Some(database(tenant, service)),
                url: URL.into(),
                ..PutDatabaseRequest::default()
            };
            assert_eq!(reason(plane.databases().put_database(put).await), bad, "{id}");
            let delete =
                DeleteDatabaseRequest { tenant: tenant.into(), service: service.into(), write: None };
            assert_eq!(reason(plane.databases().delete_database(delete).await), bad, "{id}");
            let explain = ExplainAtRequest { call: Some(call), revision: 0 };
            assert_eq!(reason(history.explain_at(explain).await), bad, "{id}");
        }
        let policy = Policy { service: id.clone(), ..Policy::default() };
        let put = PutPolicyRequest { policy: Some(policy), write: None, update_mask: Vec::new() };
        assert_eq!(reason(catalog.put_policy(put).await), bad, "{id}");
    }
    for version in ["", "latest", "1.2.3.4", "1.0+b", "v", &"1".repeat(65)] {
        assert_eq!(reason(plane.put_pin("acme", "payment", version).await), bad, "{version}");
        let service = Service { id: "payment".into(), default_version: version.into(), revision: 0 };
        let put = PutServiceRequest { service: Some(service), write: None };
        assert_eq!(reason(catalog.put_service(put).await), bad, "{version}");
        let put = ServiceVersion { service: "payment".into(), version: version.into(), ..Default::default() };
        let put = PutVersionRequest { version: Some(put), write: None, update_mask: Vec::new() };
        assert_eq!(reason(catalog.put_version(put).await), bad, "{version}");
        let delete = DeleteVersionRequest { service: "payment".into(), version: version.into(), write: None };
        assert_eq!(reason(catalog.delete_version(delete).await), bad, "{version}");
    }
    missing_parts(&plane).await;
    out_of_range(&plane).await;
    assert_eq!(plane.revision().await, before);
    assert!(plane.put_pin("acme", "payment", "1.0").await.is_ok());
}

async fn missing_parts(plane: &Plane) {
    let bad = Reason::InvalidArgument;
    assert_eq!(reason(plane.tenants().put_tenant(PutTenantRequest::default()).await), bad);
    assert_eq!(reason(plane.tenants().observe_schema(ObserveSchemaRequest::default()).await), bad);
    assert_eq!(reason(plane.catalog().put_service(PutServiceRequest::default()).await), bad);
    assert_eq!(reason(plane.catalog().put_version(PutVersionRequest::default()).await), bad);
    assert_eq!(reason(plane.catalog().put_policy(PutPolicyRequest::default()).await), bad);
    assert_eq!(reason(plane.pins().put_pin(PutPinRequest::default()).await), bad);
    assert_eq!(reason(plane.pins().list_pins(ListPinsRequest::default()).await), bad);
    assert_eq!(reason(plane.databases().put_database(PutDatabaseRequest::default()).await), bad);
    assert_eq!(reason(plane.history().explain_at(ExplainAtRequest::default()).await), bad);
}

async fn out_of_range(plane: &Plane) {
    let bad = Reason::InvalidArgument;
    let mut tenants = plane.tenants();
    let put = async |tenant: Tenant, write: Option<WriteOptions>| {
        let request = PutTenantRequest { tenant: Some(tenant), write, update_mask: Vec::new() };
        reason(plane.tenants().put_tenant(request).await)
    };
    assert_eq!(put(Tenant { status: 9, ..tenant("new") }, None).await, bad);
    assert_eq!(put(Tenant { name: "x".repeat(201), ..tenant("new") }, None).await, bad);
    assert_eq!(put(Tenant { tier: "Gold!".into(), ..tenant("new") }, None).await, bad);
    let labels = (0..33).map(|i| (format!("k{i}"), String::new())).collect();
    assert_eq!(put(Tenant { labels, ..tenant("new") }, None).await, bad);
    let long = WriteOptions { reason: "x".repeat(501), ..WriteOptions::default() };
    assert_eq!(put(tenant("new"), Some(long)).await, bad);
    // What a store or a terminal cannot take.
    for unfit in ["a\0b", "a\u{1b}[2Jb", "a\nb", "a\u{202e}b", "\u{2066}", "a\u{3164}b", "a\u{2800}b"] {
        assert_eq!(put(Tenant { name: unfit.into(), ..tenant("new") }, None).await, bad, "{unfit:?}");
        let labels = [("k".to_owned(), unfit.to_owned())].into();
        assert_eq!(put(Tenant { labels, ..tenant("new") }, None).await, bad, "{unfit:?}");
        let why = WriteOptions { reason: unfit.into(), ..WriteOptions::default() };
        assert_eq!(put(tenant("new"), Some(why)).await, bad, "{unfit:?}");
        let dismiss = DismissRouterRequest { id: "r1".into(), reason: unfit.into() };
        assert_eq!(reason(plane.fleet().dismiss_router(dismiss).await), bad, "{unfit:?}");
    }

    let list = ListTenantsRequest { page_size: 1001, ..Default::default() };
    assert_eq!(reason(tenants.list_tenants(list).await), bad);
    let list = ListTenantsRequest { page_token: "' OR 1=1".into(), ..Default::default() };
    assert_eq!(reason(tenants.list_tenants(list).await), bad);
    let list = ListTenantsRequest { status: 77, ..Default::default() };
    assert_eq!(reason(tenants.list_tenants(list).await), bad);
    let list = ListTenantsRequest { tier: "{}".into(), ..Default::default() };
    assert_eq!(reason(tenants.list_tenants(list).await), bad);
    let list = ListServicesRequest { page_size: u32::MAX, page_token: String::new() };
    assert_eq!(reason(plane.catalog().list_services(list).await), bad);
    for page_token in ["a", "a/b/c", "/", "A/b"] {
        let list =
            ListPinsRequest { tenant: "acme".into(), page_token: page_token.into(), ..Default::default() };
        assert_eq!(reason(plane.pins().list_pins(list).await), bad, "{page_token}");
    }
    for (page_size, page_token) in [(1_001, ""), (0, "a"), (0, "A/b")] {
        let page_token = page_token.to_owned();
        let list = ListDatabasesRequest { page_size, page_token: page_token.clone(), ..Default::default() };
        assert_eq!(reason(plane.databases().list_databases(list).await), bad, "{page_token}");
        let list = ListSealedDatabasesRequest { page_size, page_token, ..Default::default() };
        assert_eq!(reason(plane.databases().list_sealed_databases(list).await), bad);
    }
    for tenants in [vec!["acme".into(); 1_001], vec!["A".into()]] {
        let list = ListSealedDatabasesRequest { tenants, ..Default::default() };
        assert_eq!(reason(plane.databases().list_sealed_databases(list).await), bad);
    }
    let unheard_of = TenantDatabase { kind: 9, ..database("acme", "payment") };
    let put =
        PutDatabaseRequest { database: Some(unheard_of), url: URL.into(), ..PutDatabaseRequest::default() };
    assert_eq!(reason(plane.databases().put_database(put).await), bad);
    let list = ListEventsRequest { limit: 1001, ..Default::default() };
    assert_eq!(reason(plane.history().list_events(list).await), bad);

    let upside_down = SchemaWindow { min: "2".into(), max: "1".into() };
    let version = ServiceVersion {
        service: "payment".into(),
        version: "3".into(),
        schema: Some(upside_down),
        revision: 0,
    };
    let request = PutVersionRequest { version: Some(version), write: None, update_mask: Vec::new() };
    assert_eq!(reason(plane.catalog().put_version(request).await), bad);
    let seen = ObservedSchema {
        tenant: "acme".into(),
        service: "payment".into(),
        schema: "one".into(),
        ..Default::default()
    };
    assert_eq!(
        reason(tenants.observe_schema(ObserveSchemaRequest { schema: Some(seen), write: None }).await),
        bad
    );
    let metadata = (0..65).map(|i| (format!("k{i}"), String::new())).collect();
    let call =
        RouteRequest { tenant: "acme".into(), service: "payment".into(), metadata, ..Default::default() };
    assert_eq!(
        reason(plane.history().explain_at(ExplainAtRequest { call: Some(call), revision: 0 }).await),
        bad
    );
    let pin = Pin { version: "1".into(), ..pin("acme", "payment", "") };
    let wait = pbjson_types::Duration { seconds: i64::MIN, nanos: i32::MIN };
    let write = WriteOptions { wait: Some(wait), ..WriteOptions::default() };
    let request = PutPinRequest { pin: Some(pin), write: Some(write), ..PutPinRequest::default() };
    assert_eq!(reason(plane.pins().put_pin(request).await), bad);
}
