//! `/api/services`.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post, put};
use grey_proto::control::{
    DeleteOverlayRequest, DeleteOverlayResponse, DeleteServiceRequest, DeleteServiceResponse,
    DeleteVersionRequest, DeleteVersionResponse, GetServiceRequest, GetServiceResponse, ListServicesRequest,
    ListServicesResponse, Overlay, Policy, PromoteOverlayRequest, PromoteOverlayResponse, PutOverlayRequest,
    PutOverlayResponse, PutPolicyRequest, PutPolicyResponse, PutServiceRequest, PutServiceResponse,
    PutVersionRequest, PutVersionResponse, Service, ServiceVersion,
};
use serde::Deserialize;

use super::input::adopt;
use super::output::tag_of;
use super::{Answer, Input, Reply};
use crate::access::Operation;
use crate::api::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/services", get(list))
        .route("/api/services/{id}", get(read).put(write).delete(remove))
        .route("/api/services/{id}/versions/{version}", put(write_version).delete(remove_version))
        .route("/api/services/{id}/policy", get(read_policy).put(write_policy))
        .route("/api/services/{id}/overlays/{overlay}", put(write_overlay).delete(remove_overlay))
        .route("/api/services/{id}/overlays/{overlay}/promotion", post(promote_overlay))
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
    let tag = (response.epoch, response.service.as_ref().map_or(0, |service| service.revision));
    Ok(Reply::tagged(response, tag))
}

async fn write(State(api): State<Api>, input: Input) -> Answer<PutServiceResponse> {
    let caller = input.admit(Operation::PutService)?;
    let mut service: Service = input.json()?;
    adopt("id", &mut service.id, input.path("id"))?;
    let request = PutServiceRequest { service: Some(service), write: input.write()? };
    let response = api.put_service(&caller, request).await?;
    let tag = tag_of(response.result.as_ref(), response.service.as_ref().map(|service| service.revision));
    Ok(Reply::tagged(response, tag))
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
    let request =
        PutVersionRequest { version: Some(version), write: input.write()?, update_mask: Vec::new() };
    let response = api.put_version(&caller, request).await?;
    let tag = tag_of(response.result.as_ref(), response.version.as_ref().map(|version| version.revision));
    Ok(Reply::tagged(response, tag))
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
    let tag = (response.epoch, policy.revision);
    Ok(Reply::tagged(policy, tag))
}

async fn write_policy(State(api): State<Api>, input: Input) -> Answer<PutPolicyResponse> {
    let caller = input.admit(Operation::PutPolicy)?;
    let mut policy: Policy = input.json()?;
    adopt("service", &mut policy.service, input.path("id"))?;
    let request = PutPolicyRequest { policy: Some(policy), write: input.write()?, update_mask: Vec::new() };
    let response = api.put_policy(&caller, request).await?;
    let tag = tag_of(response.result.as_ref(), response.policy.as_ref().map(|policy| policy.revision));
    Ok(Reply::tagged(response, tag))
}

async fn write_overlay(State(api): State<Api>, input: Input) -> Answer<PutOverlayResponse> {
    let caller = input.admit(Operation::PutOverlay)?;
    let mut overlay: Overlay = input.json()?;
    adopt("service", &mut overlay.service, input.path("id"))?;
    adopt("id", &mut overlay.id, input.path("overlay"))?;
    let request =
        PutOverlayRequest { overlay: Some(overlay), write: input.write()?, update_mask: Vec::new() };
    let response = api.put_overlay(&caller, request).await?;
    let tag = tag_of(response.result.as_ref(), response.overlay.as_ref().map(|overlay| overlay.revision));
    Ok(Reply::tagged(response, tag))
}

async fn remove_overlay(State(api): State<Api>, input: Input) -> Answer<DeleteOverlayResponse> {
    let caller = input.admit(Operation::DeleteOverlay)?;
    let (service, id) = (input.path("id"), input.path("overlay"));
    let request = DeleteOverlayRequest { service, id, write: input.write()? };
    Ok(Reply::new(api.delete_overlay(&caller, request).await?))
}

/// Which arm of an experiment won; nothing for a canary.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Winner {
    #[serde(default)]
    variant: String,
}

async fn promote_overlay(State(api): State<Api>, input: Input) -> Answer<PromoteOverlayResponse> {
    let caller = input.admit(Operation::PromoteOverlay)?;
    let Winner { variant } = input.object_if_any()?;
    let (service, id) = (input.path("id"), input.path("overlay"));
    let request = PromoteOverlayRequest { service, id, variant, write: input.write()? };
    Ok(Reply::new(api.promote_overlay(&caller, request).await?))
}
