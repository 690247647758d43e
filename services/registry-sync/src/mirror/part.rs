//! One service at one source: what the source says of it, and what of that is believed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use grey_core::ids::InstanceId;
use grey_core::instance::Instance;
use grey_core::version::Version;

use super::classify::{Seen, Sight};
use super::hold::{Claim, Hold, SourceSighting};
use super::options::Guard;

pub(super) type List = BTreeMap<InstanceId, Arc<Instance>>;

/// Who decides on a part, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settling<'a> {
    pub(super) guard: &'a Guard,
    /// Nothing is held.
    pub(super) trusted: bool,
    pub(super) now: Instant,
}

/// One service at one source.
#[derive(Debug)]
pub(super) struct Part {
    /// What the source said last, and when; none: it has said nothing yet, and what was published stays.
    seen: Option<(Seen, Instant)>,
    published: List,
    /// What was let go without confirmation within the window.
    lost: BTreeMap<InstanceId, Instant>,
    /// Versions that changed without confirmation within the window: when, and from what.
    flipped: BTreeMap<InstanceId, (Instant, Version)>,
    /// Instances that vanished or became unhealthy.
    pub(super) drops: Hold,
    /// Instances whose version changed or is no longer told.
    pub(super) flips: Hold,
}

impl Part {
    /// Of what is called `subject`, such as `payment@dc-1`.
    pub(super) fn new(subject: &str) -> Self {
        Self {
            seen: None,
            published: List::new(),
            lost: BTreeMap::new(),
            flipped: BTreeMap::new(),
            drops: Hold::new(format!("drop {subject}")),
            flips: Hold::new(format!("flip {subject}")),
        }
    }

    /// What is believed.
    pub(super) fn published(&self) -> &List {
        &self.published
    }

