//! The event log as it grows, and whether it is as it was written.

use std::time::Duration;

use futures::Stream;
use futures::stream::{self, StreamExt};
use grey_core::change::{Event, Position, Revision};
use grey_core::error::Reason;
use grey_edge::Caller;
use grey_proto::control::{
    self, VerifyEventsRequest, VerifyEventsResponse, WatchEventsRequest, WatchEventsResponse,
};
use grey_proto::status::ApiError;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Api, MAX_PAGE, page_size};

/// Events read from the database at once: each may hold a thousand changes.
const CHUNK: usize = 50;
/// Changes of one message.
pub(super) const PART: usize = 1_000;
/// How often a stream looks for commits of other replicas.
const POLL: Duration = Duration::from_millis(500);

impl Api {
    /// Checks that events are as they were written.
    ///
    /// # Errors
    /// A limit out of range, a revision beyond the log, too many such calls at once, or the database is away.
    pub async fn verify_events(
        &self,
        _: &Caller,
        request: VerifyEventsRequest,
    ) -> Result<VerifyEventsResponse, ApiError> {
        let limit = if request.limit == 0 { MAX_PAGE } else { page_size("limit", request.limit)? };
        let lane = &self.0.lanes.events;
        let verified = lane
            .run(Box::pin(async {
                self.reaches(request.after).await?;
                Ok(lane.database().verify(Revision(request.after), limit).await?)
            }))
            .await?;
        let (broken, why) = verified.fault.map_or((0, String::new()), |fault| {
            tracing::error!(
                event.revision = fault.revision.0,
                fault = fault.why,
                "log is not as it was written"
            );
            (fault.revision.0, fault.why.to_owned())
        });
        Ok(VerifyEventsResponse { revision: verified.reached.0, broken, why, complete: verified.is_complete })
    }

    /// Refuses a revision beyond the log: whoever asks has seen another one.
    async fn reaches(&self, revision: u64) -> Result<(), ApiError> {
        let head = self.0.lanes.events.database().head().await?;
        if revision > head.revision.0 {
            let message = format!("the log ends at revision {}, before {revision}", head.revision);
            return Err(ApiError::new(Reason::RevisionUnavailable, message));
        }
        Ok(())
    }

    /// Streams events from a revision on, then each new one as it is committed.
    ///
    /// # Errors
    /// Too many streams are open, or the revision is beyond the log. The stream ends with an error when the database
    /// is away.
    pub async fn watch_events(
        &self,
        _: &Caller,
        request: WatchEventsRequest,
    ) -> Result<impl Stream<Item = Result<WatchEventsResponse, ApiError>> + Send + use<>, ApiError> {
        let busy = |_| ApiError::new(Reason::RateLimited, "too many streams of events are open; close some");
        let permit = std::sync::Arc::clone(&self.0.watchers).try_acquire_owned().map_err(busy)?;
        self.reaches(request.after).await?;
        let watch = Watch {
            commits: self.0.commands.head(),
            api: self.clone(),
            after: Revision(request.after),
            _permit: permit,
        };
        let batches = stream::unfold(Some(watch), async |watch| {
            let mut watch = watch?;
            match watch.next().await {
                Ok(Some(events)) => Some((events, Some(watch))),
                Ok(None) => None,
                Err(error) => Some((vec![Err(error)], None)),
            }
        });
        Ok(batches.flat_map(stream::iter))
    }
}

/// The event in messages that clients take by default.
fn parts(event: &Event) -> impl Iterator<Item = control::Event> {
    let parts = event.changes.chunks(PART).enumerate();
    parts.map(|(at, changes)| {
        let omitted = event.changes.len() - at * PART - changes.len();
        let changes = changes.iter().map(Into::into).collect();
        control::Event { changes, omitted: omitted as u64, ..envelope(event) }
    })
}

/// The event without its changes.
pub(super) fn envelope(event: &Event) -> control::Event {
    let Event { revision, at_ms, principal, reason, cause, level, previous, sealed, changes: _ } = event;
    let (principal, reason, cause) = (principal.clone(), reason.clone(), cause.clone());
    let (revision, at_ms, level, previous) = (*revision, *at_ms, *level, *previous);
    let (sealed, changes) = (sealed.clone(), Vec::new());
    (&Event { revision, at_ms, principal, reason, cause, level, previous, sealed, changes }).into()
}

/// A stream of events under way.
struct Watch {
    api: Api,
    commits: watch::Receiver<Position>,
    after: Revision,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    /// The next events; none once the control plane drains.
    async fn next(&mut self) -> Result<Option<Vec<Result<WatchEventsResponse, ApiError>>>, ApiError> {
        loop {
            // Before the read: a commit during it must not be slept through.
            self.commits.mark_unchanged();
            let lane = &self.api.0.lanes.events;
            let turn = lane.turn().await?;
            let events = lane.database().events(self.after, CHUNK).await?;
            drop(turn);
            if let Some(last) = events.last() {
                self.after = last.revision;
                let message = |event| Ok(WatchEventsResponse { event: Some(event) });
                return Ok(Some(events.iter().flat_map(parts).map(message).collect()));
            }
            tokio::select! {
                _ = self.commits.changed() => {}
                () = tokio::time::sleep(POLL) => {}
                () = self.api.0.draining.cancelled() => return Ok(None),
            }
        }
    }
}
