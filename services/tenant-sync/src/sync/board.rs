//! What the leader tells of itself.

use std::collections::BTreeMap;
use std::time::SystemTime;

use grey_proto::sync::{HeldChange, HoldReason, Quarantined, SourceState, SyncRun, SyncSource, SyncStatus};
use grey_sync::{MAX_ITEMS, MAX_QUARANTINED, MAX_RUNS, timestamp};
use pbjson_types::Timestamp;

use crate::diff::{Hold, Plan, count};
use crate::source::Roster;

/// The name of the only source.
const SOURCE: &str = "tenant-api";
/// What a shrink is about.
const SUBJECT: &str = "tenants";

/// Before anything was read.
pub(super) fn pending() -> SyncStatus {
    let source = SyncSource {
        name: SOURCE.to_owned(),
        kind: "http".to_owned(),
        state: SourceState::Pending.into(),
        ..SyncSource::default()
    };
    SyncStatus { sources: vec![source], ..SyncStatus::default() }
}

/// The tenant API is about to be read.
pub(super) fn reading(status: &mut SyncStatus) {
    for source in &mut status.sources {
        source.last_attempt = Some(timestamp(SystemTime::now()));
    }
}

/// It was read, or not.
pub(super) fn read(status: &mut SyncStatus, error: Option<&str>) {
    for source in &mut status.sources {
        let (state, failures) = match error {
            None => (SourceState::Ok, 0),
            Some(_) => (SourceState::Failing, source.failures + 1),
        };
        source.last_success =
            if failures == 0 { Some(timestamp(SystemTime::now())) } else { source.last_success.take() };
        source.state = state.into();
        source.failures = failures;
        source.error = error.unwrap_or_default().to_owned();
    }
}

/// A sync has ended.
pub(super) fn ran(status: &mut SyncStatus, run: SyncRun) {
    status.runs.insert(0, run);
    status.runs.truncate(MAX_RUNS);
}

/// What a sync that succeeded has found.
pub(super) fn settled(
    status: &mut SyncStatus,
    census: BTreeMap<&'static str, u64>,
    plan: &Plan,
    roster: &Roster,
) {
    status.counts = census.into_iter().map(|(state, tenants)| (state.to_owned(), tenants)).collect();
    let since = status.held.first().and_then(|held| held.held_since);
    let since = since.unwrap_or_else(|| timestamp(SystemTime::now()));
    status.held = plan.hold.iter().map(|hold| held(hold, since)).collect();
    status.held_total = count(&status.held);
    status.quarantined = quarantined(plan, roster);
    status.quarantined_total = roster.invalid_total + count(&plan.unfit);
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
