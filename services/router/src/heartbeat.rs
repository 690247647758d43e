//! Tells the fleet what this router has applied: the control plane waits for it after each change.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grey_core::change::Position;
use grey_state::heartbeats::{Goodbye, Heartbeat as Beat};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::holds::Holds;
use crate::shared::Shared;

/// For one heartbeat. The next one tells the same or more, so waiting longer helps nobody.
const DEADLINE: Duration = Duration::from_secs(2);

/// Time between looks at whether the table is still, or again, known to be the present one.
const LOOK: Duration = Duration::from_millis(100);

/// Announces the router.
pub(crate) struct Heartbeat {
    shared: Arc<Shared>,
    /// Of this process.
    run: u64,
    address: String,
    options: config::Heartbeat,
    /// Where holds are kept that the snapshot file may not have yet; none without such a file.
    holds: Option<Holds>,
    failing: bool,
}

impl Heartbeat {
    pub(crate) fn new(
        shared: Arc<Shared>,
        address: String,
        options: config::Heartbeat,
        holds: Option<Holds>,
    ) -> Self {
        // Half of what fits, since SQL's integers have a sign; 0 is nobody's.
        let run = rand::random_range(1..=i64::MAX.unsigned_abs());
        Self { shared, run, address, options, holds, failing: false }
    }

    /// Announces each applied revision at once, as well as whether the table is the present one, and the router's life in between, until the drain begins.
    ///
    /// Revisions that arrive while a heartbeat is on its way go together in the next one.
    pub(crate) async fn run(mut self, draining: CancellationToken) {
        let mut applied = self.shared.tables.applied();
        let mut tick = interval(self.options.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            tokio::select! {
                biased;
                () = draining.cancelled() => break,
                Ok(()) = applied.changed() => {}
                _ = tick.tick() => {}
                _ = look.tick() => {
                    if told == Some(self.shared.tables.status().is_current()) {
                        continue;
                    }
                }
            }
            told = Some(self.shared.tables.status().is_current());
            self.beat().await;
        }
        let router = &self.shared.identity.id;
        let goodbye = Goodbye { router: router.clone(), run: self.run };
        let leave = self.shared.state.heartbeats.leave(&goodbye);
        if !matches!(timeout(DEADLINE, leave).await, Ok(Ok(()))) {
            tracing::warn!(
                router.id = router,
                "goodbye did not arrive; the router counts until it is missed"
            );
        }
    }

    async fn beat(&mut self) {
        let table = self.shared.tables.load_full();
        let status = self.shared.tables.status();
        if !status.ready {
            // Nobody should wait for a router that has nothing to serve yet.
            return;
        }
        // What is acknowledged must outlive this process, or a restart from the file would forget it.
        let kept = match &mut self.holds {
            Some(holds) => holds.keep(&table).await,
            None => true,
        };
        let identity = &self.shared.identity;
        let beat = Beat {
            router: identity.id.clone(),
            run: self.run,
            address: self.address.clone(),
            region: identity.region.clone(),
            zone: identity.zone.clone(),
            position: table.position(),
            digest: table.digest(),
            stale: !status.is_current() || !kept,
            level: status.level,
            lease: self.options.ttl,
        };
        let sent = timeout(DEADLINE, self.shared.state.heartbeats.beat(&beat)).await;
        let failed = !matches!(sent, Ok(Ok(())));
        if failed {
            self.shared.gauges.heartbeat_failures.fetch_add(1, Relaxed);
        }
        if failed != self.failing {
            self.failing = failed;
            match sent {
                Ok(Ok(())) => tracing::info!(router.id = beat.router, "heartbeats arrive again"),
                Ok(Err(error)) => {
                    tracing::warn!(router.id = beat.router, error = %error, "heartbeat did not arrive");
                }
                Err(_) => tracing::warn!(router.id = beat.router, "heartbeat did not arrive in time"),
            }
        }
        if !failed && !self.shared.announced.load(Relaxed) {
            self.catch_up().await;
        }
    }

    /// Reaches whatever was committed before the fleet knew of this router: what comes later waits for it.
    async fn catch_up(&self) {
        let head = timeout(DEADLINE, self.shared.state.feed.head()).await;
        let Ok(Ok(Some(head))) = head else { return };
        let end = Position { epoch: head.epoch, revision: head.last };
        if self.shared.tables.wait_until(|position| position >= end, DEADLINE).await {
            self.shared.announced.store(true, Relaxed);
        }
    }
}
