//! What a request says: path, query, conditions, body. Each part is read on demand and refused in our own words.

use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use grey_core::error::Reason;
use grey_edge::{Caller, Failure};
use grey_proto::control::WriteOptions;
use grey_proto::convert::{InvalidMessage, json_fault, parse_time};
use grey_proto::status::ApiError;
use grey_runtime::config::duration;
use pbjson_types::{Duration as WireDuration, Timestamp};
use serde::de::DeserializeOwned;

use crate::access::{Operation, admit};
use crate::api::{Tag, entity_tag};

/// One request.
pub(super) struct Input {
    parts: Parts,
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
    body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Input {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, state).await;
        let path = path.map_err(|_| InvalidMessage::new("path", "is not UTF-8"))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query: Result<Query<Vec<(String, String)>>, _> = Query::try_from_uri(&parts.uri);
        let Query(query) = query.map_err(|_| InvalidMessage::new("query", "is malformed"))?;
        let kept = parts.clone();
        let body =
            Bytes::from_request(Request::from_parts(parts, body), state).await.map_err(|rejection| {
                match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => {
                        ApiError::new(Reason::TooLarge, "the request is larger than allowed")
                    }
                    _ => InvalidMessage::new("body", "cannot be read").into(),
                }
            })?;
        Ok(Self { parts: kept, path, query, body })
    }
}

impl Input {
    /// The caller, if the table allows the operation.
    pub(super) fn admit(&self, operation: Operation) -> Result<Caller, ApiError> {
        admit(&self.parts.extensions, operation)
    }

    /// A part of the path.
    pub(super) fn path(&self, name: &str) -> String {
        let found = self.path.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// The body as JSON. Its type must be stated: a page of another site can make a browser send anything else.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.check_type()?;
        let read = serde_json::from_slice(&self.body);
        Ok(read.map_err(|error| InvalidMessage::new("body", json_fault(&error)))?)
    }

    /// As [`Input::json`], for a body that may hold a secret anywhere: what is wrong with it is told without repeating it.
    pub(super) fn secret_json<T: DeserializeOwned>(&self, takes: &str) -> Result<T, Failure> {
        self.check_type()?;
        let read = serde_json::from_slice(&self.body);
        Ok(read.map_err(|_| InvalidMessage::new("body", format!("must be an object of {takes}")))?)
    }

