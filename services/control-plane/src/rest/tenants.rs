//! `/api/tenants`.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, put};
use grey_proto::control::{
    DeleteTenantRequest, DeleteTenantResponse, GetTenantRequest, GetTenantResponse, ListTenantsRequest,
    ListTenantsResponse, ObserveSchemaRequest, ObserveSchemaResponse, ObservedSchema, PutTenantRequest,
    PutTenantResponse, Tenant, TenantStatus,
};
use grey_proto::convert::InvalidMessage;

use super::input::adopt;
use super::output::tag_of;
use super::{Answer, Input, Reply};
use crate::access::Operation;
use crate::api::{Api, EffectiveServices};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/tenants", get(list))
        .route("/api/tenants/{id}", get(read).put(write).delete(remove))
        .route("/api/tenants/{id}/services", get(services))
        .route("/api/tenants/{id}/services/{service}/schema", put(observe))
}

async fn list(State(api): State<Api>, input: Input) -> Answer<ListTenantsResponse> {
    let caller = input.admit(Operation::ListTenants)?;
    input.allow(&["pageSize", "pageToken", "tier", "region", "status"])?;
    let request = ListTenantsRequest {
        page_size: input.value("pageSize")?,
        page_token: input.text("pageToken"),
        tier: input.text("tier"),
        region: input.text("region"),
        status: status(&input.text("status"))?.into(),
    };
    Ok(Reply::new(api.list_tenants(&caller, request).await?))
}

/// Both the contract's name of a status and its last word are understood.
fn status(text: &str) -> Result<TenantStatus, InvalidMessage> {
    let word = text.to_ascii_uppercase();
    let named = TenantStatus::from_str_name(&word);
    let named = named.or_else(|| TenantStatus::from_str_name(&format!("TENANT_STATUS_{word}")));
    match named {
        _ if text.is_empty() => Ok(TenantStatus::Unspecified),
        Some(status) => Ok(status),
        None => Err(InvalidMessage::new("status", "must be active, suspended or maintenance")),
    }
}

async fn read(State(api): State<Api>, input: Input) -> Answer<GetTenantResponse> {
    let caller = input.admit(Operation::GetTenant)?;
    input.allow(&[])?;
    let response = api.get_tenant(&caller, GetTenantRequest { id: input.path("id") }).await?;
    let tag = (response.epoch, response.tenant.as_ref().map_or(0, |tenant| tenant.revision));
    Ok(Reply::tagged(response, tag))
}

async fn write(State(api): State<Api>, input: Input) -> Answer<PutTenantResponse> {
    let caller = input.admit(Operation::PutTenant)?;
    let mut tenant: Tenant = input.json()?;
    adopt("id", &mut tenant.id, input.path("id"))?;
    let request = PutTenantRequest { tenant: Some(tenant), write: input.write()?, update_mask: Vec::new() };
    let response = api.put_tenant(&caller, request).await?;
    let tag = tag_of(response.result.as_ref(), response.tenant.as_ref().map(|tenant| tenant.revision));
    Ok(Reply::tagged(response, tag))
}

async fn remove(State(api): State<Api>, input: Input) -> Answer<DeleteTenantResponse> {
    let caller = input.admit(Operation::DeleteTenant)?;
    let request = DeleteTenantRequest { id: input.path("id"), write: input.write()? };
    Ok(Reply::new(api.delete_tenant(&caller, request).await?))
}

async fn services(State(api): State<Api>, input: Input) -> Answer<EffectiveServices> {
    let caller = input.admit(Operation::GetTenant)?;
    input.allow(&["pageSize", "pageToken"])?;
    let (size, token) = (input.value("pageSize")?, input.text("pageToken"));
    Ok(Reply::new(api.effective_services(&caller, &input.path("id"), (size, &token)).await?))
}

async fn observe(State(api): State<Api>, input: Input) -> Answer<ObserveSchemaResponse> {
    let caller = input.admit(Operation::ObserveSchema)?;
    let mut schema: ObservedSchema = input.json()?;
    adopt("tenant", &mut schema.tenant, input.path("id"))?;
    adopt("service", &mut schema.service, input.path("service"))?;
    let request = ObserveSchemaRequest { schema: Some(schema), write: input.write()? };
    Ok(Reply::new(api.observe_schema(&caller, request).await?))
}
