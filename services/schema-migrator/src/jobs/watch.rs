//! Following one upgrade: at once where it runs in this process, by looking now and then where another replica runs it.

use super::queue::{Queue, Refused};
use super::record::{Changed, Job, has_ended};
use futures::{Stream, stream};
use grey_proto::schema::{FlipState, Upgrade};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

struct Watch {
    queue: Queue,
    changes: Receiver<Changed>,
    id: String,
    /// The newest change that was told.
    told: i64,
    over: bool,
    poll: Duration,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// The upgrade now and whenever it changes, until it has ended and its pin is no longer waited for, or `stop`.
///
/// # Errors
/// There is no such upgrade.
pub async fn watch(
    queue: &Queue,
    id: &str,
    poll: Duration,
    stop: CancellationToken,
    permit: OwnedSemaphorePermit,
) -> Result<impl Stream<Item = Result<Upgrade, Refused>> + Send + use<>, Refused> {
    // Before the first look, so that no change is missed between.
    let changes = queue.changes();
    let first = queue.get(id).await?;
    let watch = Watch {
        queue: queue.clone(),
        changes,
        id: id.to_owned(),
        told: first.change,
        over: is_over(&first),
        poll,
        stop,
        _permit: permit,
    };
    let rest = stream::unfold(Some(watch), async |watch| {
        let mut watch = watch?;
        match watch.next().await {
            Ok(Some(job)) => Some((Ok(job.upgrade), Some(watch))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(futures::StreamExt::chain(stream::iter([Ok(first.upgrade)]), rest))
}

fn is_over(job: &Job) -> bool {
    let flipping = job
        .upgrade
        .flip
        .as_ref()
        .is_some_and(|flip| matches!(flip.state(), FlipState::Pending | FlipState::Unspecified));
    has_ended(job.upgrade.state()) && !flipping
}

impl Watch {
    async fn next(&mut self) -> Result<Option<Job>, Refused> {
        loop {
            if self.over {
                return Ok(None);
            }
            let job = tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                changed = self.changes.recv() => match changed {
                    Ok(job) if job.upgrade.id == self.id => (*job).clone(),
                    Ok(_) => continue,
                    Err(RecvError::Lagged(_)) => self.queue.get(&self.id).await?,
                    Err(RecvError::Closed) => return Ok(None),
                },
                () = tokio::time::sleep(self.poll) => self.queue.get(&self.id).await?,
            };
            if job.change > self.told {
                self.told = job.change;
                self.over = is_over(&job);
                return Ok(Some(job));
            }
        }
    }
}
