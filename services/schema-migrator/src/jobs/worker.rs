//! Takes upgrades from the queue and runs them, as many at once as allowed.

use super::Options;
use super::execution::{Execution, Surroundings};
use super::queue::Queue;
use crate::metrics::Metrics;
use crate::prepare::Grounds;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs upgrades on this replica.
pub struct Worker {
    surroundings: Arc<Surroundings>,
    drain_grace: Duration,
}

impl Worker {
    /// `name` is the replica's; running upgrades have `drain_grace` to end once the drain has begun.
    #[must_use]
    pub fn new(
        name: String,
        queue: Queue,
        grounds: Grounds,
        options: Options,
        metrics: Metrics,
        drain_grace: Duration,
    ) -> Self {
        let surroundings = Surroundings { name, queue, grounds, options, metrics };
        Self { surroundings: Arc::new(surroundings), drain_grace }
    }

    /// Runs until `stop`; what runs then may go on for the grace, and is put back into the queue after that.
    pub async fn run(self, stop: CancellationToken) {
        let Surroundings { queue, options, .. } = &*self.surroundings;
        let halt = CancellationToken::new();
        let mut running = JoinSet::new();
        while !stop.is_cancelled() {
            self.fill(&mut running, &halt, &stop).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = queue.woken() => {}
                Some(ended) = running.join_next() => noted(ended),
                () = tokio::time::sleep(options.poll) => {}
            }
        }
        if running.is_empty() {
            return;
        }
        tracing::info!(upgrades = running.len(), "letting running upgrades end");
        if tokio::time::timeout(self.drain_grace, drained(&mut running)).await.is_err() {
            tracing::info!(upgrades = running.len(), "stopping upgrades and putting them back");
            halt.cancel();
            drained(&mut running).await;
        }
    }

    async fn fill(&self, running: &mut JoinSet<()>, halt: &CancellationToken, stop: &CancellationToken) {
        let Surroundings { name, queue, options, metrics, .. } = &*self.surroundings;
        // What was taken over from others does not count towards the limit, so that it is bounded here as well.
        let most = usize::try_from(options.concurrency).unwrap_or(usize::MAX);
        while running.len() < most && !stop.is_cancelled() {
            match queue.take(name, options.lease, options.limits()).await {
                Ok(Some(taken)) => {
                    if taken.taken_over {
                        metrics.taken_over();
                    }
                    let execution = Execution::new(Arc::clone(&self.surroundings), taken, halt.clone());
                    running.spawn(execution.run());
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = ?error, "the migrator's database did not answer");
                    return;
                }
            }
        }
    }
}

async fn drained(running: &mut JoinSet<()>) {
    while let Some(ended) = running.join_next().await {
        noted(ended);
    }
}

fn noted(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        // Its lease runs out, and another attempt finds out what it has done.
        tracing::error!(error = %error, "an upgrade's task ended abnormally");
    }
}
