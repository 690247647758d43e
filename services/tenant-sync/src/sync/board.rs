//! What the leader tells of itself, as it stands at any moment.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use grey_proto::sync::{HeldChange, HoldReason, Quarantined, SourceState, SyncRun, SyncSource, SyncStatus};
use grey_sync::{MAX_ITEMS, MAX_QUARANTINED, MAX_RUNS, timestamp};
use pbjson_types::Timestamp;
use tokio::sync::Notify;

use crate::diff::{Hold, Plan, count};
use crate::source::Roster;

/// The name of the only source.
const SOURCE: &str = "tenant-api";
/// What a shrink is about.
const SUBJECT: &str = "tenants";

/// The status in the making.
#[derive(Debug)]
pub(super) struct Board {
    status: Mutex<SyncStatus>,
    changed: Notify,
}

impl Default for Board {
    fn default() -> Self {
        let source = SyncSource {
            name: SOURCE.to_owned(),
            kind: "http".to_owned(),
            state: SourceState::Pending.into(),
            ..SyncSource::default()
        };
        let status = SyncStatus { sources: vec![source], ..SyncStatus::default() };
        Self { status: Mutex::new(status), changed: Notify::new() }
    }
}

impl Board {
    /// As it stands.
    pub(super) fn status(&self) -> SyncStatus {
        self.lock().clone()
    }

    /// Waits for a change since the last wait.
    pub(super) async fn wait(&self) {
        self.changed.notified().await;
    }

    /// Something has changed, here or at the desk.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, SyncStatus> {
        // Half a change is still told, and the next one completes it.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self, change: impl FnOnce(&mut SyncSource, Timestamp)) {
        if let Some(source) = self.lock().sources.first_mut() {
            change(source, timestamp(SystemTime::now()));
        }
        self.changed();
    }

    /// The tenant API is about to be read.
    pub(super) fn reading(&self) {
        self.source(|source, now| source.last_attempt = Some(now));
    }

    /// It was read, or not.
    pub(super) fn read(&self, error: Option<String>) {
        self.source(|source, now| match error {
            None => {
                source.state = SourceState::Ok.into();
                source.last_success = Some(now);
                source.error.clear();
                source.failures = 0;
            }
            Some(error) => {
                source.state = SourceState::Failing.into();
                source.error = error;
                source.failures += 1;
            }
        });
    }

    /// A sync has ended.
    pub(super) fn ran(&self, run: SyncRun) {
        let mut status = self.lock();
        status.runs.insert(0, run);
        status.runs.truncate(MAX_RUNS);
        drop(status);
        self.changed();
    }

    /// What a sync that succeeded has found.
    pub(super) fn settled(&self, census: BTreeMap<&'static str, u64>, plan: &Plan, roster: &Roster) {
        let mut status = self.lock();
        status.counts = census.into_iter().map(|(state, tenants)| (state.to_owned(), tenants)).collect();
        let since = status.held.first().and_then(|held| held.held_since);
        let since = since.unwrap_or_else(|| timestamp(SystemTime::now()));
        status.held = plan.hold.iter().map(|hold| held(hold, since)).collect();
        status.held_total = count(&status.held);
        status.quarantined = quarantined(plan, roster);
        status.quarantined_total = roster.invalid_total + count(&plan.unfit);
        drop(status);
        self.changed();
    }
}

/// A hold, as others see it. It is held since something has been held, be it of other tenants.
fn held(hold: &Hold, since: Timestamp) -> HeldChange {
    HeldChange {
        id: hold.id.clone(),
        reason: HoldReason::TenantShrink.into(),
        subject: SUBJECT.to_owned(),
        summary: hold.summary(),
        held_since: Some(since),
        believed_at: None,
        affected: count(&hold.losses),
        total: hold.total,
        items: hold.losses.keys().take(MAX_ITEMS).map(ToString::to_string).collect(),
    }
}

fn quarantined(plan: &Plan, roster: &Roster) -> Vec<Quarantined> {
    let left_out =
        |subject: String, why: &str| Quarantined { subject, source: SOURCE.to_owned(), why: why.to_owned() };
    let unfit = plan.unfit.iter().map(|unfit| left_out(unfit.tenant.to_string(), &unfit.why));
    let invalid = roster.invalid.iter().map(|invalid| {
        let id = if invalid.id.is_empty() { "an entry without an id" } else { &invalid.id };
        left_out(id.to_owned(), &invalid.reason)
    });
    unfit.chain(invalid).take(MAX_QUARANTINED).collect()
}
