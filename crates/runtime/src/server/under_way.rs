//! How many requests of a port are under way at once: from when they are waited for until the last of their
//! answer was handed to the connection.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use hyper::body::{Body, Frame, SizeHint};

/// Requests under way, of all connections together, up to a limit. A cheap handle.
#[derive(Debug, Clone)]
pub struct Requests(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    under_way: AtomicUsize,
}

/// One of them, until dropped.
#[derive(Debug)]
pub struct UnderWay(Requests);

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are under way; retry later")]
pub struct TooManyRequests;

impl Requests {
    /// At most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most, under_way: AtomicUsize::new(0) }))
    }

    /// As many others, counted apart: those of a thread, which shares no count with other threads.
    #[must_use]
    pub fn of_thread(&self) -> Self {
        Self::new(self.0.most)
    }

    /// Lets one in.
    ///
    /// # Errors
    /// There are too many.
    pub fn begin(&self) -> Result<UnderWay, TooManyRequests> {
        let before = self.0.under_way.fetch_add(1, Relaxed);
        // Counts itself out again if it is one too many.
        let one = UnderWay(self.clone());
        if before < self.0.most { Ok(one) } else { Err(TooManyRequests) }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// What is sent as the answer to a request, which is under way until this is dropped.
#[derive(Debug)]
pub struct Sent<B> {
    body: B,
    _request: Option<UnderWay>,
}

impl<B> Sent<B> {
    /// The answer's body; none: it is no request that counts.
    #[must_use]
    pub fn new(body: B, request: Option<UnderWay>) -> Self {
        Self { body, _request: request }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &B {
        &self.body
    }

    /// The body.
    pub fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }
}

impl<B: Body + Unpin> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn no_more_than_the_limit_are_let_in() {
        let requests = Requests::new(2);
        let first = Sent::new("answer", Some(requests.begin().unwrap()));
        let second = requests.begin().unwrap();
        for _ in 0..3 {
            assert_eq!(requests.begin().unwrap_err(), TooManyRequests);
        }
        drop(first);
        let third = requests.begin().unwrap();
        assert!(requests.begin().is_err());
        drop((second, third));
        assert_eq!(requests.0.under_way.load(Relaxed), 0);
    }
}
