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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use std::pin::pin;

    use grey_proto::router::RouteRequest;

    use super::*;
    use crate::grpc::conformance::pair::shared;

    /// Messages of a stream that is never idle.
    const MESSAGES: usize = 1_000;

    #[tokio::test]
    async fn others_have_their_turn_after_each_message() {
        let decider = Arc::new(Decider::new(shared(|_| {}).0, Arc::default(), 0));
        let call =
            RouteRequest { tenant: "acme".into(), service: "payment".into(), ..RouteRequest::default() };
        let message = RouteStreamRequest { id: 1, calls: vec![call] };
        let messages = stream::iter(vec![message; MESSAGES]).map(Ok);
        let answers = answers(decider, "tester".to_owned(), messages, CancellationToken::new());
        let busy = tokio::spawn(async move { pin!(answers).filter_map(async |one| one.ok()).count().await });
        let ended = busy.abort_handle();
        let other = tokio::spawn(async move {
            let mut turns = 0;
            while !ended.is_finished() {
                yield_now().await;
                turns += 1;
            }
            turns
        });
        assert_eq!(busy.await.unwrap(), MESSAGES);
        let turns = other.await.unwrap();
        assert!(turns + 10 >= MESSAGES, "{turns} turns beside {MESSAGES} messages");
    }
}
