//! What shared state has, and what it should have instead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use grey_core::ids::ServiceId;
use grey_core::service::MAX_SERVICES;
use grey_state::instances::{Damaged, ServiceInstances};

use super::classify::Seen;
use super::options::Source;
use super::part::List;
use super::service::Stored;
use super::{Mirror, Progress, Write};

impl Mirror {
    /// Takes the lead: `lists` is what shared state has, as far as it reads. What no source has told of since the start
    /// stays so.
    ///
    /// A service that shared state does not have at all keeps what this mirror believes of it. Every list is to be
    /// written, even unchanged: from then on shared state refuses what the leader before may still be writing.
    pub fn adopt(&mut self, lists: Vec<ServiceInstances>, damaged: &[Damaged], now: Instant) {
        self.restore(lists, damaged, None, now);
    }

    /// Compares with what shared state has, in the lead: what differs or is damaged is to be written again. Nothing is
    /// concluded about the services of `except`.
    pub fn verify(
        &mut self,
        lists: Vec<ServiceInstances>,
        damaged: &[Damaged],
        except: &BTreeSet<ServiceId>,
        now: Instant,
    ) {
        self.restore(lists, damaged, Some(except), now);
        for damaged in damaged {
            // Any replacement mends what all lists share.
            let id = damaged.service.as_ref().or_else(|| self.services.keys().next()).cloned();
            if let Some(id) = id.filter(|id| !except.contains(id)) {
                self.set_stored(&id, Stored::Unknown, now);
            }
        }
    }

    /// Takes over if there is nothing to except.
    fn restore(
        &mut self,
        lists: Vec<ServiceInstances>,
        damaged: &[Damaged],
        except: Option<&BTreeSet<ServiceId>>,
        now: Instant,
    ) {
        let takeover = except.is_none();
        let excepted = |id: &ServiceId| except.is_some_and(|except| except.contains(id));
        for (_, service) in self.services.iter_mut().filter(|(id, _)| !excepted(id)) {
            service.forget_stored(takeover);
        }
        for list in lists.into_iter().filter(|list| !excepted(&list.service)) {
            let (id, digest) = (list.service.clone(), list.digest());
            let stored = by_id(list);
            let known = self.services.contains_key(&id);
            if takeover || !known {
                self.believe(&id, &stored, now);
            }
            let damaged = damaged.iter().any(|damaged| damaged.service.as_ref() == Some(&id));
            if let Some(service) = self.services.get_mut(&id) {
                service.is_partial = if takeover || !known { damaged } else { service.is_partial };
                let unknown = takeover || damaged;
                service.stored = if unknown { Stored::Unknown } else { Stored::List(stored, digest) };
            }
        }
        let ids: Vec<ServiceId> = self.services.keys().cloned().collect();
        ids.iter().for_each(|id| self.settle(id, now));
    }

    /// Takes over a list that was published: each instance belongs to the source that it names.
    fn believe(&mut self, id: &ServiceId, list: &List, now: Instant) {
        let all_seen = self.has_seen_all();
        let former = self.sources.len();
        let mut parts = vec![List::new(); former + 1];
        for (instance, one) in list {
            let source = |source: &Source| Some(&source.name) == one.source.as_ref();
            let at = self.options.sources.iter().position(source).unwrap_or(former);
            parts[at].insert(instance.clone(), Arc::clone(one));
        }
        if !self.services.contains_key(id) {
            self.create(id);
        }
        let Some(service) = self.services.get_mut(id) else { return };
        for (at, list) in parts.into_iter().enumerate() {
            service.parts[at].adopt(list);
            // A service that a source was not seen to list is known to be absent there.
            let unread = |source: &Progress| source.unread.contains_key(id);
            let absent = match self.sources.get(at) {
                Some(source) => source.seen_all && !unread(source),
                None => all_seen && !self.sources.iter().any(unread),
            };
            if absent && service.parts[at].seen().is_none() {
                service.parts[at].observe(Seen::default(), now);
            }
        }
    }

    /// A reader has a list of a service of which neither shared state nor any source knows: it was lost there. It is
    /// believed until its end is confirmed, like whatever was published. Ignored until every source was seen.
    pub fn remind(&mut self, list: ServiceInstances, now: Instant) {
        let id = list.service.clone();
        let room = (self.services.len() as u64) < MAX_SERVICES;
        if !room || !self.has_seen_all() || self.services.contains_key(&id) {
            return;
        }
        self.believe(&id, &by_id(list), now);
        self.settle(&id, now);
    }

    /// The lists that shared state should have and does not, without those of `except`; at most `limit`.
    ///
    /// A list of which only a part is known waits until every source was seen.
    #[must_use]
    pub fn pending(&self, except: &BTreeSet<ServiceId>, limit: usize) -> Vec<Write> {
        let all_seen = self.has_seen_all();
        let is_known =
            |id: &&ServiceId| all_seen || self.services.get(*id).is_none_or(|service| !service.is_partial);
        let due = self.dirty.difference(except).filter(is_known).take(limit);
        let write = |id: &ServiceId| {
            let service = self.services.get(id)?;
            let list = ServiceInstances { service: id.clone(), instances: service.list() };
            Some(Write { list, since: service.since? })
        };
        due.filter_map(write).collect()
    }

    /// Digest of all lists that shared state has, as far as this mirror knows: exact while it is written.
    #[must_use]
    pub fn stored_digest(&self) -> u64 {
        self.services.values().map(|service| service.stored.digest()).fold(0, u64::wrapping_add)
    }

    /// Whether shared state has every list that it should.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Shared state has `list` now.
    pub fn written(&mut self, list: ServiceInstances, now: Instant) {
        let (id, digest) = (list.service.clone(), list.digest());
        self.set_stored(&id, Stored::List(by_id(list), digest), now);
    }

    /// Shared state may or may not have the last list of `service` that was written.
    pub fn write_failed(&mut self, service: &ServiceId, now: Instant) {
        self.set_stored(service, Stored::Unknown, now);
    }

    fn set_stored(&mut self, id: &ServiceId, stored: Stored, now: Instant) {
        if let Some(service) = self.services.get_mut(id) {
            if let Stored::List(..) = stored {
                service.since = None;
            }
            service.stored = stored;
            self.settle(id, now);
        }
    }
}

fn by_id(list: ServiceInstances) -> List {
    list.instances.into_iter().map(|one| (one.id.clone(), Arc::new(one))).collect()
}
