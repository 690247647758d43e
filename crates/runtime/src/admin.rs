//! What operators and orchestrators read over HTTP: liveness, readiness, metrics.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use crate::{health::Health, telemetry::Telemetry};

/// `/health/live` (200 while the process runs), `/health/ready` (200 or 503, with the reason as JSON) and `/metrics`
/// (Prometheus text). Merge it into the service's own router.
pub fn routes(health: Health, telemetry: Telemetry) -> Router {
    Router::new()
        .route("/health/live", get(async || "alive\n"))
        .route("/health/ready", get(ready).with_state(health))
        .route("/metrics", get(metrics).with_state(telemetry))
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    let status = health.status();
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(status))
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], telemetry.render_metrics())
}
