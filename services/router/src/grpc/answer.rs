//! The body of an answer: a decision's bytes, frames that others encoded, or whatever tonic answers.

use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use grey_runtime::server::{Sent, UnderWay};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::watch::{Outlet, PassedOn};

/// What an answer says of itself before its message, as tonic says it.
static HEADERS: LazyLock<HeaderMap> =
    LazyLock::new(|| single(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")));
/// What it says after it.
static TRAILERS: LazyLock<HeaderMap> =
    LazyLock::new(|| single(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0")));

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// A decision.
    Decision(Decided),
    /// What a watcher is sent.
    Watched(Sent<Outlet>),
    /// An answer of tonic's.
    Served(Sent<tonic::body::Body>),
}

/// What is still to be sent of a decision.
pub(crate) enum Decided {
    /// The message, and after it the trailers.
    Message(Bytes),
    /// The trailers.
    Trailers,
    /// Nothing.
    Nothing,
}

/// The answer with this message of gRPC, its prefix included.
pub(crate) fn decided(message: Bytes) -> Response<AnswerBody> {
    let mut answer = Response::new(AnswerBody::Decision(Decided::Message(message)));
    *answer.headers_mut() = HEADERS.clone();
    answer
}

/// Tonic's answer; frames that came with it are its body. The call is under way until it was sent.
pub(crate) fn served(
    mut answer: Response<tonic::body::Body>,
    call: Option<UnderWay>,
) -> Response<AnswerBody> {
    match answer.extensions_mut().remove::<PassedOn>().and_then(|frames| frames.take()) {
        Some(frames) => answer.map(|_| AnswerBody::Watched(Sent::new(frames, call))),
        None => answer.map(|body| AnswerBody::Served(Sent::new(body, call))),
    }
}

/// A map that is no larger than it need be, and so is each copy of it.
fn single(name: HeaderName, value: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(name, value);
    headers
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::Served(Sent::new(tonic::body::Body::empty(), None))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Decision(decided) => Poll::Ready(decided.next().map(Ok)),
            Self::Watched(frames) => frames.body_mut().poll_frame(cx).map(|frame| frame.map(Ok)),
            Self::Served(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Decision(decided) => matches!(decided, Decided::Nothing),
            Self::Watched(frames) => frames.body().has_ended(),
            Self::Served(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // A known size would become a header that gRPC's answers do not have.
            Self::Decision(_) | Self::Watched(_) => SizeHint::default(),
            Self::Served(body) => body.size_hint(),
        }
    }
}

impl Decided {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Message(message) => {
                *self = Self::Trailers;
                Some(Frame::data(message))
            }
            Self::Trailers => Some(Frame::trailers(TRAILERS.clone())),
            Self::Nothing => None,
        }
    }
}
