//! Failures as HTTP responses.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use grey_proto::status::{ApiError, ErrorBody, http_code};

/// A failure, with the HTTP code if it is not that of the reason.
#[derive(Debug)]
pub struct Failure {
    error: ApiError,
    code: Option<StatusCode>,
}

impl Failure {
    /// A failure of HTTP itself.
    #[must_use]
    pub fn with_code(error: ApiError, code: StatusCode) -> Self {
        Self { error, code: Some(code) }
    }
}

impl<E: Into<ApiError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), code: None }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut body = ErrorBody::from(&self.error);
        let code = self.code.unwrap_or_else(|| http_code(self.error.reason));
        body.error.code = code.as_u16();
        let mut response = (code, Json(body)).into_response();
        if let Some(after) = self.error.reason.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
        }
        response
    }
}
