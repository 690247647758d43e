//! One service at all its sources, and what shared state has of it.

use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use grey_core::ids::ServiceId;
use grey_core::instance::{Instance, MAX_INSTANCES};

use super::classify::Sight;
use super::options::Source;
use super::part::{List, Part, Settling};

/// Names the part of instances whose source is not configured any more.
pub const FORMER: &str = "former";

/// What shared state has.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stored {
    /// No list.
    Absent,
    /// Perhaps this, perhaps that: a write may or may not have arrived.
    Unknown,
    /// This list, and its digest.
    List(List, u64),
}

impl Stored {
    /// Its share of the digest of all lists, as far as that is known.
    pub(super) fn digest(&self) -> u64 {
        match self {
            Self::List(_, digest) => *digest,
            Self::Absent | Self::Unknown => 0,
        }
    }
}

/// One service.
#[derive(Debug)]
pub(super) struct Service {
    /// One for each source, in their order, and one for instances that belong to none.
    pub(super) parts: Vec<Part>,
    /// What shared state should have.
    pub(super) desired: List,
    pub(super) stored: Stored,
    /// What this mirror took over was damaged: sources that were not seen yet may list more.
    pub(super) is_partial: bool,
    /// Since when `desired` is not what shared state has.
    pub(super) since: Option<Instant>,
    /// When `desired` changed last.
    changed: Option<Instant>,
    /// Instances that another source lists as well, or for which there is no room: source, instance, why.
    pub(super) left_out: Vec<(usize, String, String)>,
}

impl Service {
    pub(super) fn new(id: &ServiceId, sources: &[Source]) -> Self {
        let names = sources.iter().map(|source| source.name.as_str()).chain([FORMER]);
        Self {
            parts: names.map(|name| Part::new(&format!("{id}@{name}"))).collect(),
            desired: List::new(),
            stored: Stored::Absent,
            is_partial: false,
            since: None,
            changed: None,
            left_out: Vec::new(),
        }
    }

    /// Decides what is believed, and whether shared state has to be told.
    pub(super) fn settle(&mut self, sources: &[Source], by: Settling<'_>) {
        let (former, parts) = self.parts.split_last_mut().expect("a service has a part for former sources");
        for (part, source) in parts.iter_mut().zip(sources) {
            part.settle(Settling { trusted: source.trusted, ..by });
        }
        // Where a configured source lists something to route to, what no source stands for has been replaced.
        let replaced = parts.iter().any(|part| part.published().values().any(|one| one.is_routable()));
        former.settle(Settling { trusted: replaced, ..by });
        let before = std::mem::take(&mut self.desired);
        self.merge(sources);
        if self.desired != before {
            self.changed = Some(by.now);
        }
        if !self.is_dirty() {
            self.since = None;
        } else if self.since.is_none() {
            self.since = self.changed.or(Some(by.now));
        }
    }

    /// What shared state has is about to be told anew; whoever takes the lead counts delays from then on.
    pub(super) fn forget_stored(&mut self, takeover: bool) {
        self.stored = Stored::Absent;
        if takeover || self.since.is_none() {
            (self.since, self.changed) = (None, None);
        }
    }

    fn merge(&mut self, sources: &[Source]) {
        self.left_out.clear();
        for (at, part) in self.parts.iter().enumerate() {
            for (id, instance) in part.published() {
                let full = self.desired.len() >= MAX_INSTANCES;
                let why = match self.desired.entry(id.clone()) {
                    Entry::Vacant(_) if full => format!("a service has at most {MAX_INSTANCES} instances"),
                    Entry::Vacant(free) => {
                        free.insert(Arc::clone(instance));
                        continue;
                    }
                    Entry::Occupied(taken) => {
                        let by = taken.get().source.as_ref().map_or(FORMER, |name| name.as_str());
                        format!("listed by `{by}` as well")
                    }
                };
                if at < sources.len() {
                    self.left_out.push((at, id.to_string(), why));
                }
            }
        }
    }

    /// Whether shared state has something else than it should.
    pub(super) fn is_dirty(&self) -> bool {
        match &self.stored {
            Stored::Absent => !self.desired.is_empty(),
            Stored::Unknown => true,
            Stored::List(list, _) => *list != self.desired,
        }
    }

    /// Whether nothing needs to be remembered of it.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_dirty() && self.parts.iter().all(Part::is_idle)
    }

    /// What it lists and may not be routed to: source, instance, why.
    pub(super) fn quarantined(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        let own = self.parts.iter().enumerate().flat_map(|(at, part)| {
            let seen = part.seen().into_iter();
            seen.flat_map(move |seen| {
                let refused = seen.refused.iter().map(move |(id, why)| (at, id.as_str(), why.as_str()));
                let unversioned = seen.instances.iter().filter_map(move |(id, sight)| match sight {
                    // While its former version is kept it is held, not left out.
                    Sight::Unversioned(_, why) if !part.flips.contains(id) => {
                        Some((at, id.as_str(), why.as_str()))
                    }
                    _ => None,
                });
                refused.chain(unversioned)
            })
        });
        own.chain(self.left_out.iter().map(|(at, id, why)| (*at, id.as_str(), why.as_str())))
    }

    /// Its list, for shared state.
    pub(super) fn list(&self) -> Vec<Instance> {
        self.desired.values().map(|one| Instance::clone(one)).collect()
    }
}
