//! `/api/routers`.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use grey_proto::control::{
    ListRoutersRequest, ListRoutersResponse, WaitForRoutersRequest, WaitForRoutersResponse,
};

use super::{Answer, Input, Reply};
use crate::access::Operation;
use crate::api::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/routers", get(list)).route("/api/routers/wait", post(wait))
}

async fn list(State(api): State<Api>, input: Input) -> Answer<ListRoutersResponse> {
    let caller = input.admit(Operation::ListRouters)?;
    input.allow(&[])?;
    Ok(Reply::new(api.list_routers(&caller, ListRoutersRequest {}).await?))
}

async fn wait(State(api): State<Api>, input: Input) -> Answer<WaitForRoutersResponse> {
    let caller = input.admit(Operation::WaitForRouters)?;
    input.allow(&[])?;
    let request: WaitForRoutersRequest = input.json()?;
    Ok(Reply::new(api.wait_for_routers(&caller, request).await?))
}
