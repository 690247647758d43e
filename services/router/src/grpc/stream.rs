//! Decisions as calls arrive: one message after another, decided where it is read.
//!
//! An answer is made only when the connection takes it, so a caller that does not read its answers is not
//! read from either, and nothing queues up.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::{FutureExt, Stream, stream};
use grey_core::error::Reason;
use grey_proto::router::{RouteStreamRequest, RouteStreamResponse};
use grey_proto::status::ApiError;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::decider::Decider;

struct Calls {
    decider: Arc<Decider>,
    role: String,
    messages: Streaming<RouteStreamRequest>,
    draining: CancellationToken,
}

/// The answers to `messages`, in their order, until the caller ends them or the router drains.
pub(super) fn answers(
    decider: Arc<Decider>,
    role: String,
    messages: Streaming<RouteStreamRequest>,
    draining: CancellationToken,
) -> impl Stream<Item = Result<RouteStreamResponse, Status>> + Send {
    let calls = Calls { decider, role, messages, draining };
    stream::try_unfold(calls, async |mut calls: Calls| {
        let Some(message) = calls.next().await? else { return Ok(None) };
        let outcomes = calls.decider.route_all(&message.calls, &calls.role).await?;
        Ok(Some((RouteStreamResponse { id: message.id, outcomes }, calls)))
    })
}

impl Calls {
    async fn next(&mut self) -> Result<Option<RouteStreamRequest>, Status> {
        // What has arrived is answered; the token, whose lock all threads share, is asked by idle streams alone.
        if let Some(arrived) = self.messages.message().now_or_never() {
            return arrived;
        }
        if self.decider.shared.draining.load(Relaxed) {
            return Err(draining());
        }
        tokio::select! {
            biased;
            message = self.messages.message() => message,
            () = self.draining.cancelled() => Err(draining()),
        }
    }
}

/// Ends a stream of a draining router; the caller goes on at another one.
pub(crate) fn draining() -> Status {
    ApiError::new(Reason::Unavailable, "the router is draining; connect again").into()
}
