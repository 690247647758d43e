//! How the mirror stands, as it is told.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use grey_proto::sync::{HeldChange, HoldReason, Quarantined, SourceState, SyncRun, SyncSource, SyncStatus};
use grey_sync::timestamp;
use pbjson_types::Timestamp;

use crate::mirror::{Counts, Held, LeftOut, Mirror, Reason, SourceReport};

/// The status of `mirror`, after `runs`.
pub(super) fn of(mirror: &Mirror, runs: Vec<SyncRun>, now: Instant) -> SyncStatus {
    let clock = Clock { now, wall: SystemTime::now() };
    let (held, held_total) = mirror.held();
    let counts = mirror.counts();
    SyncStatus {
        sources: mirror.sources().into_iter().map(|source| clock.source(source)).collect(),
        counts: by_state(counts),
        held: held.into_iter().map(|held| clock.held(held)).collect(),
        held_total: held_total as u64,
        quarantined: mirror.left_out().into_iter().map(left_out).collect(),
        quarantined_total: (counts.quarantined + counts.skipped) as u64,
        runs,
        ..SyncStatus::default()
    }
}

/// How many there are, by state.
pub(super) fn by_state(counts: Counts) -> BTreeMap<String, u64> {
    let states = [
        ("services", counts.services),
        ("routable", counts.routable),
        ("unhealthy", counts.unhealthy),
        ("disabled", counts.disabled),
        ("held", counts.held),
        ("quarantined", counts.quarantined),
        ("skipped_services", counts.skipped),
    ];
    states.into_iter().map(|(state, count)| (state.to_owned(), count as u64)).collect()
}

/// Tells instants as times of day.
struct Clock {
    now: Instant,
    wall: SystemTime,
}

impl Clock {
    fn at(&self, instant: Instant) -> Timestamp {
        let wall = match instant.checked_duration_since(self.now) {
            Some(ahead) => self.wall.checked_add(ahead),
            None => self.wall.checked_sub(self.now.saturating_duration_since(instant)),
        };
        timestamp(wall.unwrap_or(self.wall))
    }

    fn source(&self, source: SourceReport) -> SyncSource {
        let state = match source {
            SourceReport { failures: 1.., .. } => SourceState::Failing,
            SourceReport { last_attempt: None, .. } => SourceState::Pending,
            _ => SourceState::Ok,
        };
        SyncSource {
            name: source.name,
            kind: source.kind.to_owned(),
            state: state.into(),
            last_success: source.last_success.map(|at| self.at(at)),
            last_attempt: source.last_attempt.map(|at| self.at(at)),
            error: source.error,
            failures: source.failures,
        }
    }

    fn held(&self, held: Held) -> HeldChange {
        let (reason, what) = match held.reason {
            Reason::Drop => (HoldReason::InstanceDrop, "vanished or became unhealthy"),
            Reason::Flip => (HoldReason::VersionFlip, "changed their version"),
        };
        HeldChange {
            id: held.id,
            reason: reason.into(),
            subject: held.subject,
            summary: format!("{} of {} instances {what} at once", held.affected, held.total),
            held_since: Some(self.at(held.since)),
            believed_at: held.believed_at.map(|at| self.at(at)),
            affected: held.affected as u64,
            total: held.total as u64,
            items: held.items,
        }
    }
}

fn left_out(left_out: LeftOut) -> Quarantined {
    let LeftOut { subject, source, why } = left_out;
    Quarantined { subject, source, why }
}
