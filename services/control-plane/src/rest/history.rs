//! `/api/events` and `/api/explain`.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use grey_proto::control::{ExplainAtRequest, ExplainAtResponse, ListEventsRequest, ListEventsResponse};

use super::{Answer, Input, Reply};
use crate::access::Operation;
use crate::api::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/events", get(list)).route("/api/explain", post(explain))
}

async fn list(State(api): State<Api>, input: Input) -> Answer<ListEventsResponse> {
    let caller = input.admit(Operation::ListEvents)?;
    input.allow(&["after", "limit", "newestFirst"])?;
    let request = ListEventsRequest {
        after: input.value("after")?,
        limit: input.value("limit")?,
        newest_first: input.value("newestFirst")?,
    };
    Ok(Reply::new(api.list_events(&caller, request).await?))
}

async fn explain(State(api): State<Api>, input: Input) -> Answer<ExplainAtResponse> {
    let caller = input.admit(Operation::ExplainAt)?;
    input.allow(&[])?;
    let request: ExplainAtRequest = input.json()?;
    Ok(Reply::new(api.explain_at(&caller, request).await?))
}
