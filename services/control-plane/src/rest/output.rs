//! Answers and failures as HTTP responses.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use grey_edge::Failure;
use grey_proto::control::WriteResult;
use serde::Serialize;

use crate::api::{Tag, entity_tag};

/// What every handler returns.
pub(super) type Answer<T> = Result<Reply<T>, Failure>;

/// The tag of what a write has left at `revision`.
pub(super) fn tag_of(result: Option<&WriteResult>, revision: Option<u64>) -> Tag {
    (result.map_or(0, |result| result.epoch), revision.unwrap_or_default())
}

/// A message, with the entity tag of the thing that it is about, or the place where work under way is told of.
pub(super) struct Reply<T> {
    message: T,
    tag: Option<Tag>,
    location: Option<String>,
}

impl<T> Reply<T> {
    /// A message about nothing that has a revision of its own.
    pub(super) fn new(message: T) -> Self {
        Self { message, tag: None, location: None }
    }

    /// A message about a thing changed last where `tag` says; revision 0: there is no such thing.
    pub(super) fn tagged(message: T, tag: Tag) -> Self {
        Self { message, tag: Some(tag).filter(|(_, revision)| *revision > 0), location: None }
    }

    /// A message about what was begun and is told of at `location`.
    pub(super) fn accepted(message: T, location: String) -> Self {
        Self { message, tag: None, location: Some(location) }
    }
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.message).into_response();
        let tag = self.tag.and_then(|tag| HeaderValue::try_from(entity_tag(tag)).ok());
        if let Some(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        if let Some(location) = self.location {
            *response.status_mut() = StatusCode::ACCEPTED;
            if let Ok(location) = HeaderValue::try_from(location) {
                response.headers_mut().insert(header::LOCATION, location);
            }
        }
        response
    }
}
