//! Keeps readiness and staleness up to date beside the decisions.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grey_runtime::Health;
use tokio_util::sync::CancellationToken;

use crate::route::Shared;

/// Time between two looks at the follower's status; a new table is looked at at once.
const PERIOD: Duration = Duration::from_millis(100);
/// The same while the table is stale, so that answers are not called stale for longer than they are.
const STALE_PERIOD: Duration = Duration::from_millis(20);

/// Runs until the drain begins, which it tells the streams.
pub(crate) async fn run(shared: Arc<Shared>, health: Health, draining: CancellationToken) {
    let mut applied = shared.tables.applied();
    let mut remark = None;
    loop {
        let status = shared.tables.status();
        if shared.stale.swap(status.stale, Relaxed) != status.stale {
            if status.stale {
                tracing::warn!(
                    table.revision = status.position.revision.0,
                    "routing table is stale, still serving"
                );
            } else {
                tracing::info!(table.revision = status.position.revision.0, "routing table is up to date");
            }
        }
        let now = (status.ready && status.stale).then(|| match status.age {
            Some(age) => format!("stale for {}s", age.as_secs()),
            None => "stale, from the snapshot file".to_owned(),
        });
        // A remark wakes whoever watches the health, so only a new one is made.
        if now != remark {
            match &now {
                Some(text) => health.set_detail("table", text.clone()),
                None => health.clear_detail("table"),
            }
            remark = now;
        }
        if status.ready && shared.tables.has_instances() {
            health.set_ready(true);
        } else {
            health.set_not_ready("no routing table yet");
        }
        tokio::select! {
            () = draining.cancelled() => break,
            Ok(()) = applied.changed() => {}
            () = tokio::time::sleep(if status.stale { STALE_PERIOD } else { PERIOD }) => {}
        }
    }
    shared.draining.store(true, Relaxed);
}
