//! What happens around every request of either transport: who calls, how long it may take, and that even what fails
//! outside our own code fails in our own words.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use grey_core::error::Reason;
use grey_proto::status::{ApiError, to_status};
use grey_runtime::access::Failures;
use grey_runtime::server::{OverBudget, http::client_of};
use grey_runtime::telemetry::trace_layer;
use tonic::Code;

use crate::Failure;
use crate::access::{Gate, Refused, require_identity};

/// The gRPC services that ask nobody who calls.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

/// What the layers need.
#[derive(Debug, Clone)]
pub struct Edge {
    gate: Arc<Gate>,
    failures: Failures,
    deadline: Duration,
}

impl Edge {
    /// `gate` knows who calls, and `failures` who failed to prove it; a request may take as long as `deadline`.
    #[must_use]
    pub fn new(gate: Gate, failures: Failures, deadline: Duration) -> Self {
        Self { gate: Arc::new(gate), failures, deadline }
    }

    /// Puts the layers of gRPC around `router`.
    pub fn around_grpc(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), grpc)).layer(trace_layer())
    }

    /// Puts the layers of HTTP around `router`.
    pub fn around_rest(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), rest)).layer(trace_layer())
    }

    /// Puts the layers of HTTP around a `router` that asks nobody who calls.
    pub fn around_open(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), open)).layer(trace_layer())
    }

    fn identify(&self, request: &mut Request) {
        let headers = std::mem::take(request.headers_mut());
        self.gate.identify(&headers, request.extensions_mut());
        *request.headers_mut() = headers;
    }

    /// What whoever sent a refused request is told, when it is time to tell. Nothing of the request is kept meanwhile.
    async fn refuse(&self, refused: Refused, request: Request) -> ApiError {
        let client = client_of(request.extensions());
        drop(request);
        let Refused { error, failure: Some(failure) } = refused else { return refused.error };
        match self.failures.clone().failed(failure, client).await {
            Ok(()) => error,
            Err(too_many) => ApiError::new(Reason::RateLimited, too_many.to_string()),
        }
    }

    fn late(&self) -> ApiError {
        ApiError::new(Reason::Unavailable, format!("the request took longer than {:?}", self.deadline))
    }
}

async fn grpc(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    edge.identify(&mut request);
    // Before a byte of the message is read: nobody unknown makes the service gather one.
    if !OPEN.iter().any(|service| request.uri().path().starts_with(service))
        && let Err(refused) = require_identity(request.extensions())
    {
        return to_status(&edge.refuse(refused, request).await).into_http();
    }
    match tokio::time::timeout(edge.deadline, next.run(request)).await {
        Ok(response) => match transport_fault(response.headers()) {
            Some(error) => to_status(&error).into_http(),
            None => response,
        },
        Err(_) => to_status(&edge.late()).into_http(),
    }
}

/// What the transport refused by itself, before any of our code saw the request. Our own errors carry details.
fn transport_fault(headers: &HeaderMap) -> Option<ApiError> {
    let code = headers.get("grpc-status")?;
    if headers.contains_key("grpc-status-details-bin") {
        return None;
    }
    match Code::from_bytes(code.as_bytes()) {
        Code::ResourceExhausted => Some(ApiError::new(Reason::RateLimited, OverBudget.to_string())),
        Code::OutOfRange => Some(ApiError::new(Reason::TooLarge, "the request is larger than allowed")),
        Code::Internal => {
            Some(ApiError::new(Reason::InvalidArgument, "the request is not a message of this method"))
        }
        _ => None,
    }
}

async fn rest(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    edge.identify(&mut request);
    if let Err(refused) = require_identity(request.extensions()) {
        let error = edge.refuse(refused, request).await;
        let asks = matches!(error.reason, Reason::Unauthenticated | Reason::Denied);
        let mut response = Failure::from(error).into_response();
        if asks {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        return response;
    }
    open(State(edge), request, next).await
}

async fn open(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(edge.deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::from(edge.late()).into_response(),
    }
}
