//! `/api/events`, `/api/events/verify` and `/api/explain`.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use grey_proto::control::{
    ExplainAtRequest, ExplainAtResponse, ListEventsRequest, ListEventsResponse, VerifyEventsRequest,
    VerifyEventsResponse,
};

use super::{Answer, Input, Reply};
use crate::access::Operation;
use crate::api::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/events", get(list))
        .route("/api/events/verify", get(verify))
        .route("/api/explain", post(explain))
}

async fn list(State(api): State<Api>, input: Input) -> Answer<ListEventsResponse> {
    let caller = input.admit(Operation::ListEvents)?;
    input.allow(&["after", "before", "limit", "newestFirst", "tenant", "service", "actor", "from", "to"])?;
    let request = ListEventsRequest {
        after: input.value("after")?,
        before: input.value("before")?,
        limit: input.value("limit")?,
        newest_first: input.value("newestFirst")?,
        tenant: input.text("tenant"),
        service: input.text("service"),
        actor: input.text("actor"),
        from: input.time("from")?,
        to: input.time("to")?,
    };
    Ok(Reply::new(api.list_events(&caller, request).await?))
}

async fn verify(State(api): State<Api>, input: Input) -> Answer<VerifyEventsResponse> {
    let caller = input.admit(Operation::VerifyEvents)?;
    input.allow(&["after", "limit"])?;
    let request = VerifyEventsRequest { after: input.value("after")?, limit: input.value("limit")? };
    Ok(Reply::new(api.verify_events(&caller, request).await?))
}

async fn explain(State(api): State<Api>, input: Input) -> Answer<ExplainAtResponse> {
    let caller = input.admit(Operation::ExplainAt)?;
    input.allow(&[])?;
    let request: ExplainAtRequest = input.json()?;
    Ok(Reply::new(api.explain_at(&caller, request).await?))
}
