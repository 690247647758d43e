//! Tells the fleet what this router has applied: the control plane waits for it after each change.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grey_state::heartbeats::Heartbeat as Beat;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::route::Shared;

/// For one heartbeat. The next one tells the same or more, so waiting longer helps nobody.
const DEADLINE: Duration = Duration::from_secs(2);

/// Announces the router.
pub(crate) struct Heartbeat {
    shared: Arc<Shared>,
    router: String,
    address: String,
    options: config::Heartbeat,
    failing: bool,
}

impl Heartbeat {
    pub(crate) fn new(
        shared: Arc<Shared>,
        router: String,
        address: String,
        options: config::Heartbeat,
    ) -> Self {
        Self { shared, router, address, options, failing: false }
    }

    /// Announces each applied revision at once, and the router's life in between, until the drain begins.
    ///
    /// Revisions that arrive while a heartbeat is on its way go together in the next one.
    pub(crate) async fn run(mut self, draining: CancellationToken) {
        let mut applied = self.shared.tables.applied();
        let mut tick = interval(self.options.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = draining.cancelled() => break,
                Ok(()) = applied.changed() => {}
                _ = tick.tick() => {}
            }
            self.beat().await;
        }
        let leave = self.shared.state.heartbeats.leave(&self.router);
        if !matches!(timeout(DEADLINE, leave).await, Ok(Ok(()))) {
            tracing::debug!(router.id = self.router, "router's last heartbeat expires by itself");
        }
    }

    async fn beat(&mut self) {
        let status = self.shared.tables.status();
        if !status.ready {
            // Nobody should wait for a router that has nothing to serve yet.
            return;
        }
        let beat = Beat {
            router: self.router.clone(),
            address: self.address.clone(),
            region: self.shared.identity.region.clone(),
            zone: self.shared.identity.zone.clone(),
            position: status.position,
            digest: status.digest,
            stale: status.stale,
        };
        let sent = timeout(DEADLINE, self.shared.state.heartbeats.beat(&beat, self.options.ttl)).await;
        let failed = !matches!(sent, Ok(Ok(())));
        if failed {
            self.shared.gauges.heartbeat_failures.fetch_add(1, Relaxed);
        }
        if failed != self.failing {
            self.failing = failed;
            match sent {
                Ok(Ok(())) => tracing::info!(router.id = self.router, "heartbeats arrive again"),
                Ok(Err(error)) => {
                    tracing::warn!(router.id = self.router, error = %error, "heartbeat did not arrive");
                }
                Err(_) => tracing::warn!(router.id = self.router, "heartbeat did not arrive in time"),
            }
        }
    }
}
