//! The body of a request: read here as long as it looks like one plain message, and readable by tonic at any time as if
//! nobody had looked.
//!
//! Bytes count against the connection's budget as soon as they have to wait: for the rest of their message, or for tonic.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grey_core::error::Reason;
use grey_proto::status::ApiError;
use grey_runtime::server::{Budget, Counting, OverBudget, Share};
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
    /// None while nothing has to wait.
    counting: Option<Counting>,
    /// Bytes of `read` that count.
    counted: usize,
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
        Self {
            read: Read::Frame(Bytes::new()),
            trailers: None,
            rest: Rest::Open(body),
            deadline,
            counting: None,
            counted: 0,
        }
    }

    /// Counts what was read, and what tonic reads from now on.
    pub(crate) fn share(&mut self, budget: &Budget) -> Share {
        self.count(budget);
        self.counting.get_or_insert_with(|| Counting::new(budget.share(), true)).share()
    }

    /// Counts what was read; more than the budget has left breaks the body off.
    fn count(&mut self, budget: &Budget) {
        let counting = self.counting.get_or_insert_with(|| Counting::new(budget.share(), true));
        let read = self.read.bytes();
        match counting.take(read.get(self.counted..).unwrap_or_default()) {
            Ok(()) => self.counted = read.len(),
            Err(over) => self.give_up(over),
        }
    }

    fn give_up(&mut self, over: OverBudget) {
        self.read = Read::Frame(Bytes::new());
        self.rest = Rest::Failed(over_budget(over).into());
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
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, limit: usize, budget: &Budget) -> Poll<()> {
        while matches!(self.rest, Rest::Open(_)) && begins_message(self.read.bytes(), limit) {
            let Poll::Ready(frame) = self.poll_rest(cx) else {
                if self.read.bytes().is_empty() {
                    return Poll::Pending;
                }
                self.count(budget);
                if let Some(counting) = &mut self.counting
                    && let Poll::Ready(over) = counting.poll_lost(cx)
                {
                    self.give_up(over);
                }
                // One that is too much was broken off.
                return if matches!(self.rest, Rest::Open(_)) { Poll::Pending } else { Poll::Ready(()) };
            };
            match frame {
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
        if self.has_come() {
            self.rest = Rest::Ended;
        }
    }

    /// Whether nothing more is waited for.
    fn has_come(&self) -> bool {
        match &self.rest {
            Rest::Open(body) => body.is_end_stream(),
            Rest::Failed(_) => false,
            Rest::Ended => true,
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.rest {
            Rest::Open(body) => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
                Poll::Pending => {
                    if let Some(counting) = &mut self.counting
                        && let Poll::Ready(over) = counting.poll_lost(cx)
                    {
                        return Poll::Ready(Some(Err(over_budget(over).into())));
                    }
                    self.deadline.poll_late(cx).map(|()| Some(Err(late().into())))
                }
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
        if let Some(counting) = &this.counting {
            counting.go_on();
        }
        let frame = ready!(this.poll_rest(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Some(counting) = &mut this.counting
            && let Err(over) = counting.take(data)
        {
            return Poll::Ready(Some(Err(over_budget(over).into())));
        }
        if (frame.is_none() || this.has_come())
            && let Some(counting) = &mut this.counting
            && let Err(over) = counting.ended()
        {
            return Poll::Ready(Some(Err(over_budget(over).into())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.has_come() && self.read.bytes().is_empty() && self.trailers.is_none()
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
fn over_budget(over: OverBudget) -> Status {
    ApiError::new(Reason::RateLimited, over.to_string()).into()
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
