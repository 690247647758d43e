//! `/api/services`.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, put};
use grey_proto::control::{
    DeleteServiceRequest, DeleteServiceResponse, DeleteVersionRequest, DeleteVersionResponse,
    GetServiceRequest, GetServiceResponse, ListServicesRequest, ListServicesResponse, Policy,
    PutPolicyRequest, PutPolicyResponse, PutServiceRequest, PutServiceResponse, PutVersionRequest,
    PutVersionResponse, Service, ServiceVersion,
};

use super::input::adopt;
use super::{Answer, Input, Reply};
use crate::access::Operation;
use crate::api::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/services", get(list))
        .route("/api/services/{id}", get(read).put(write).delete(remove))
        .route("/api/services/{id}/versions/{version}", put(write_version).delete(remove_version))
        .route("/api/services/{id}/policy", get(read_policy).put(write_policy))
}

async fn list(State(api): State<Api>, input: Input) -> Answer<ListServicesResponse> {
    let caller = input.admit(Operation::ListServices)?;
    input.allow(&["pageSize", "pageToken"])?;
    let (page_size, page_token) = (input.value("pageSize")?, input.text("pageToken"));
    Ok(Reply::new(api.list_services(&caller, ListServicesRequest { page_size, page_token }).await?))
}

async fn read(State(api): State<Api>, input: Input) -> Answer<GetServiceResponse> {
    let caller = input.admit(Operation::GetService)?;
    input.allow(&[])?;
    let response = api.get_service(&caller, GetServiceRequest { id: input.path("id") }).await?;
    let revision = response.service.as_ref().map_or(0, |service| service.revision);
    Ok(Reply::tagged(response, revision))
}

async fn write(State(api): State<Api>, input: Input) -> Answer<PutServiceResponse> {
    let caller = input.admit(Operation::PutService)?;
    let mut service: Service = input.json()?;
    adopt("id", &mut service.id, input.path("id"))?;
    let request = PutServiceRequest { service: Some(service), write: input.write()? };
    let response = api.put_service(&caller, request).await?;
    let revision = response.service.as_ref().map_or(0, |service| service.revision);
    Ok(Reply::tagged(response, revision))
}

async fn remove(State(api): State<Api>, input: Input) -> Answer<DeleteServiceResponse> {
    let caller = input.admit(Operation::DeleteService)?;
    let request = DeleteServiceRequest { id: input.path("id"), write: input.write()? };
    Ok(Reply::new(api.delete_service(&caller, request).await?))
}

async fn write_version(State(api): State<Api>, input: Input) -> Answer<PutVersionResponse> {
    let caller = input.admit(Operation::PutVersion)?;
    let mut version: ServiceVersion = input.json()?;
    adopt("service", &mut version.service, input.path("id"))?;
    adopt("version", &mut version.version, input.path("version"))?;
    let request = PutVersionRequest { version: Some(version), write: input.write()? };
    let response = api.put_version(&caller, request).await?;
    let revision = response.version.as_ref().map_or(0, |version| version.revision);
    Ok(Reply::tagged(response, revision))
}

async fn remove_version(State(api): State<Api>, input: Input) -> Answer<DeleteVersionResponse> {
    let caller = input.admit(Operation::DeleteVersion)?;
    let (service, version) = (input.path("id"), input.path("version"));
    let request = DeleteVersionRequest { service, version, write: input.write()? };
    Ok(Reply::new(api.delete_version(&caller, request).await?))
}

async fn read_policy(State(api): State<Api>, input: Input) -> Answer<Policy> {
    let caller = input.admit(Operation::GetService)?;
    input.allow(&[])?;
    let response = api.get_service(&caller, GetServiceRequest { id: input.path("id") }).await?;
    let policy = response.policy.unwrap_or_default();
    let revision = policy.revision;
    Ok(Reply::tagged(policy, revision))
}

async fn write_policy(State(api): State<Api>, input: Input) -> Answer<PutPolicyResponse> {
    let caller = input.admit(Operation::PutPolicy)?;
    let mut policy: Policy = input.json()?;
    adopt("service", &mut policy.service, input.path("id"))?;
    let request = PutPolicyRequest { policy: Some(policy), write: input.write()? };
    let response = api.put_policy(&caller, request).await?;
    let revision = response.policy.as_ref().map_or(0, |policy| policy.revision);
    Ok(Reply::tagged(response, revision))
}