    /// As [`Input::json`], for a type whose fields may all be left out: a list of none would be taken for it.
    pub(super) fn object<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let object: serde_json::Map<String, serde_json::Value> = self.json()?;
        let read = serde_json::from_value(object.into());
        Ok(read.map_err(|error| InvalidMessage::new("body", json_fault(&error)))?)
    }

    /// As [`Input::object`], but there need not be a body; its type must be stated all the same.
    pub(super) fn object_if_any<T: DeserializeOwned + Default>(&self) -> Result<T, Failure> {
        if self.body.is_empty() { self.check_type().map(|()| T::default()) } else { self.object() }
    }

    /// The last event that the caller has seen of a stream.
    pub(super) fn last_event(&self) -> Option<&str> {
        self.parts.headers.get("last-event-id").and_then(|id| id.to_str().ok())
    }

    fn check_type(&self) -> Result<(), Failure> {
        let stated = self.header(&header::CONTENT_TYPE)?.unwrap_or_default();
        let essence = stated.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let error = InvalidMessage::new("content-type", "must be application/json");
            return Err(Failure::with_code(error.into(), StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        Ok(())
    }

    /// Refuses a query that says anything but these.
    pub(super) fn allow(&self, known: &[&str]) -> Result<(), ApiError> {
        for (i, (name, _)) in self.query.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let why = format!("is not known here; known are: {}", known.join(", "));
                return Err(InvalidMessage::new(name.as_str(), why).into());
            }
            if self.query.iter().take(i).any(|(earlier, _)| earlier == name) {
                return Err(InvalidMessage::new(name.as_str(), "is given twice").into());
            }
        }
        Ok(())
    }

    /// A text of the query; empty if it is not there.
    pub(super) fn text(&self, name: &str) -> String {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// A number or truth value of the query; the type's default if it is not there.
    pub(super) fn value<T: FromStr + Default>(&self, name: &str) -> Result<T, ApiError> {
        match self.text(name).as_str() {
            "" => Ok(T::default()),
            text => text.parse().map_err(|_| InvalidMessage::new(name, "is malformed").into()),
        }
    }

    /// A time of the query, if it is there.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        match self.text(name).as_str() {
            "" => Ok(None),
            text => parse_time(text).map(Some).map_err(|why| InvalidMessage::new(name, why).into()),
        }
    }

    /// The options of a write: the query's `wait`, `reason`, `maxMoves` and `dryRun`, the conditional headers.
    pub(super) fn write(&self) -> Result<Option<WriteOptions>, ApiError> {
        self.write_with(&[])
    }

    /// As [`Input::write`], where the query may say `more`.
    pub(super) fn write_with(&self, more: &[&str]) -> Result<Option<WriteOptions>, ApiError> {
        self.allow(&[&["wait", "reason", "maxMoves", "dryRun"], more].concat())?;
        let wait = match self.text("wait").as_str() {
            "" => None,
            text => {
                let wait = duration::parse(text).map_err(|why| InvalidMessage::new("wait", why))?;
                let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
                let nanos = i32::try_from(wait.subsec_nanos()).unwrap_or_default();
                Some(WireDuration { seconds, nanos })
            }
        };
        let (expected_epoch, expected_revision) = match self.expected()? {
            None => (0, None),
            Some((epoch, revision)) => (epoch, Some(revision)),
        };
        let (reason, cause) = (self.text("reason"), String::new());
        let max_moves = match self.text("maxMoves").as_str() {
            "" => None,
            _ => Some(self.value("maxMoves")?),
        };
        let dry_run = self.value("dryRun")?;
        Ok(Some(WriteOptions { expected_revision, reason, wait, expected_epoch, cause, max_moves, dry_run }))
    }

    /// Refuses conditions, for writes of what has no revision.
    pub(super) fn unconditional(&self) -> Result<(), ApiError> {
        self.refuse(&header::IF_MATCH)?;
        self.refuse(&header::IF_NONE_MATCH)
    }

    /// Refuses a condition that means nothing here.
    pub(super) fn refuse(&self, condition: &HeaderName) -> Result<(), ApiError> {
        if self.header(condition)?.is_some() {
            return Err(InvalidMessage::new(condition.as_str(), "means nothing for this resource").into());
        }
        Ok(())
    }

    /// `If-Match: "2-7"` expects revision 7 of epoch 2, `If-None-Match: *` that there is nothing.
    fn expected(&self) -> Result<Option<Tag>, ApiError> {
        let (if_match, if_none_match) =
            (self.header(&header::IF_MATCH)?, self.header(&header::IF_NONE_MATCH)?);
        match (if_match, if_none_match) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(InvalidMessage::new("if-match", "cannot be combined with if-none-match").into())
            }
            (None, Some("*")) => Ok(Some((0, 0))),
            (None, Some(_)) => Err(InvalidMessage::new("if-none-match", "must be *").into()),
            (Some(tag), None) => {
                let malformed = || InvalidMessage::new("if-match", "must be one entity tag, such as \"2-7\"");
                Ok(Some(read_tag(tag).ok_or_else(malformed)?))
            }
        }
    }

    fn header(&self, name: &HeaderName) -> Result<Option<&str>, ApiError> {
        let headers: &HeaderMap = &self.parts.headers;
        let mut values = headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let text = value.to_str().ok().filter(|_| values.next().is_none());
        text.map(Some)
            .ok_or_else(|| InvalidMessage::new(name.as_str(), "must be given once, in ASCII").into())
    }
}

/// Reads an entity tag: in the form that it was given out in, and in no other spelling of its numbers.
fn read_tag(tag: &str) -> Option<Tag> {
    let (epoch, revision) = tag.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
    let read = (epoch.parse().ok()?, revision.parse().ok()?);
    let given_out = read.0 > 0 && read.1 > 0 && entity_tag(read) == tag;
    given_out.then_some(read)
}

/// The path names the thing; a body may repeat the name, but not name another.
pub(super) fn adopt(field: &str, named: &mut String, path: String) -> Result<(), ApiError> {
    if named.is_empty() {
        *named = path;
    } else if *named != path {
        return Err(InvalidMessage::new(field, "is not the one that the path names").into());
    }
    Ok(())
}
