//! Tenants and their observed schemas.

use grey_core::error::Reason;
use grey_proto::control::{
    DeleteTenantRequest, GetTenantRequest, ListTenantsRequest, ObserveSchemaRequest, ObservedSchema,
    PutTenantRequest, Tenant, TenantStatus,
};

use crate::fixture::{Plane, on_both, reason, revision};

on_both! {
    a_tenant_reads_back_as_written
    deleting_a_tenant_removes_what_is_tied_to_it
    tenants_are_listed_by_page_and_filter
    schemas_are_recorded_once
}

async fn observe(plane: &Plane, tenant: &str, service: &str, schema: &str) -> Result<u64, tonic::Status> {
    let schema = ObservedSchema {
        tenant: tenant.into(),
        service: service.into(),
        schema: schema.into(),
        ..ObservedSchema::default()
    };
    let request = ObserveSchemaRequest { schema: Some(schema), write: None };
    plane.tenants().observe_schema(request).await.map(|response| revision(response.into_inner().result))
}

async fn a_tenant_reads_back_as_written(plane: Plane) {
    let labels = [("team".to_owned(), "ä \"b\" '; DROP".to_owned())].into_iter().collect();
    let tenant = Tenant {
        id: "acme".into(),
        name: "Acme & Söhne".into(),
        status: TenantStatus::Suspended.into(),
        tier: "gold".into(),
        region: "eu-1".into(),
        residency: vec!["eu-1".into(), "eu-2".into()],
        labels,
        revision: 77,
    };
    let request = PutTenantRequest { tenant: Some(tenant.clone()), write: None, update_mask: Vec::new() };
    let written = plane.tenants().put_tenant(request).await.unwrap().into_inner().tenant.unwrap();
    let read = plane.tenants().get_tenant(GetTenantRequest { id: "acme".into() }).await.unwrap().into_inner();
    assert_eq!(read.tenant.as_ref(), Some(&written));
    assert_eq!(written, Tenant { revision: 1, ..tenant });
}

async fn deleting_a_tenant_removes_what_is_tied_to_it(plane: Plane) {
    plane.acme().await;
    plane.put_pin("acme", "payment", "1.0").await.unwrap();
    observe(&plane, "acme", "payment", "1.0").await.unwrap();
    let delete = || DeleteTenantRequest { id: "acme".into(), write: None };
    plane.tenants().delete_tenant(delete()).await.unwrap();
    let get = GetTenantRequest { id: "acme".into() };
    assert_eq!(reason(plane.tenants().get_tenant(get.clone()).await), Reason::UnknownTenant);
    assert_eq!(reason(plane.tenants().delete_tenant(delete()).await), Reason::UnknownTenant);
    plane.put_tenant("acme").await;
    let read = plane.tenants().get_tenant(get).await.unwrap().into_inner();
    assert!(read.pins.is_empty() && read.schemas.is_empty(), "{read:?}");
}

async fn tenants_are_listed_by_page_and_filter(plane: Plane) {
    for i in 0..25 {
        let tier = if i % 2 == 0 { "gold" } else { "" };
        let region = if i % 5 == 0 { "eu" } else { "us" };
        let status = if i == 4 { TenantStatus::Maintenance } else { TenantStatus::Active };
        let tenant = Tenant {
            id: format!("t{i:02}"),
            tier: tier.into(),
            region: region.into(),
            status: status.into(),
            ..Tenant::default()
        };
        plane
            .tenants()
            .put_tenant(PutTenantRequest { tenant: Some(tenant), write: None, update_mask: Vec::new() })
            .await
            .unwrap();
    }
    let all = async |filter: ListTenantsRequest| {
        let (mut found, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = ListTenantsRequest { page_size: 7, page_token, ..filter.clone() };
            let page = plane.tenants().list_tenants(request).await.unwrap().into_inner();
            assert!(page.tenants.len() <= 7);
            found.extend(page.tenants.into_iter().map(|tenant| tenant.id));
            pages += 1;
            if page.next_page_token.is_empty() {
                return (found, pages);
            }
            page_token = page.next_page_token;
        }
    };
    let (found, pages) = all(ListTenantsRequest::default()).await;
    assert_eq!(found, (0..25).map(|i| format!("t{i:02}")).collect::<Vec<_>>());
    assert_eq!(pages, 4);
    let gold = ListTenantsRequest { tier: "gold".into(), region: "eu".into(), ..Default::default() };
    assert_eq!(all(gold).await.0, ["t00", "t10", "t20"]);
    let resting = ListTenantsRequest { status: TenantStatus::Maintenance.into(), ..Default::default() };
    assert_eq!(all(resting).await.0, ["t04"]);
}

async fn schemas_are_recorded_once(plane: Plane) {
    plane.acme().await;
    let first = observe(&plane, "acme", "payment", "1.0").await.unwrap();
    assert_eq!(observe(&plane, "acme", "payment", "1").await.unwrap(), first);
    let second = observe(&plane, "acme", "payment", "1.1").await.unwrap();
    assert_eq!(second, first + 1);
    let get = GetTenantRequest { id: "acme".into() };
    let read = plane.tenants().get_tenant(get.clone()).await.unwrap().into_inner();
    let [seen] = read.schemas.as_slice() else { panic!("{read:?}") };
    assert_eq!((seen.schema.as_str(), seen.revision), ("1.1", second));
    assert!(seen.observed_at.as_ref().unwrap().seconds > 1_700_000_000);
    observe(&plane, "acme", "payment", "").await.unwrap();
    assert!(plane.tenants().get_tenant(get).await.unwrap().into_inner().schemas.is_empty());
    assert_eq!(observe(&plane, "acme", "payment", "").await.unwrap(), second + 1);
    assert_eq!(reason(observe(&plane, "nobody", "payment", "1").await), Reason::UnknownTenant);
    assert_eq!(reason(observe(&plane, "acme", "nothing", "1").await), Reason::UnknownService);
}
