//! What the registries say, and what of it the routers are told.
//!
//! A mirror is a state machine: it does no I/O and has no clock of its own. Sightings, verdicts of probes and an
//! operator's acceptance go in; out come the lists that shared state should have. What a registry adds or changes is
//! believed at once. What it takes away is believed at once in small amounts; more than the guard allows, or the last
//! instances of a service, stays published until it is confirmed: by a probe, by time, or by an operator. A registry
//! that cannot be read changes nothing.

mod classify;
mod hold;
mod options;
mod part;
mod report;
mod service;
mod stored;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use grey_core::ids::{InstanceId, ServiceId};
use grey_core::instance::Instance;
use grey_core::service::MAX_SERVICES;
use grey_state::instances::ServiceInstances;

use crate::probe::Verdict;
use crate::registry::{Listing, Sighting};

use classify::{Seen, classify, shown};
use part::Settling;
use report::Reason;
use service::Service;

pub use options::{Guard, Naming, Options, Source};
pub use report::Clock;
pub use service::FORMER;

/// Most services of one source whose names cannot be taken that are remembered.
const MAX_SKIPPED: usize = 1_000;

/// An instance in question, to be asked itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it can be reached.
    pub address: String,
    service: ServiceId,
    part: usize,
    instance: InstanceId,
    reason: Reason,
}

/// A list that shared state should have.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The list.
    pub list: ServiceInstances,
    /// Since when it should.
    pub since: Instant,
}

/// The state machine.
#[derive(Debug)]
pub struct Mirror {
    options: Options,
    sources: Vec<Progress>,
    services: BTreeMap<ServiceId, Service>,
    /// Services whose list shared state does not have.
    dirty: BTreeSet<ServiceId>,
    /// Services of which something is held.
    held: BTreeSet<ServiceId>,
}

/// How the reading of one source goes.
#[derive(Debug, Default)]
struct Progress {
    seen_all: bool,
    last_success: Option<Instant>,
    last_attempt: Option<Instant>,
    error: String,
    failures: u64,
    asked_again: Option<Instant>,
    /// Services that cannot be taken: name and why.
    skipped: BTreeMap<String, String>,
    skipped_total: usize,
    /// Services that could not be read since they were last.
    unread: BTreeMap<ServiceId, Unread>,
    /// Instances that came within the guard's window, by address.
    arrivals: BTreeMap<String, Arrival>,
}

/// A service that a source lists and could not tell of.
#[derive(Debug)]
struct Unread {
    /// By its name there.
    name: String,
    why: String,
    /// It was told since everything was told last.
    is_new: bool,
}

/// An instance that a source lists since lately.
#[derive(Debug)]
struct Arrival {
    service: ServiceId,
    instance: InstanceId,
    at: Instant,
}

