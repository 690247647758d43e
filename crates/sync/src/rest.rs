//! The operations over HTTP: the same messages as proto3 JSON.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use grey_core::error::Reason;
use grey_edge::Failure;
use grey_proto::convert::{InvalidMessage, json_fault};
use grey_proto::status::ApiError;
use grey_proto::sync::{AcceptRequest, AcceptResponse, GetStatusResponse, TriggerRequest, TriggerResponse};
use serde::de::DeserializeOwned;

use crate::{Desk, api};

/// Requests say little.
const MAX_BODY: usize = 64 << 10;

type Body = Result<Bytes, BytesRejection>;
type Answer<T> = Result<Json<T>, Failure>;

/// `GET /api/sync`, `POST /api/sync/run` and `POST /api/sync/changes/{id}/accept`: the messages of the gRPC service as
/// proto3 JSON; and the answer to every other path, so routes that are merged bring no fallback of their own.
///
/// To be served by [`grey_edge::Ports`] with a deadline of [`REQUEST_TIMEOUT`](crate::REQUEST_TIMEOUT) at least.
pub fn rest(desk: &Desk) -> Router {
    Router::new()
        .route("/api/sync", get(status))
        .route("/api/sync/run", post(run))
        .route("/api/sync/changes/{id}/accept", post(accept))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .method_not_allowed_fallback(async || {
            unknown("the resource has no such method", StatusCode::METHOD_NOT_ALLOWED)
        })
        .fallback(async || unknown("no such resource", StatusCode::NOT_FOUND))
        .with_state(desk.clone())
}

fn unknown(message: &str, code: StatusCode) -> Failure {
    Failure::with_code(ApiError::new(Reason::InvalidArgument, message), code)
}

async fn status(
    State(desk): State<Desk>,
    caller: Extensions,
    RawQuery(query): RawQuery,
) -> Answer<GetStatusResponse> {
    no_query(query.as_deref())?;
    Ok(Json(api::get_status(&desk, &caller).await?))
}

async fn run(
    State(desk): State<Desk>,
    caller: Extensions,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer<TriggerResponse> {
    no_query(query.as_deref())?;
    let asked: TriggerRequest = json(&headers, body)?;
    Ok(Json(api::trigger(&desk, &caller, asked).await?))
}

async fn accept(
    State(desk): State<Desk>,
    caller: Extensions,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer<AcceptResponse> {
    let Path(change) = path.map_err(|_| InvalidMessage::new("path", "is not UTF-8"))?;
    no_query(query.as_deref())?;
    let mut asked: AcceptRequest = json(&headers, body)?;
    if asked.change.is_empty() {
        asked.change = change;
    } else if asked.change != change {
        return Err(InvalidMessage::new("change", "is not the one that the path names").into());
    }
    Ok(Json(api::accept(&desk, &caller, asked).await?))
}

fn no_query(query: Option<&str>) -> Result<(), InvalidMessage> {
    match query {
        None | Some("") => Ok(()),
        Some(_) => Err(InvalidMessage::new("query", "must be empty; the body says what is asked")),
    }
}

/// The body as JSON. Its type must be stated: a page of another site can make a browser send anything else.
fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Failure> {
    let stated =
        headers.get(header::CONTENT_TYPE).and_then(|stated| stated.to_str().ok()).unwrap_or_default();
    let essence = stated.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let error = InvalidMessage::new("content-type", "must be application/json");
        return Err(Failure::with_code(error.into(), StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(Reason::TooLarge, "the request is larger than allowed")
        }
        _ => InvalidMessage::new("body", "cannot be read").into(),
    })?;
    let read = serde_json::from_slice(&body);
    Ok(read.map_err(|error| InvalidMessage::new("body", json_fault(&error)))?)
}