    pub(super) fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref().map(|(seen, _)| seen)
    }

    /// Nothing of it is known or published.
    pub(super) fn is_idle(&self) -> bool {
        self.published.is_empty() && self.seen().is_none_or(Seen::is_empty)
    }

    /// The source lists something of this service, whatever that is.
    pub(super) fn lists_any(&self) -> bool {
        self.seen().is_some_and(|seen| !seen.instances.is_empty())
    }

    /// Takes what the source says; [`settle`](Self::settle) decides on it.
    pub(super) fn observe(&mut self, seen: Seen, now: Instant) {
        self.seen = Some((seen, now));
    }

    /// The service may be called otherwise by the source from now on.
    pub(super) fn forget_name(&mut self) {
        if let Some((seen, _)) = &mut self.seen {
            seen.name.clear();
        }
    }

    /// The instances of `seen` that are not believed to run yet.
    pub(super) fn new_in<'a>(&self, seen: &'a Seen) -> impl Iterator<Item = &'a Arc<Instance>> {
        let new = seen.instances.iter().filter(|(id, _)| !self.published.contains_key(*id));
        new.map(|(_, sight)| match sight {
            Sight::Versioned(instance) | Sight::Unversioned(instance, _) => instance,
        })
    }

    /// Takes as gone what is in question, not listed any more, and `replaced`. Whether there is any.
    pub(super) fn depart(&mut self, replaced: impl Fn(&Instance) -> bool) -> bool {
        let Self { seen, published, drops, .. } = self;
        let listed = |id: &InstanceId| seen.as_ref().is_some_and(|(seen, _)| seen.instances.contains_key(id));
        let gone = |id: &InstanceId| !listed(id) && published.get(id).is_some_and(|one| replaced(one));
        drops.confirm(gone)
    }

    /// The source could not be read.
    pub(super) fn interrupt(&mut self, now: Instant) {
        self.drops.interrupt(now);
        self.flips.interrupt(now);
    }

    /// Takes over what was published by whoever led before.
    pub(super) fn adopt(&mut self, published: List) {
        self.published = published;
        self.lost.clear();
        self.flipped.clear();
        self.drops.clear();
        self.flips.clear();
    }

    /// Decides what is believed of what the source reports.
    pub(super) fn settle(&mut self, by: Settling<'_>) {
        let Some((seen, reported)) = self.seen.take() else { return };
        self.lost.retain(|_, at| by.now.saturating_duration_since(*at) < by.guard.window);
        self.flipped.retain(|_, (at, _)| by.now.saturating_duration_since(*at) < by.guard.window);
        if by.trusted {
            self.drops.clear();
            self.flips.clear();
        }
        let sighting = SourceSighting { reported, lists_others: !seen.instances.is_empty() };
        let mut next = self.settle_versions(&seen, sighting, by);
        self.settle_losses(&mut next, &seen, sighting, by);
        self.published = next;
        self.seen = Some((seen, reported));
    }

    /// The list as it would be if every loss was believed, with versions that are.
    fn settle_versions(&mut self, seen: &Seen, sighting: SourceSighting, by: Settling<'_>) -> List {
        let mut next = List::new();
        let mut changed: BTreeMap<InstanceId, Claim> = BTreeMap::new();
        for (id, sight) in &seen.instances {
            let claim = match sight {
                Sight::Versioned(listed) => {
                    next.insert(id.clone(), Arc::clone(listed));
                    Some(listed.version.clone())
                }
                Sight::Unversioned(..) => None,
            };
            let Some(old) = self.published.get(id) else { continue };
            if claim.as_ref() == Some(&old.version) {
                continue;
            }
            match self.flipped.get(id) {
                Some((_, from)) if claim.as_ref() == Some(from) => drop(self.flipped.remove(id)),
                _ => drop(changed.insert(id.clone(), claim)),
            }
        }
        let again = changed.keys().filter(|id| self.flipped.contains_key(*id)).count();
        let room = by.guard.flip_room(self.published.len()).saturating_sub(self.flipped.len());
        // An instance that changes twice is counted once.
        let room = if by.trusted { usize::MAX } else { room + again };
        let admitted = self.flips.admit(changed, room, by.guard, sighting, by.now);
        for id in admitted.unquestioned.iter().filter(|_| !by.trusted) {
            let Some(old) = self.published.get(id) else { continue };
            self.flipped.entry(id.clone()).or_insert((by.now, old.version.clone()));
        }
        for id in self.flips.ids() {
            let Some(old) = self.published.get(id) else { continue };
            if let Some(Sight::Versioned(listed) | Sight::Unversioned(listed, _)) = seen.instances.get(id) {
                let kept = Instance { version: old.version.clone(), ..Instance::clone(listed) };
                next.insert(id.clone(), Arc::new(kept));
            }
        }
        next
    }

    /// Keeps in `next` what is lost and not believed to be.
    fn settle_losses(&mut self, next: &mut List, seen: &Seen, sighting: SourceSighting, by: Settling<'_>) {
        let mut routable = 0;
        let mut lost: BTreeMap<InstanceId, Claim> = BTreeMap::new();
        for (id, _) in self.published.iter().filter(|(_, old)| old.is_routable()) {
            routable += 1;
            let is_lost = match next.get(id) {
                // Switched off, or without weight: that is an operator's act.
                Some(new) => new.enabled && new.weight > 0 && !new.healthy,
                // What is listed without a version was let go above.
                None => !seen.instances.contains_key(id),
            };
            if is_lost {
                lost.insert(id.clone(), None);
            }
        }
        self.lost.retain(|id, _| !next.get(id).is_some_and(|new| new.is_routable()));
        let room = by.guard.drop_room(routable + self.lost.len()).saturating_sub(self.lost.len());
        let room = match next.values().any(|new| new.is_routable()) {
            _ if by.trusted => usize::MAX,
            true => room,
            // The last ones are never let go without question: an empty list may be a registry's restart.
            false => 0,
        };
        let admitted = self.drops.admit(lost, room, by.guard, sighting, by.now);
        if !by.trusted {
            self.lost.extend(admitted.unquestioned.into_iter().map(|id| (id, by.now)));
        }
        for id in self.drops.ids() {
            let kept = match (next.get(id), self.published.get(id)) {
                (Some(unhealthy), _) => Arc::new(Instance { healthy: true, ..Instance::clone(unhealthy) }),
                (None, Some(old)) => Arc::clone(old),
                (None, None) => continue,
            };
            next.insert(id.clone(), kept);
        }
    }
}
