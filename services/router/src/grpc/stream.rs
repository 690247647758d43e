//! Decisions as calls arrive: one message after another, decided where it is read.
//!
//! An answer is made only when the connection takes it, so a caller that does not read its answers is not
//! read from either, and nothing queues up. After each message others have their turn: a stream that is never idle
//! shares its core with everyone else's calls.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::{FutureExt, Stream, StreamExt, stream};
use grey_core::error::Reason;
use grey_proto::router::{RouteStreamRequest, RouteStreamResponse};
use grey_proto::status::ApiError;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::decider::Decider;

/// Messages of a stream that are still answered once the drain has begun: what was on its way by then, and no more of one
/// that never ends.
const LAST_MESSAGES: usize = 256;

struct Calls<M> {
    messages: M,
    draining: CancellationToken,
    /// How many may follow now that the drain has begun.
    left: usize,
}

/// The answers to `messages`, in their order, until the caller ends them or the router drains.
pub(super) fn answers(
    decider: Arc<Decider>,
    role: String,
    messages: impl Stream<Item = Result<RouteStreamRequest, Status>> + Send + Unpin + 'static,
    draining: CancellationToken,
) -> impl Stream<Item = Result<RouteStreamResponse, Status>> + Send {
    let calls = Calls { messages, draining, left: LAST_MESSAGES };
    stream::try_unfold((calls, decider, role), async |(mut calls, decider, role)| {
        let Some(message) = calls.next(&decider).await? else { return Ok(None) };
        let outcomes = decider.route_all(&message.calls, &role).await?;
        yield_now().await;
        Ok(Some((RouteStreamResponse { id: message.id, outcomes }, (calls, decider, role))))
    })
}

impl<M: Stream<Item = Result<RouteStreamRequest, Status>> + Unpin> Calls<M> {
    async fn next(&mut self, decider: &Decider) -> Result<Option<RouteStreamRequest>, Status> {
        if decider.shared.draining.load(Relaxed) {
            self.left = self.left.checked_sub(1).ok_or_else(draining)?;
        }
        // What has arrived is answered; the token, whose lock all threads share, is asked by idle streams alone.
        if let Some(arrived) = self.messages.next().now_or_never() {
            return arrived.transpose();
        }
        tokio::select! {
            biased;
            message = self.messages.next() => message.transpose(),
            () = self.draining.cancelled() => Err(draining()),
        }
    }
}

/// Ends a stream of a draining router; the caller goes on at another one.
pub(crate) fn draining() -> Status {
    ApiError::new(Reason::Unavailable, "the router is draining; connect again").into()
}