impl Mirror {
    /// A mirror that has seen nothing.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let sources = options.sources.iter().map(|_| Progress::default()).collect();
        Self { options, sources, services: BTreeMap::new(), dirty: BTreeSet::new(), held: BTreeSet::new() }
    }

    /// The source number `source` was seen to list something, or could not be read.
    pub fn observe(&mut self, source: usize, sighting: Sighting, now: Instant) {
        let Some(progress) = self.sources.get_mut(source) else { return };
        progress.last_attempt = Some(now);
        match sighting {
            Sighting::Failed(why) => {
                progress.failures += 1;
                progress.error = why;
                self.interrupt(source, None, now);
            }
            Sighting::All(listings) => {
                progress.succeed();
                progress.seen_all = true;
                self.observe_all(source, listings, now);
                self.sources[source].last_success = Some(now);
            }
            Sighting::Some(listing) => {
                progress.succeed();
                let taken = self.take(source, listing, now);
                if let Some(service) = taken {
                    self.settle(&service, now);
                    self.settle_replaced(source, now);
                }
            }
            Sighting::Unread { service: name, why } => {
                let Ok(id) = self.service(source, &name) else { return };
                self.interrupt(source, Some(&id), now);
                self.sources[source].unread.insert(id, Unread { name, why, is_new: true });
            }
        }
    }

    /// A source could not be read, or one service of it.
    fn interrupt(&mut self, source: usize, service: Option<&ServiceId>, now: Instant) {
        let former = self.sources.len();
        for id in self.held.iter().filter(|id| service.is_none_or(|service| service == *id)) {
            let Some(service) = self.services.get_mut(id) else { continue };
            // What belonged to a former source is believed gone only while every source answers.
            for part in [source, former] {
                service.parts[part].interrupt(now);
            }
        }
    }

    fn observe_all(&mut self, source: usize, mut listings: Vec<Listing>, now: Instant) {
        self.sources[source].skipped.clear();
        self.sources[source].skipped_total = 0;
        self.sources[source].unread.retain(|_, unread| std::mem::take(&mut unread.is_new));
        listings.sort_by(|one, other| one.service.cmp(&other.service));
        let mut listed = BTreeSet::new();
        for listing in listings {
            let service = self.service(source, &listing.service);
            if service.as_ref().is_ok_and(|service| listed.contains(service)) {
                let why = "another service there has the same name here".to_owned();
                self.sources[source].skip(&listing.service, why);
                continue;
            }
            // The first of two names counts, whichever it was before.
            if let Ok(service) = service.as_ref()
                && let Some(known) = self.services.get_mut(service)
            {
                known.parts[source].forget_name();
            }
            listed.extend(self.take(source, listing, now));
        }
        let all_seen = self.sources.iter().all(|source| source.seen_all);
        let former = self.sources.len();
        for (id, service) in &mut self.services {
            if !listed.contains(id) && !self.sources[source].unread.contains_key(id) {
                service.parts[source].observe(Seen::default(), now);
            }
            if all_seen && self.sources.iter().all(|source| !source.unread.contains_key(id)) {
                service.parts[former].observe(Seen::default(), now);
            }
        }
        let ids: Vec<ServiceId> = self.services.keys().cloned().collect();
        ids.iter().for_each(|id| self.settle(id, now));
        self.settle_replaced(source, now);
    }

    /// Lets go of instances in question whose address the source lists under another instance that came since: nobody
    /// else answers there. One that was there before may share the address.
    fn settle_replaced(&mut self, source: usize, now: Instant) {
        let window = self.options.guard.window;
        let arrivals = &mut self.sources[source].arrivals;
        arrivals.retain(|_, arrival| now.saturating_duration_since(arrival.at) < window);
        if arrivals.is_empty() {
            return;
        }
        let mut touched = Vec::new();
        for id in &self.held {
            let Some(service) = self.services.get_mut(id) else { continue };
            let replaced = |instance: &Instance| {
                let arrival = arrivals.get(instance.address.as_str());
                arrival.is_some_and(|arrival| arrival.service != *id || arrival.instance != instance.id)
            };
            if service.parts[source].depart(replaced) {
                touched.push(id.clone());
            }
        }
        touched.iter().for_each(|id| self.settle(id, now));
    }

    /// Notes what one service lists; the service, if it can be taken.
    fn take(&mut self, source: usize, listing: Listing, now: Instant) -> Option<ServiceId> {
        let Listing { service: name, instances } = listing;
        let id = match self.service(source, &name) {
            Ok(id) => id,
            Err(why) => {
                self.sources[source].skip(&name, why);
                return None;
            }
        };
        if !self.services.contains_key(&id) {
            if self.services.len() as u64 >= MAX_SERVICES {
                self.sources[source].skip(&name, format!("there are at most {MAX_SERVICES} services"));
                return None;
            }
            self.create(&id);
        }
        let service = self.services.get_mut(&id)?;
        let part = &mut service.parts[source];
        if part.seen().is_some_and(|seen| !seen.is_empty() && !seen.name.is_empty() && seen.name != name) {
            let why = "another service there has the same name here".to_owned();
            self.sources[source].skip(&name, why);
            return None;
        }
        let seen = classify(&self.options.sources[source], &self.options.naming, &id, &name, instances);
        let progress = &mut self.sources[source];
        progress.unread.remove(&id);
        if progress.last_success.is_some() {
            for one in part.new_in(&seen) {
                let arrival = Arrival { service: id.clone(), instance: one.id.clone(), at: now };
                progress.arrivals.insert(one.address.to_string(), arrival);
            }
        }
        part.observe(seen, now);
        Some(id)
    }

    fn service(&self, source: usize, name: &str) -> Result<ServiceId, String> {
        self.options.naming.service(&self.options.sources[source], name)
    }

    fn create(&mut self, id: &ServiceId) {
        let service = Service::new(id, &self.options.sources);
        self.services.insert(id.clone(), service);
    }

    /// Decides on one service.
    fn settle(&mut self, id: &ServiceId, now: Instant) {
        let Some(service) = self.services.get_mut(id) else { return };
        let by = Settling { guard: &self.options.guard, trusted: false, now };
        service.settle(&self.options.sources, by);
        note(&mut self.dirty, id, service.is_dirty());
        let held = service.parts.iter().any(|part| !part.drops.is_empty() || !part.flips.is_empty());
        note(&mut self.held, id, held);
        if service.is_idle() {
            self.services.remove(id);
        }
    }

    /// The instances that should be asked themselves now; at most `limit`. They count as asked.
    pub fn probes(&mut self, now: Instant, limit: usize) -> Vec<Target> {
        let Some(interval) = self.options.probe_interval else { return Vec::new() };
        let before = now.checked_sub(interval);
        let mut targets = Vec::new();
        for id in &self.held {
            let Some(service) = self.services.get_mut(id) else { continue };
            for (at, part) in service.parts.iter_mut().enumerate() {
                let drops = part.drops.ask(before, now, limit - targets.len());
                let drops: Vec<_> = drops.into_iter().map(|id| (id, Reason::Drop)).collect();
                let room = limit - targets.len() - drops.len();
                let room = if self.options.probe_tells_version { room } else { 0 };
                let flips = part.flips.ask(before, now, room).into_iter().map(|id| (id, Reason::Flip));
                for (instance, reason) in drops.into_iter().chain(flips) {
                    let Some(one) = part.published().get(&instance) else { continue };
                    let address = one.address.to_string();
                    targets.push(Target { address, service: id.clone(), part: at, instance, reason });
                }
            }
        }
        targets
    }

    /// What the instances that were asked have answered.
    pub fn probed(&mut self, answers: &[(Target, Verdict)], now: Instant) {
        let mut touched = BTreeSet::new();
        for (target, verdict) in answers {
            let Some(service) = self.services.get_mut(&target.service) else { continue };
            let part = &mut service.parts[target.part];
            match target.reason {
                Reason::Drop => part.drops.probed_for_life(&target.instance, verdict),
                Reason::Flip => part.flips.probed_for_version(&target.instance, verdict),
            }
            touched.insert(&target.service);
        }
        touched.into_iter().for_each(|id| self.settle(id, now));
    }

    /// The sources that should be read again now, since what they say would be believed if they still say so.
    pub fn rereads(&mut self, now: Instant) -> Vec<usize> {
        let guard = &self.options.guard;
        let mut due = BTreeSet::new();
        for service in self.held.iter().filter_map(|id| self.services.get(id)) {
            for (at, part) in service.parts.iter().enumerate() {
                let lists_any = part.lists_any();
                let next = [&part.drops, &part.flips].map(|hold| hold.next_belief(guard, lists_any));
                if next.into_iter().flatten().any(|at| at <= now) {
                    // What belonged to no source is gone when all sources say so.
                    let former = at == self.sources.len();
                    due.extend(if former { 0..self.sources.len() } else { at..at + 1 });
                }
            }
        }
        let patience = guard.window.min(guard.confirm_after);
        let mut rereads = Vec::new();
        for at in due {
            let asked = &mut self.sources[at].asked_again;
            if asked.is_none_or(|asked| now.saturating_duration_since(asked) >= patience) {
                *asked = Some(now);
                rereads.push(at);
            }
        }
        rereads
    }

    /// Believes a held change without waiting for its confirmation.
    ///
    /// # Errors
    /// Nothing is held by this id: it was confirmed, has ended, or more has been held since it was shown.
    pub fn accept(&mut self, change: &str, now: Instant) -> Result<(), UnknownChange> {
        let mut meant = None;
        for id in &self.held {
            let Some(service) = self.services.get_mut(id) else { continue };
            let accepted =
                service.parts.iter_mut().any(|part| part.drops.accept(change) || part.flips.accept(change));
            if accepted {
                meant = Some(id.clone());
                break;
            }
        }
        let id = meant.ok_or_else(|| UnknownChange(shown(change)))?;
        self.settle(&id, now);
        Ok(())
    }
}

/// Nothing is held by the id that was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing is held as `{0}`: it has ended, or more is held than was shown")]
pub struct UnknownChange(String);

impl Progress {
    fn succeed(&mut self) {
        self.failures = 0;
        self.error.clear();
    }

    /// Services that are not taken as they are.
    fn left_out(&self) -> usize {
        self.skipped_total + self.unread.len()
    }

    fn skip(&mut self, name: &str, why: String) {
        let name = shown(name);
        if self.skipped.contains_key(&name) {
            return;
        }
        self.skipped_total += 1;
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.insert(name, why);
        }
    }
}

fn note(set: &mut BTreeSet<ServiceId>, id: &ServiceId, is_in: bool) {
    match is_in {
        true if set.contains(id) => {}
        true => drop(set.insert(id.clone())),
        false => drop(set.remove(id)),
    }
}
