//! `/api/routers`.

use axum::Router;
use axum::extract::State;
use axum::routing::{delete, get, post};
use grey_proto::control::{
    DismissRouterRequest, DismissRouterResponse, ListRoutersRequest, ListRoutersResponse,
    WaitForRoutersRequest, WaitForRoutersResponse,
};

use super::{Answer, Input, Reply};
use crate::access::Operation;
use crate::api::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/routers", get(list))
        .route("/api/routers/wait", post(wait))
        .route("/api/routers/{id}", delete(dismiss))
}

async fn list(State(api): State<Api>, input: Input) -> Answer<ListRoutersResponse> {
    let caller = input.admit(Operation::ListRouters)?;
    input.allow(&["former"])?;
    let request = ListRoutersRequest { former: input.value("former")? };
    Ok(Reply::new(api.list_routers(&caller, request).await?))
}

async fn wait(State(api): State<Api>, input: Input) -> Answer<WaitForRoutersResponse> {
    let caller = input.admit(Operation::WaitForRouters)?;
    input.allow(&[])?;
    let request: WaitForRoutersRequest = input.json()?;
    Ok(Reply::new(api.wait_for_routers(&caller, request).await?))
}

async fn dismiss(State(api): State<Api>, input: Input) -> Answer<DismissRouterResponse> {
    let caller = input.admit(Operation::DismissRouter)?;
    input.allow(&["reason"])?;
    input.unconditional()?;
    let request = DismissRouterRequest { id: input.path("id"), reason: input.text("reason") };
    Ok(Reply::new(api.dismiss_router(&caller, request).await?))
}
