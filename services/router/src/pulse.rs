//! Keeps readiness and staleness up to date beside the decisions.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grey_runtime::Health;
use grey_state::follower::NotCurrent;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// Time between two looks at the follower's status; a new table is looked at at once.
const PERIOD: Duration = Duration::from_millis(100);
/// The same while the table is not current, so that answers are not called stale for longer than they are.
const STALE_PERIOD: Duration = Duration::from_millis(20);

/// Runs until the drain begins, which it tells the streams.
pub(crate) async fn run(shared: Arc<Shared>, health: Health, draining: CancellationToken) {
    let mut applied = shared.tables.applied();
    let (mut remark, mut damaged) = (None, 0);
    loop {
        let status = shared.tables.status();
        let stale = !status.is_current();
        if shared.stale.swap(stale, Relaxed) != stale {
            let revision = status.position.revision.0;
            match &status.not_current {
                Some(why) => tracing::warn!(table.revision = revision, %why, "routing table is stale"),
                None => tracing::info!(table.revision = revision, "routing table is up to date"),
            }
        }
        // Without a table, a level that is too low is why.
        let told = status.not_current.filter(|why| status.ready || matches!(why, NotCurrent::Above { .. }));
        let now = told.map(|why| format!("stale: {why}"));
        // A remark wakes whoever watches the health, so only a new one is made.
        if now != remark {
            match &now {
                Some(text) => health.set_detail("table", text.clone()),
                None => health.clear_detail("table"),
            }
            remark = now;
        }
        if status.instances.damaged != damaged {
            damaged = status.instances.damaged;
            match damaged {
                0 => health.clear_detail("instances"),
                count => health.set_detail("instances", format!("{count} damaged lists in shared state")),
            }
        }
        // A router that nobody knows of would not be waited for, so nobody may be sent to it.
        match status.ready && shared.tables.has_instances() {
            true if shared.announced.load(Relaxed) => health.set_ready(true),
            true => health.set_not_ready("not announced to the fleet yet"),
            false => health.set_not_ready("no routing table yet"),
        }
        tokio::select! {
            () = draining.cancelled() => break,
            Ok(()) = applied.changed() => {}
            () = tokio::time::sleep(if stale { STALE_PERIOD } else { PERIOD }) => {}
        }
    }
    shared.draining.store(true, Relaxed);
}
