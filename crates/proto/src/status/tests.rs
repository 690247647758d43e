#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

use super::*;

/// The whole mapping, by hand.
const TABLE: [(Reason, Code, &str, u16); 32] = [
    (Reason::InvalidArgument, Code::InvalidArgument, "INVALID_ARGUMENT", 400),
    (Reason::TooLarge, Code::ResourceExhausted, "RESOURCE_EXHAUSTED", 413),
    (Reason::UnknownTenant, Code::NotFound, "NOT_FOUND", 404),
    (Reason::UnknownService, Code::NotFound, "NOT_FOUND", 404),
    (Reason::UnknownVersion, Code::NotFound, "NOT_FOUND", 404),
    (Reason::UnknownPin, Code::NotFound, "NOT_FOUND", 404),
    (Reason::UnknownOverlay, Code::NotFound, "NOT_FOUND", 404),
    (Reason::UnknownChange, Code::NotFound, "NOT_FOUND", 404),
    (Reason::UnknownUpgrade, Code::NotFound, "NOT_FOUND", 404),
    (Reason::UnknownDatabase, Code::NotFound, "NOT_FOUND", 404),
    (Reason::UnknownRouter, Code::NotFound, "NOT_FOUND", 404),
    (Reason::UpgradeRunning, Code::FailedPrecondition, "FAILED_PRECONDITION", 409),
    (Reason::MigrationRefused, Code::FailedPrecondition, "FAILED_PRECONDITION", 409),
    (Reason::DatabaseRefused, Code::FailedPrecondition, "FAILED_PRECONDITION", 409),
    (Reason::DatabaseUnavailable, Code::Unavailable, "UNAVAILABLE", 503),
    (Reason::TenantSuspended, Code::PermissionDenied, "PERMISSION_DENIED", 403),
    (Reason::Maintenance, Code::Unavailable, "UNAVAILABLE", 503),
    (Reason::TenantMoving, Code::Unavailable, "UNAVAILABLE", 503),
    (Reason::NoLegalVersion, Code::FailedPrecondition, "FAILED_PRECONDITION", 409),
    (Reason::NoInstance, Code::Unavailable, "UNAVAILABLE", 503),
    (Reason::Stale, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 504),
    (Reason::RevisionUnavailable, Code::Unavailable, "UNAVAILABLE", 503),
    (Reason::RateLimited, Code::ResourceExhausted, "RESOURCE_EXHAUSTED", 429),
    (Reason::RevisionMismatch, Code::Aborted, "ABORTED", 412),
    (Reason::MovesOverBudget, Code::FailedPrecondition, "FAILED_PRECONDITION", 409),
    (Reason::InUse, Code::FailedPrecondition, "FAILED_PRECONDITION", 409),
    (Reason::Unauthenticated, Code::Unauthenticated, "UNAUTHENTICATED", 401),
    (Reason::Denied, Code::PermissionDenied, "PERMISSION_DENIED", 403),
    (Reason::RoutersBehind, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 504),
    (Reason::RoutersTooOld, Code::FailedPrecondition, "FAILED_PRECONDITION", 409),
    (Reason::Unavailable, Code::Unavailable, "UNAVAILABLE", 503),
    (Reason::Internal, Code::Internal, "INTERNAL", 500),
];

#[test]
fn every_reason_has_its_codes() {
    assert_eq!(TABLE.map(|(reason, ..)| reason), Reason::ALL);
    for (reason, code, name, http) in TABLE {
        assert_eq!(grpc_code(reason.kind()), code, "{reason:?}");
        assert_eq!(code_name(reason.kind()), name, "{reason:?}");
        assert_eq!(http_code(reason).as_u16(), http, "{reason:?}");
    }
}

#[test]
fn every_reason_comes_back_through_a_status() {
    for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::Internal) {
        let error = ApiError::new(reason, "why").with("a", "1").with("b", "2");
        let status = Status::from(error.clone());
        assert_eq!((status.code(), status.message()), (grpc_code(reason.kind()), "why"));
        assert_eq!(from_status(&status), error);
    }
}

#[test]
fn what_passes_soon_comes_with_a_hint_when_to_retry() {
    for reason in Reason::ALL {
        let status = Status::from(ApiError::new(reason, "why"));
        let hint = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let passes = matches!(reason, Reason::TenantMoving | Reason::RateLimited);
        assert_eq!(hint.is_some(), passes, "{reason:?}");
    }
}

#[test]
fn every_reason_comes_back_through_an_http_body() {
    for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::Internal) {
        let error = ApiError::new(reason, "why").with("a", "1");
        let text = serde_json::to_string(&ErrorBody::from(&error)).unwrap();
        assert_eq!(ApiError::from(serde_json::from_str::<ErrorBody>(&text).unwrap()), error);
    }
}

