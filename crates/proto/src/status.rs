//! The one mapping of failures to gRPC statuses and HTTP responses, and back.

use crate::convert::InvalidMessage;
use crate::router::RouteError;
use grey_core::error::{ErrorKind, Reason, Refusal};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetail, ErrorInfo, RetryInfo, StatusExt};

/// The domain of our reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "grey-router";

/// What callers read instead of the message of a fault of ours.
const INTERNAL: &str = "internal error; the service's log has the details";

/// A failure as callers see it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The stable reason, which decides the gRPC and the HTTP code.
    pub reason: Reason,
    /// For people. Of [`Reason::Internal`] only logs show it, callers never.
    pub message: String,
    /// Facts for programs, such as the present revision. No key twice.
    pub metadata: Vec<(String, String)>,
}

impl ApiError {
    /// A failure without metadata.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: Vec::new() }
    }

    /// The same failure with one more fact.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// The fact stated under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// What callers may read of it.
    fn told(&self) -> (&str, &[(String, String)]) {
        match self.reason {
            Reason::Internal => (INTERNAL, &[]),
            _ => (&self.message, &self.metadata),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let error = Self::new(refusal.reason(), refusal.to_string());
        match refusal {
            Refusal::NoLegalVersion { wanted: version } | Refusal::NoInstance { version } => {
                error.with("version", version.as_str())
            }
            Refusal::Moving { to } => error.with("to", to.as_str()),
            Refusal::UnknownTenant
            | Refusal::UnknownService
            | Refusal::UnknownVersion
            | Refusal::Suspended
            | Refusal::Maintenance => error,
        }
    }
}

impl From<InvalidMessage> for ApiError {
    fn from(invalid: InvalidMessage) -> Self {
        let error = Self::new(Reason::InvalidArgument, invalid.to_string());
        error.with("field", invalid.field)
    }
}

/// The gRPC code of a kind of failure.
#[must_use]
pub fn grpc_code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::Precondition => Code::Aborted,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The HTTP code of a failure.
#[must_use]
pub fn http_code(reason: Reason) -> StatusCode {
    match reason.kind() {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Precondition => StatusCode::PRECONDITION_FAILED,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Exhausted if reason == Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The name of the gRPC code of a kind of failure, as HTTP bodies show it.
#[must_use]
pub fn code_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "INVALID_ARGUMENT",
        ErrorKind::NotFound => "NOT_FOUND",
        ErrorKind::Conflict => "FAILED_PRECONDITION",
        ErrorKind::Precondition => "ABORTED",
        ErrorKind::Unauthenticated => "UNAUTHENTICATED",
        ErrorKind::Denied => "PERMISSION_DENIED",
        ErrorKind::Exhausted => "RESOURCE_EXHAUSTED",
        ErrorKind::Timeout => "DEADLINE_EXCEEDED",
        ErrorKind::Unavailable => "UNAVAILABLE",
        ErrorKind::Internal => "INTERNAL",
    }
}

/// The failure as a gRPC status, with its reason in a `google.rpc.ErrorInfo`, and a `google.rpc.RetryInfo` where it can be
/// told when asking again helps.
#[must_use]
pub fn to_status(error: &ApiError) -> Status {
    let (message, metadata) = error.told();
    let metadata: std::collections::HashMap<_, _> = metadata.iter().cloned().collect();
    let info = ErrorInfo::new(error.reason.as_str(), DOMAIN, metadata);
    let mut details = vec![ErrorDetail::ErrorInfo(info)];
    details
        .extend(error.reason.retry_after().map(|after| ErrorDetail::RetryInfo(RetryInfo::new(Some(after)))));
    Status::with_error_details_vec(grpc_code(error.reason.kind()), message, details)
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        to_status(&error)
    }
}

/// Reads a failure back from a status.
///
/// A status without a reason that is known here (of a proxy, of the transport, of a newer server) gets the
/// reason that fits its code best.
#[must_use]
pub fn from_status(status: &Status) -> ApiError {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    let known = info.as_ref().and_then(|info| reason_of(&info.reason));
    let mut metadata: Vec<_> = info.map(|info| info.metadata.into_iter().collect()).unwrap_or_default();
    metadata.sort_unstable();
    ApiError {
        reason: known.unwrap_or_else(|| reason_by_code(status.code())),
        message: status.message().to_owned(),
        metadata,
    }
}

fn reason_of(text: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|reason| reason.as_str() == text)
}

fn reason_by_code(code: Code) -> Reason {
    match code {
        Code::InvalidArgument => Reason::InvalidArgument,
        // The transport's answer to a message beyond its limit.
        Code::OutOfRange => Reason::TooLarge,
        Code::ResourceExhausted => Reason::RateLimited,
        Code::Unauthenticated => Reason::Unauthenticated,
        Code::PermissionDenied => Reason::Denied,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Reason::Unavailable,
        _ => Reason::Internal,
    }
}

impl From<&ApiError> for RouteError {
    fn from(error: &ApiError) -> Self {
        Self {
            code: grpc_code(error.reason.kind()).into(),
            reason: error.reason.as_str().to_owned(),
            message: error.told().0.to_owned(),
        }
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        let reason = reason_of(&error.reason).unwrap_or_else(|| reason_by_code(Code::from_i32(error.code)));
        Self::new(reason, error.message)
    }
}

/// The body of an HTTP response that tells a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The failure.
    pub error: ErrorContent,
}

/// The failure inside an [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorContent {
    /// The HTTP code.
    pub code: u16,
    /// The name of the gRPC code, such as `NOT_FOUND`.
    pub status: String,
    /// The stable reason, such as `UNKNOWN_TENANT`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Facts for programs.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl From<&ApiError> for ErrorBody {
    fn from(error: &ApiError) -> Self {
        let (message, metadata) = error.told();
        Self {
            error: ErrorContent {
                code: http_code(error.reason).as_u16(),
                status: code_name(error.reason.kind()).to_owned(),
                reason: error.reason.as_str().to_owned(),
                message: message.to_owned(),
                metadata: metadata.iter().cloned().collect(),
            },
        }
    }
}

impl From<ErrorBody> for ApiError {
    /// A reason that is not known here is read as internal.
    fn from(body: ErrorBody) -> Self {
        let ErrorContent { reason, message, metadata, .. } = body.error;
        Self {
            reason: reason_of(&reason).unwrap_or(Reason::Internal),
            message,
            metadata: metadata.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
