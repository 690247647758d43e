//! The operations over HTTP: the same messages as proto3 JSON, entity tags for expected revisions.

mod catalog;
mod databases;
mod fleet;
mod history;
mod input;
mod output;
mod pins;
mod tenants;
mod upgrades;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use grey_core::error::Reason;
use grey_edge::Failure;
use grey_proto::status::ApiError;

use crate::api::Api;
use input::Input;
use output::{Answer, Reply};

/// Every route under `/api`, each request at most `max_bytes` long.
pub(crate) fn routes(api: &Api, max_bytes: usize) -> Router {
    Router::new()
        .merge(tenants::routes())
        .merge(catalog::routes())
        .merge(pins::routes())
        .merge(databases::routes())
        .merge(upgrades::routes())
        .merge(history::routes())
        .merge(fleet::routes())
        .fallback(async || unknown("no such resource", StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || {
            unknown("the resource has no such method", StatusCode::METHOD_NOT_ALLOWED)
        })
        .layer(DefaultBodyLimit::max(max_bytes))
        .with_state(api.clone())
}

fn unknown(message: &str, code: StatusCode) -> Failure {
    Failure::with_code(ApiError::new(Reason::InvalidArgument, message), code)
}