#[test]
fn every_reason_comes_back_through_a_route_error() {
    for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::Internal) {
        let error = ApiError::new(reason, "why");
        let sent = RouteError::from(&error);
        assert_eq!(sent.code, i32::from(grpc_code(reason.kind())));
        assert_eq!(ApiError::from(sent), error);
    }
}

#[test]
fn a_fault_of_ours_keeps_its_details_to_itself() {
    let error = ApiError::new(Reason::Internal, "password is hunter2").with("dsn", "hunter2");
    let status = to_status(&error);
    assert_eq!(status.message(), INTERNAL);
    let seen = [
        format!("{:?}", from_status(&status)),
        String::from_utf8_lossy(status.details()).into_owned(),
        serde_json::to_string(&ErrorBody::from(&error)).unwrap(),
        format!("{:?}", RouteError::from(&error)),
    ];
    for text in seen {
        assert!(text.contains("Internal") || text.contains("INTERNAL"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(error.to_string(), "password is hunter2");
}

#[test]
fn the_status_carries_a_standard_error_info() {
    let info = to_status(&ApiError::new(Reason::UnknownTenant, "m").with("tenant", "acme"));
    let info = info.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("UNKNOWN_TENANT", "grey-router"));
    assert_eq!(info.metadata["tenant"], "acme");
}

#[test]
fn the_http_body_has_the_documented_form() {
    let error = ApiError::new(Reason::UnknownTenant, "tenant is not known").with("tenant", "acme");
    let text = serde_json::to_string(&ErrorBody::from(&error)).unwrap();
    let expected = concat!(
        r#"{"error":{"code":404,"status":"NOT_FOUND","reason":"UNKNOWN_TENANT","#,
        r#""message":"tenant is not known","metadata":{"tenant":"acme"}}}"#
    );
    assert_eq!(text, expected);
}

#[test]
fn a_foreign_status_is_read_by_its_code() {
    let table = [
        (Code::InvalidArgument, Reason::InvalidArgument),
        (Code::OutOfRange, Reason::TooLarge),
        (Code::ResourceExhausted, Reason::RateLimited),
        (Code::Unauthenticated, Reason::Unauthenticated),
        (Code::PermissionDenied, Reason::Denied),
        (Code::Unavailable, Reason::Unavailable),
        (Code::DeadlineExceeded, Reason::Unavailable),
        (Code::Cancelled, Reason::Unavailable),
        (Code::NotFound, Reason::Internal),
        (Code::Unimplemented, Reason::Internal),
        (Code::Unknown, Reason::Internal),
    ];
    for (code, reason) in table {
        assert_eq!(from_status(&Status::new(code, "m")), ApiError::new(reason, "m"));
    }
    let info = |domain: &str| ErrorDetail::ErrorInfo(ErrorInfo::new("UNKNOWN_TENANT", domain, []));
    let foreign = Status::with_error_details_vec(Code::Unavailable, "m", [info("elsewhere")]);
    assert_eq!(from_status(&foreign).reason, Reason::Unavailable);
    let broken = Status::with_details(Code::Unavailable, "m", vec![0xff; 9].into());
    assert_eq!(from_status(&broken).reason, Reason::Unavailable);
}

#[test]
fn a_reason_of_a_newer_server_is_read_by_its_code_and_keeps_its_facts() {
    let metadata = std::collections::HashMap::from([("k".to_owned(), "v".to_owned())]);
    let info = ErrorDetail::ErrorInfo(ErrorInfo::new("NOT_YET_INVENTED", DOMAIN, metadata));
    let error = from_status(&Status::with_error_details_vec(Code::PermissionDenied, "m", [info]));
    assert_eq!(error, ApiError::new(Reason::Denied, "m").with("k", "v"));
}

#[test]
fn refusals_and_invalid_messages_name_what_they_are_about() {
    let version = grey_core::version::Version::new("2.1").unwrap();
    let error = ApiError::from(Refusal::NoLegalVersion { wanted: version.clone() });
    assert_eq!((error.reason, error.get("version")), (Reason::NoLegalVersion, Some("v2.1")));
    let error = ApiError::from(Refusal::NoInstance { version });
    assert_eq!((error.reason, error.get("version")), (Reason::NoInstance, Some("v2.1")));
    let error = ApiError::from(Refusal::UnknownTenant);
    assert_eq!(error.message, Refusal::UnknownTenant.to_string());
    assert_eq!((error.reason, error.metadata.as_slice()), (Reason::UnknownTenant, &[][..]));

    let error = ApiError::from(InvalidMessage::new("name", "is required").under("pin"));
    assert_eq!((error.reason, error.get("field")), (Reason::InvalidArgument, Some("pin.name")));
    assert_eq!(error.message, "pin.name: is required");
}
