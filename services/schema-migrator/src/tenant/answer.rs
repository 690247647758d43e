//! Answers that are waited for, and what becomes of a session when nobody waits any more.

use super::pool::Beside;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

/// A statement's answer. Dropped before it is there, it leaves a session in which the driver for the MySQL family takes the rest
/// of it for the answer to something else, and may wait for that for ever, with the session's locks: such a session has to end.
pub(super) struct Answer<'a, F> {
    running: Option<F>,
    beside: &'a Beside,
}

impl<'a, F: Future + Unpin> Answer<'a, F> {
    pub(super) fn to(running: F, beside: &'a Beside) -> Self {
        Self { running: Some(running), beside }
    }
}

impl<F: Future + Unpin> Future for Answer<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(running) = &mut self.running else { return Poll::Pending };
        let answer = ready!(Pin::new(running).poll(cx));
        self.running = None;
        Poll::Ready(answer)
    }
}

impl<F> Drop for Answer<'_, F> {
    /// Before the statement itself is dropped, which gives its connection back to the pool.
    fn drop(&mut self) {
        if self.running.is_some() {
            self.beside.cut_short.store(true, Ordering::Release);
        }
    }
}
