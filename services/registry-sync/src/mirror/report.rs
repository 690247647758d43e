//! What the mirror tells of itself.

use std::time::Instant;

use grey_core::text::plain;

use super::classify::shown;
use super::hold::Hold;
use super::part::Part;
use super::service::FORMER;
use super::{Mirror, Progress, Unread};

/// Most held changes and most quarantined instances that are told one by one.
pub const MAX_TOLD: usize = 1_000;
/// Most instances of a held change that are told one by one.
pub const MAX_ITEMS: usize = 50;

/// Why a change is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Instances vanished or became unhealthy.
    Drop,
    /// Instances have another version, or tell none any more.
    Flip,
}

/// A change that waits for confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Accept it by this id, which changes when more is held.
    pub id: String,
    /// Why.
    pub reason: Reason,
    /// The service and the source, such as `payment@dc-1`.
    pub subject: String,
    /// Since when.
    pub since: Instant,
    /// When it is believed if it persists; none: never by time alone.
    pub believed_at: Option<Instant>,
    /// How many instances it concerns.
    pub affected: usize,
    /// How many are published of this service and source.
    pub total: usize,
    /// Which, at most [`MAX_ITEMS`].
    pub items: Vec<String>,
}

/// Something that a registry lists and that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The service, or the service and the instance.
    pub subject: String,
    /// The source that lists it.
    pub source: String,
    /// Why it is left out.
    pub why: String,
}

/// How the reading of one source goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// As configured.
    pub name: String,
    /// `nacos` or `file`.
    pub kind: &'static str,
    /// When everything was last read.
    pub last_success: Option<Instant>,
    /// When it was last read or tried.
    pub last_attempt: Option<Instant>,
    /// Why the last read failed; empty if it did not.
    pub error: String,
    /// Failures in a row.
    pub failures: u64,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Services with instances.
    pub services: usize,
    /// Published instances that calls may be sent to.
    pub routable: usize,
    /// Published instances that their registry finds unhealthy.
    pub unhealthy: usize,
    /// Published instances that are switched off, or have no weight.
    pub disabled: usize,
    /// Published instances that are published otherwise than their registry says, until that is confirmed.
    pub held: usize,
    /// Listed instances that are left out.
    pub quarantined: usize,
    /// Listed services that are left out.
    pub skipped: usize,
}

impl Mirror {
    /// How the reading of each source goes, in their order.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceReport> {
        let report = |(source, progress): (&super::Source, &Progress)| SourceReport {
            name: source.name.to_string(),
            kind: source.kind,
            last_success: progress.last_success,
            last_attempt: progress.last_attempt,
            error: progress.error.clone(),
            failures: progress.failures,
        };
        self.options.sources.iter().zip(&self.sources).map(report).collect()
    }

    /// Whether every source was read completely at least once.
    #[must_use]
    pub fn has_seen_all(&self) -> bool {
        self.sources.iter().all(|source| source.seen_all)
    }

    /// How many there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts =
            Counts { skipped: self.sources.iter().map(Progress::left_out).sum(), ..Counts::default() };
        for service in self.services.values() {
            counts.services += usize::from(!service.desired.is_empty());
            for one in service.desired.values() {
                match (one.is_routable(), one.enabled && one.weight > 0) {
                    (true, _) => counts.routable += 1,
                    (false, true) => counts.unhealthy += 1,
                    (false, false) => counts.disabled += 1,
                }
            }
            counts.held +=
                service.parts.iter().map(|part| part.drops.len() + part.flips.len()).sum::<usize>();
            counts.quarantined += service.quarantined().count();
        }
        counts
    }

    /// The held changes, oldest first, at most [`MAX_TOLD`] of them; and how many there are.
    #[must_use]
    pub fn held(&self) -> (Vec<Held>, usize) {
        let mut held = Vec::new();
        for id in &self.held {
            let Some(service) = self.services.get(id) else { continue };
            for (at, part) in service.parts.iter().enumerate() {
                let subject = format!("{id}@{}", self.source_name(at));
                held.extend(self.held_change(part, &part.drops, Reason::Drop, &subject));
                held.extend(self.held_change(part, &part.flips, Reason::Flip, &subject));
            }
        }
        let total = held.len();
        held.sort_by(|one, other| (one.since, &one.id).cmp(&(other.since, &other.id)));
        held.truncate(MAX_TOLD);
        (held, total)
    }

    fn held_change(&self, part: &Part, hold: &Hold, reason: Reason, subject: &str) -> Option<Held> {
        let item = |(id, claim): (&grey_core::ids::InstanceId, &super::hold::Claim)| match reason {
            Reason::Drop => id.to_string(),
            Reason::Flip => {
                let from = part.published().get(id).map_or("none", |one| one.version.as_str());
                format!("{id}: {from} to {}", claim.as_ref().map_or("none", |version| version.as_str()))
            }
        };
        Some(Held {
            id: hold.id.clone(),
            reason,
            subject: subject.to_owned(),
            since: hold.since()?,
            believed_at: hold.believed_at(&self.options.guard, part.lists_any()),
            affected: hold.len(),
            total: part.published().len(),
            items: hold.claims().take(MAX_ITEMS).map(item).collect(),
        })
    }

    /// What is left out, at most [`MAX_TOLD`].
    #[must_use]
    pub fn left_out(&self) -> Vec<LeftOut> {
        let skipped = self.sources.iter().enumerate().flat_map(|(at, progress)| {
            let left_out = move |(name, why): (&String, &String)| LeftOut {
                subject: name.clone(),
                source: self.source_name(at).to_owned(),
                why: plain(why).into_owned(),
            };
            progress.skipped.iter().map(left_out)
        });
        let quarantined = self.services.iter().flat_map(|(id, service)| {
            service.quarantined().map(move |(at, instance, why)| LeftOut {
                subject: format!("{id} {instance}"),
                source: self.source_name(at).to_owned(),
                why: plain(why).into_owned(),
            })
        });
        let unread = self.sources.iter().enumerate().flat_map(|(at, progress)| {
            let left_out = move |unread: &Unread| LeftOut {
                subject: shown(&unread.name),
                source: self.source_name(at).to_owned(),
                why: format!("could not be read, and stays as it was: {}", plain(&unread.why)),
            };
            progress.unread.values().map(left_out)
        });
        unread.chain(skipped).chain(quarantined).take(MAX_TOLD).collect()
    }

    fn source_name(&self, at: usize) -> &str {
        self.options.sources.get(at).map_or(FORMER, |source| source.name.as_str())
    }
}
