//! The body of a request: read here as long as it looks like one plain message, and readable by tonic at any time as if
//! nobody had looked.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// Why a body broke off.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Bytes before each message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A request's body. What was read of it stays in front.
pub(crate) struct RequestBody<B> {
    read: Read,
    trailers: Option<HeaderMap>,
    rest: Rest<B>,
    deadline: Deadline,
}

/// What was read. Most messages arrive in one frame, which is not copied.
enum Read {
    Frame(Bytes),
    Joined(BytesMut),
}

enum Rest<B> {
    Open(B),
    Failed(Fault),
    Ended,
}

/// When a body must have ended. No clock is set for a body that is there at once.
enum Deadline {
    Never,
    Within(Duration),
    Set(Pin<Box<Sleep>>),
}

impl<B> RequestBody<B> {
    /// A body of which nothing was read. Unless it ends within `deadline` from the first time that it is waited for, it
    /// breaks off.
    pub(crate) fn new(body: B, deadline: Option<Duration>) -> Self {
        let deadline = deadline.map_or(Deadline::Never, Deadline::Within);
        Self { read: Read::Frame(Bytes::new()), trailers: None, rest: Rest::Open(body), deadline }
    }

    /// The message, if the body has ended as exactly one, not compressed and within `limit` bytes.
    pub(crate) fn message(&self, limit: usize) -> Option<&[u8]> {
        if !matches!(self.rest, Rest::Ended) {
            return None;
        }
        let read = self.read.bytes();
        let (flag_and_length, message) = read.split_at_checked(PREFIX)?;
        (begins_message(read, limit) && length(flag_and_length)? == message.len()).then_some(message)
    }
}

impl<B: Body<Data = Bytes> + Unpin> RequestBody<B>
where
    B::Error: Into<Fault>,
{
    /// Reads to the end, or until it is something else than one plain message within `limit` bytes.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<()> {
        while matches!(self.rest, Rest::Open(_)) && begins_message(self.read.bytes(), limit) {
            match ready!(self.poll_rest(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.read.push(data);
                        self.see_end();
                    }
                    // Nothing follows trailers.
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.rest = Rest::Ended;
                    }
                },
                Some(Err(fault)) => self.rest = Rest::Failed(fault),
                None => self.rest = Rest::Ended,
            }
        }
        Poll::Ready(())
    }

    /// Spares a look for more after the last frame.
    fn see_end(&mut self) {
        if let Rest::Open(body) = &self.rest
            && body.is_end_stream()
        {
            self.rest = Rest::Ended;
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.rest {
            Rest::Open(body) => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
                Poll::Pending => self.deadline.poll_late(cx).map(|()| Some(Err(late().into()))),
            },
            Rest::Failed(_) => match mem::replace(&mut self.rest, Rest::Ended) {
                Rest::Failed(fault) => Poll::Ready(Some(Err(fault))),
                Rest::Open(_) | Rest::Ended => Poll::Ready(None),
            },
            Rest::Ended => Poll::Ready(None),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B>
where
    B::Error: Into<Fault>,
{
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        if !this.read.bytes().is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(this.read.take()))));
        }
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        this.poll_rest(cx)
    }

    fn is_end_stream(&self) -> bool {
        let ended = match &self.rest {
            Rest::Open(body) => body.is_end_stream(),
            Rest::Failed(_) => false,
            Rest::Ended => true,
        };
        ended && self.read.bytes().is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Read {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Frame(frame) => frame,
            Self::Joined(joined) => joined,
        }
    }

    fn push(&mut self, data: Bytes) {
        match self {
            Self::Frame(first) if first.is_empty() => *first = data,
            Self::Frame(first) => {
                let mut joined = BytesMut::with_capacity(first.len() + data.len());
                joined.extend_from_slice(first);
                joined.extend_from_slice(&data);
                *self = Self::Joined(joined);
            }
            Self::Joined(joined) => joined.extend_from_slice(&data),
        }
    }

    fn take(&mut self) -> Bytes {
        match mem::replace(self, Self::Frame(Bytes::new())) {
            Self::Frame(frame) => frame,
            Self::Joined(joined) => joined.freeze(),
        }
    }
}

impl Deadline {
    /// Whether a body that is not there is late.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Within(within) = *self {
            *self = Self::Set(Box::pin(sleep(within)));
        }
        match self {
            Self::Set(until) => until.as_mut().poll(cx),
            Self::Never | Self::Within(_) => Poll::Pending,
        }
    }
}

#[cold]
fn late() -> Status {
    Status::deadline_exceeded("the request did not arrive in time")
}

/// Whether these bytes may be, or be the beginning of, one message within `limit` bytes that is not compressed.
fn begins_message(read: &[u8], limit: usize) -> bool {
    match (read.first(), length(read)) {
        (None, _) => true,
        (Some(0), None) => true,
        (Some(0), Some(length)) => length <= limit && read.len() - PREFIX <= length,
        (Some(_), _) => false,
    }
}

/// The length of the message that begins here.
fn length(read: &[u8]) -> Option<usize> {
    let (_, length) = read.first_chunk::<PREFIX>()?.split_first()?;
    usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()
}
