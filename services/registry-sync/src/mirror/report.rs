//! What the mirror tells of itself.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use grey_core::ids::InstanceId;
use grey_core::text::plain;
use grey_core::version::Version;
use grey_proto::sync::{HeldChange, HoldReason, Quarantined, SourceState, SyncSource, SyncStatus};
use grey_sync::{MAX_HELD, MAX_ITEMS, MAX_QUARANTINED, timestamp};
use pbjson_types::Timestamp;

use super::classify::shown;
use super::hold::Claim;
use super::options::Source;
use super::service::FORMER;
use super::{Mirror, Progress, Unread};

/// Why a change is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Instances vanished or became unhealthy.
    Drop,
    /// Instances have another version, or tell none any more.
    Flip,
}

/// Tells instants as times of day.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    now: Instant,
    wall: SystemTime,
}

impl Clock {
    /// A clock that shows the time of day at the instant `now`, which is the present.
    #[must_use]
    pub fn at(now: Instant) -> Self {
        Self { now, wall: SystemTime::now() }
    }

    fn tell(&self, instant: Instant) -> Timestamp {
        let wall = match instant.checked_duration_since(self.now) {
            Some(ahead) => self.wall.checked_add(ahead),
            None => self.wall.checked_sub(self.now.saturating_duration_since(instant)),
        };
        timestamp(wall.unwrap_or(self.wall))
    }
}

impl Mirror {
    /// How the mirror stands. Lists hold as much as the contract allows; the totals say how much there is.
    #[must_use]
    pub fn status(&self, clock: Clock) -> SyncStatus {
        let sources = self.options.sources.iter().zip(&self.sources);
        let (held, held_total) = self.held_changes(clock);
        let counts = self.counts();
        let left_out = ["quarantined", "skipped_services"].map(|state| counts[state]);
        SyncStatus {
            sources: sources.map(|(source, progress)| progress.told(source, clock)).collect(),
            counts,
            held,
            held_total,
            quarantined: self.left_out().take(MAX_QUARANTINED).collect(),
            quarantined_total: left_out.iter().sum(),
            ..SyncStatus::default()
        }
    }

    /// Whether every source was read completely at least once.
    #[must_use]
    pub fn has_seen_all(&self) -> bool {
        self.sources.iter().all(|source| source.seen_all)
    }

    /// How many there are, by state: services with instances; published instances that calls may be sent to, that their
    /// registry finds unhealthy, and that are switched off or have no weight; those that are published otherwise than
    /// their registry says until that is confirmed; instances and services that are left out.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let [mut services, mut routable, mut unhealthy, mut disabled, mut held, mut quarantined] = [0; 6];
        for service in self.services.values() {
            services += usize::from(!service.desired.is_empty());
            for one in service.desired.values() {
                match (one.is_routable(), one.enabled && one.weight > 0) {
                    (true, _) => routable += 1,
                    (false, true) => unhealthy += 1,
                    (false, false) => disabled += 1,
                }
            }
            held += service.parts.iter().map(|part| part.drops.len() + part.flips.len()).sum::<usize>();
            quarantined += service.quarantined().count();
        }
        let states = [
            ("services", services),
            ("routable", routable),
            ("unhealthy", unhealthy),
            ("disabled", disabled),
            ("held", held),
            ("quarantined", quarantined),
            ("skipped_services", self.sources.iter().map(Progress::left_out).sum()),
        ];
        states.into_iter().map(|(state, count)| (state.to_owned(), count as u64)).collect()
    }

    /// The held changes, oldest first, and how many there are.
    fn held_changes(&self, clock: Clock) -> (Vec<HeldChange>, u64) {
        let mut held = Vec::new();
        for id in &self.held {
            let Some(service) = self.services.get(id) else { continue };
            for (at, part) in service.parts.iter().enumerate() {
                for (hold, reason) in [(&part.drops, Reason::Drop), (&part.flips, Reason::Flip)] {
                    held.extend(hold.since().map(|since| (since, at, id, part, hold, reason)));
                }
            }
        }
        let total = held.len() as u64;
        held.sort_by(|(one, .., by, _), (other, .., than, _)| (one, &by.id).cmp(&(other, &than.id)));
        held.truncate(MAX_HELD);
        let held = held.into_iter().map(|(since, at, id, part, hold, reason)| {
            let (kind, what) = match reason {
                Reason::Drop => (HoldReason::InstanceDrop, "vanished or became unhealthy"),
                Reason::Flip => (HoldReason::VersionFlip, "changed their version"),
            };
            let item = |(id, claim): (&InstanceId, &Claim)| match reason {
                Reason::Drop => id.to_string(),
                Reason::Flip => {
                    let from = part.published().get(id).map_or("none", |one| one.version.as_str());
                    format!("{id}: {from} to {}", claim.as_ref().map_or("none", Version::as_str))
                }
            };
            let (affected, total) = (hold.len(), part.published().len());
            let believed_at = hold.believed_at(&self.options.guard, part.lists_any());
            HeldChange {
                id: hold.id.clone(),
                reason: kind.into(),
                subject: format!("{id}@{}", self.source_name(at)),
                summary: format!("{affected} of {total} instances {what} at once"),
                held_since: Some(clock.tell(since)),
                believed_at: believed_at.map(|at| clock.tell(at)),
                affected: affected as u64,
                total: total as u64,
                items: hold.claims().take(MAX_ITEMS).map(item).collect(),
            }
        });
        (held.collect(), total)
    }

    /// What registries list and is left out.
    fn left_out(&self) -> impl Iterator<Item = Quarantined> {
        let left_out = move |at, subject: String, why: &str| Quarantined {
            subject,
            source: self.source_name(at).to_owned(),
            why: plain(why).into_owned(),
        };
        let sources = || self.sources.iter().enumerate();
        let unread = sources().flat_map(move |(at, progress)| {
            let unread = progress.unread.values();
            unread.map(move |Unread { name, why, .. }| {
                left_out(at, shown(name), &format!("could not be read, and stays as it was: {why}"))
            })
        });
        let skipped = sources().flat_map(move |(at, progress)| {
            progress.skipped.iter().map(move |(name, why)| left_out(at, name.clone(), why))
        });
        let quarantined = self.services.iter().flat_map(move |(id, service)| {
            service.quarantined().map(move |(at, one, why)| left_out(at, format!("{id} {one}"), why))
        });
        unread.chain(skipped).chain(quarantined)
    }

    /// What the source number `at` is called.
    #[must_use]
    pub fn source_name(&self, at: usize) -> &str {
        self.options.sources.get(at).map_or(FORMER, |source| source.name.as_str())
    }
}

impl Progress {
    fn told(&self, source: &Source, clock: Clock) -> SyncSource {
        let state = match (self.failures, self.last_attempt) {
            (1.., _) => SourceState::Failing,
            (0, None) => SourceState::Pending,
            (0, Some(_)) => SourceState::Ok,
        };
        SyncSource {
            name: source.name.to_string(),
            kind: source.kind.to_owned(),
            state: state.into(),
            last_success: self.last_success.map(|at| clock.tell(at)),
            last_attempt: self.last_attempt.map(|at| clock.tell(at)),
            error: self.error.clone(),
            failures: self.failures,
        }
    }
}
