//! A tenant's version of a service, `/api/pins` and `/api/change-sets`.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::routing::{get, post, put};
use grey_proto::control::{
    ApplyChangeSetRequest, ApplyChangeSetResponse, DeletePinRequest, DeletePinResponse, ListPinsRequest,
    ListPinsResponse, Pin, PutPinRequest, PutPinResponse, PutPinsRequest, PutPinsResponse,
};
use grey_proto::convert::InvalidMessage;
use serde::Deserialize;

use super::output::tag_of;
use super::{Answer, Input, Reply, upgrades};
use crate::access::Operation;
use crate::api::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/pins", get(list).post(write_many))
        .route("/api/change-sets", post(apply))
        .route("/api/tenants/{id}/services/{service}/version", put(write).delete(remove))
}

/// The version that a tenant shall have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(alias = "targetVersion")]
    version: String,
    #[serde(default)]
    locked: bool,
    #[serde(default)]
    migrate: bool,
    #[serde(default)]
    strict: bool,
}

async fn list(State(api): State<Api>, input: Input) -> Answer<ListPinsResponse> {
    let caller = input.admit(Operation::ListPins)?;
    input.allow(&["tenant", "service", "pageSize", "pageToken"])?;
    let request = ListPinsRequest {
        tenant: input.text("tenant"),
        service: input.text("service"),
        page_size: input.value("pageSize")?,
        page_token: input.text("pageToken"),
    };
    Ok(Reply::new(api.list_pins(&caller, request).await?))
}

async fn write(State(api): State<Api>, input: Input) -> Answer<PutPinResponse> {
    let caller = input.admit(Operation::PutPin)?;
    let Wanted { version, locked, migrate, strict } = input.json()?;
    let (tenant, service) = (input.path("id"), input.path("service"));
    let pin = Pin { tenant, service, version, locked, revision: 0 };
    let write = input.write_with(&["migrate", "strict"])?;
    let migrate = migrate || input.value("migrate")?;
    let strict = strict || input.value("strict")?;
    let request = PutPinRequest { pin: Some(pin), write, migrate, strict };
    let response = api.put_pin(&caller, request).await?;
    if !response.upgrade.is_empty() {
        let location = upgrades::place(&response.upgrade);
        return Ok(Reply::accepted(response, location));
    }
    let tag = tag_of(response.result.as_ref(), response.pin.as_ref().map(|pin| pin.revision));
    Ok(Reply::tagged(response, tag))
}

async fn write_many(State(api): State<Api>, input: Input) -> Answer<PutPinsResponse> {
    let caller = input.admit(Operation::PutPins)?;
    let body: PutPinsRequest = input.json()?;
    if body.write.is_some() {
        return Err(InvalidMessage::new("write", "is said by the query").into());
    }
    input.refuse(&header::IF_NONE_MATCH)?;
    let request = PutPinsRequest { write: input.write()?, ..body };
    let response = api.put_pins(&caller, request).await?;
    let revision = response.result.as_ref().map(|result| result.revision);
    let tag = tag_of(response.result.as_ref(), revision);
    Ok(Reply::tagged(response, tag))
}

async fn remove(State(api): State<Api>, input: Input) -> Answer<DeletePinResponse> {
    let caller = input.admit(Operation::DeletePin)?;
    let (tenant, service) = (input.path("id"), input.path("service"));
    let request = DeletePinRequest { tenant, service, write: input.write()? };
    Ok(Reply::new(api.delete_pin(&caller, request).await?))
}

/// The body is the whole request, options of the write included.
async fn apply(State(api): State<Api>, input: Input) -> Answer<ApplyChangeSetResponse> {
    let caller = input.admit(Operation::ApplyChangeSet)?;
    input.allow(&[])?;
    let request: ApplyChangeSetRequest = input.json()?;
    Ok(Reply::new(api.apply_change_set(&caller, request).await?))
}
