//! The HTTP twin of the decisions: proto3 JSON in, proto3 JSON out, every failure an error body.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use grey_core::error::Reason;
use grey_proto::convert::json_fault;
use grey_proto::decision;
use grey_proto::router::{
    ExplainRequest, ReportRequest, RouteBatchRequest, RouteBatchResponse, RouteRequest,
};
use grey_proto::status::{ApiError, ErrorBody, ErrorContent, http_code};
use grey_runtime::access::Failures;
use grey_runtime::server::http::client_of;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::decider::Decider;
use crate::grpc::{Caller, take_outcomes};
use crate::shared::{Shared, unauthenticated};

/// For the body of a request, from its headers on.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The routes of the API, for callers that are known.
pub(crate) fn routes(decider: Arc<Decider>, failures: Failures) -> Router {
    let callers = Callers { shared: Arc::clone(&decider.shared), failures };
    Router::new()
        .route("/api/grey-router/route", post(route))
        .route("/api/grey-router/route-batch", post(route_batch))
        .route("/api/grey-router/explain", post(explain))
        .route("/api/grey-router/report", post(report))
        .route_layer(from_fn_with_state(callers, authenticate))
        .with_state(decider)
}

/// Makes error bodies of what axum itself refuses.
pub(crate) fn with_fallbacks(router: Router) -> Router {
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed)
}

/// Who may call, and who has failed to prove it.
#[derive(Clone)]
struct Callers {
    shared: Arc<Shared>,
    failures: Failures,
}

/// Finds out who calls, before anything of the body is read.
async fn authenticate(State(callers): State<Callers>, mut request: Request, next: Next) -> Response {
    match callers.shared.access.authenticate(request.headers()) {
        Ok(who) => {
            let caller = Caller(Arc::new(who.clone()));
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(why) => {
            let client = client_of(request.extensions());
            drop(request);
            Failure::from(unauthenticated(callers.failures, why, client).await).into_response()
        }
    }
}

type Known = Extension<Caller>;
type Answer = Result<Response, Failure>;

async fn route(
    State(decider): State<Arc<Decider>>,
    Extension(Caller(who)): Known,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let call: RouteRequest = read(&headers, body, decider.shared.limits.call_bytes).await?;
    Ok(answer(decider.route(&(&call).into(), &who.role, decision::response).await?))
}

async fn route_batch(
    State(decider): State<Arc<Decider>>,
    Extension(Caller(who)): Known,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let batch: RouteBatchRequest = read(&headers, body, decider.shared.limits.batch_bytes).await?;
    let outcomes = decider.route_all(&batch.calls, &who.role).await?;
    Ok(answer(RouteBatchResponse { outcomes }))
}

async fn explain(
    State(decider): State<Arc<Decider>>,
    Extension(Caller(who)): Known,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let asked: ExplainRequest = read(&headers, body, decider.shared.limits.call_bytes).await?;
    Ok(answer(decider.explain(asked, &who.role).await?))
}

async fn report(
    State(decider): State<Arc<Decider>>,
    Extension(Caller(who)): Known,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let reporter = decider.shared.reports.admit(&who)?;
    let outcomes: ReportRequest = read(&headers, body, decider.shared.limits.batch_bytes).await?;
    Ok(answer(take_outcomes(&decider, reporter, &outcomes)?))
}

async fn not_found(uri: Uri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "NOT_FOUND", format!("there is nothing at {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    let message = format!("{} does not take {method}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "UNIMPLEMENTED", message)
}

fn answer(message: impl Serialize) -> Response {
    Json(message).into_response()
}

async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body, limit: usize) -> Result<T, Failure> {
    if !is_json(headers) {
        let message = "the body must be JSON, with content-type application/json";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_ARGUMENT", message.to_owned()));
    }
    let collected = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, limit).collect()).await;
    let bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {limit} bytes");
            return Err(ApiError::new(Reason::TooLarge, message).into());
        }
        Ok(Err(_)) => {
            return Err(ApiError::new(Reason::InvalidArgument, "the body did not arrive").into());
        }
        Err(_) => {
            let message = "the body did not arrive in time".to_owned();
            return Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", message));
        }
    };
    serde_json::from_slice(&bytes).map_err(|why| {
        ApiError::new(Reason::InvalidArgument, format!("the body does not read: {}", json_fault(&why))).into()
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

/// A failure as an HTTP response.
struct Failure {
    code: StatusCode,
    retry_after: Option<Duration>,
    body: Box<ErrorBody>,
}

impl Failure {
    /// A request that HTTP itself is enough to refuse.
    fn new(code: StatusCode, status: &'static str, message: String) -> Self {
        let reason = Reason::InvalidArgument.as_str().to_owned();
        let metadata = std::collections::BTreeMap::new();
        let error =
            ErrorContent { code: code.as_u16(), status: status.to_owned(), reason, message, metadata };
        Self { code, retry_after: None, body: Box::new(ErrorBody { error }) }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let (code, retry_after) = (http_code(error.reason), error.reason.retry_after());
        Self { code, retry_after, body: Box::new((&error).into()) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(self.body)).into_response();
        if self.code == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
        }
        response
    }
}
