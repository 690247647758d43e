//! What is known of one Nacos cluster: the services of every namespace and group, and their instances.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::registry::{Listing, Registered};

/// One service in one namespace and group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Which namespace and group, by its place among the pairs that are followed.
    pub(super) pair: usize,
    /// The service by its name there.
    pub(super) service: String,
}

/// Everything that is known. A service with the same name in several pairs is one service with the instances of all.
#[derive(Debug)]
pub(super) struct Catalog {
    /// By pair; none: its list was never read.
    pairs: Vec<Option<BTreeMap<String, Entry>>>,
    /// Counts the reads that were begun.
    reads: u64,
    /// Everything was told once.
    pub(super) is_told: bool,
}

#[derive(Debug, Default)]
struct Entry {
    subscribed: bool,
    /// The read that `instances` are from.
    read: u64,
    instances: Option<Vec<Registered>>,
    /// It could not be read, until it is.
    unread: bool,
}

impl Catalog {
    pub(super) fn new(pairs: usize) -> Self {
        Self { pairs: (0..pairs).map(|_| None).collect(), reads: 0, is_told: false }
    }

    /// Takes the list of one pair's services. Returns those that are no longer in it.
    pub(super) fn list(&mut self, pair: usize, names: BTreeSet<String>) -> Vec<Key> {
        let Some(known) = self.pairs.get_mut(pair) else { return Vec::new() };
        let known = known.get_or_insert_default();
        let gone: Vec<String> = known.keys().filter(|name| !names.contains(*name)).cloned().collect();
        known.retain(|name, _| names.contains(name));
        for name in names {
            known.entry(name).or_default();
        }
        gone.into_iter().map(|service| Key { pair, service }).collect()
    }

    /// The services that are not subscribed to yet; with `full`, all of them, and whether each is.
    pub(super) fn keys(&self, full: bool) -> Vec<(Key, bool)> {
        let pairs = self.pairs.iter().enumerate();
        let keys = pairs.flat_map(|(pair, entries)| {
            let due = entries
                .iter()
                .flatten()
                .filter(move |(_, entry)| full || !(entry.subscribed || entry.unread));
            due.map(move |(service, entry)| (Key { pair, service: service.clone() }, entry.subscribed))
        });
        keys.collect()
    }

    pub(super) fn subscribed(&mut self, key: &Key) {
        if let Some(entry) = self.entry(key) {
            entry.subscribed = true;
        }
    }

    /// Nothing is subscribed to any more, since the connection may have been lost.
    pub(super) fn unsubscribe_all(&mut self) {
        for entry in self.pairs.iter_mut().flatten().flat_map(BTreeMap::values_mut) {
            entry.subscribed = false;
        }
    }

    /// Notes that a read begins; the result is handed to [`Self::apply`] with the returned number.
    pub(super) fn begin_read(&mut self) -> u64 {
        self.reads += 1;
        self.reads
    }

    /// Takes what a read found. Returns whether that is news; a read that was overtaken by one begun later is not.
    pub(super) fn apply(&mut self, key: &Key, read: u64, instances: Vec<Registered>) -> bool {
        let Some(entry) = self.entry(key) else { return false };
        if read < entry.read {
            return false;
        }
        (entry.read, entry.unread) = (read, false);
        if entry.instances.as_ref() == Some(&instances) {
            return false;
        }
        entry.instances = Some(instances);
        true
    }

    /// Notes that a read failed. Nothing is known of the service until it can be read again.
    pub(super) fn fail(&mut self, key: &Key) {
        if let Some(entry) = self.entry(key) {
            *entry = Entry { read: entry.read, unread: true, ..Entry::default() };
        }
    }

    /// The instances that are known, and not among `listed`.
    pub(super) fn missing(&mut self, key: &Key, listed: &[Registered]) -> Vec<Registered> {
        let known = self.entry(key).and_then(|entry| entry.instances.as_ref()).into_iter().flatten();
        known.filter(|known| listed.iter().all(|listed| listed.id != known.id)).cloned().collect()
    }

    /// The service with the instances of all pairs, unless some of them are not known: a part is not told as the whole.
    pub(super) fn listing(&self, service: &str) -> Option<Listing> {
        let mut merged: BTreeMap<&str, &Registered> = BTreeMap::new();
        for entries in &self.pairs {
            let Some(entry) = entries.as_ref()?.get(service) else { continue };
            for instance in entry.instances.as_ref()? {
                merged.entry(&instance.id).or_insert(instance);
            }
        }
        let instances = merged.into_values().cloned().collect();
        Some(Listing { service: service.to_owned(), instances })
    }

    /// Every service but those that could not be read, unless something is not known yet.
    pub(super) fn all(&self) -> Option<Vec<Listing>> {
        let mut names: BTreeSet<&String> = BTreeSet::new();
        let mut unread: BTreeSet<&String> = BTreeSet::new();
        for entries in &self.pairs {
            let entries = entries.as_ref()?;
            names.extend(entries.keys());
            unread.extend(entries.iter().filter(|(_, entry)| entry.unread).map(|(name, _)| name));
        }
        names.difference(&unread).map(|name| self.listing(name)).collect()
    }

    fn entry(&mut self, key: &Key) -> Option<&mut Entry> {
        self.pairs.get_mut(key.pair)?.as_mut()?.get_mut(&key.service)
    }
}

/// Services that should be read soon: a set, so that it is bounded by their number and any number of signs is one read.
#[derive(Debug, Default)]
pub(super) struct Hints {
    keys: Mutex<BTreeSet<Key>>,
    added: Notify,
}

impl Hints {
    pub(super) fn add(&self, key: Key) {
        self.keys().insert(key);
        self.added.notify_one();
    }

    /// Wakes whoever waits, since hints that had to wait can be followed now.
    pub(super) fn ring(&self) {
        self.added.notify_one();
    }

    pub(super) fn take(&self) -> Option<Key> {
        self.keys().pop_first()
    }

    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    fn keys(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code panics")]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn key(pair: usize, service: &str) -> Key {
        Key { pair, service: service.to_owned() }
    }

    fn instances(ids: &[&str]) -> Vec<Registered> {
        ids.iter().map(|&id| Registered { id: id.to_owned(), ..Registered::default() }).collect()
    }

    fn ids(listing: Option<Listing>) -> Option<Vec<String>> {
        Some(listing?.instances.into_iter().map(|instance| instance.id).collect())
    }

    #[test]
    fn nothing_is_told_before_every_pair_is_known() {
        let mut catalog = Catalog::new(2);
        catalog.list(0, names(&["payment"]));
        let read = catalog.begin_read();
        assert!(catalog.apply(&key(0, "payment"), read, instances(&["a"])));
        assert_eq!((catalog.listing("payment"), catalog.all()), (None, None));
        catalog.list(1, names(&["payment", "order"]));
        assert_eq!((catalog.listing("payment"), catalog.all()), (None, None));
        let read = catalog.begin_read();
        catalog.apply(&key(1, "payment"), read, instances(&["b"]));
        assert_eq!(ids(catalog.listing("payment")).unwrap(), ["a", "b"]);
        assert_eq!(catalog.all(), None);
        catalog.apply(&key(1, "order"), read, Vec::new());
        assert_eq!(catalog.all().unwrap().len(), 2);
    }

    #[test]
    fn instance_in_two_pairs_is_one_and_the_first_pair_wins() {
        let mut catalog = Catalog::new(2);
        for pair in [0, 1] {
            catalog.list(pair, names(&["payment"]));
            let read = catalog.begin_read();
            let mut listed = instances(&["a"]);
            listed[0].zone = Some(format!("z{pair}"));
            catalog.apply(&key(pair, "payment"), read, listed);
        }
        let listing = catalog.listing("payment").unwrap();
        assert_eq!(listing.instances.len(), 1);
        assert_eq!(listing.instances[0].zone.as_deref(), Some("z0"));
    }

    #[test]
    fn read_that_was_overtaken_changes_nothing() {
        let mut catalog = Catalog::new(1);
        catalog.list(0, names(&["payment"]));
        let (early, late) = (catalog.begin_read(), catalog.begin_read());
        assert!(catalog.apply(&key(0, "payment"), late, instances(&["new"])));
        assert!(!catalog.apply(&key(0, "payment"), early, instances(&["old"])));
        assert!(!catalog.apply(&key(0, "payment"), late, instances(&["new"])));
        assert_eq!(ids(catalog.listing("payment")).unwrap(), ["new"]);
        assert!(!catalog.apply(&key(0, "gone"), late, instances(&["new"])));
    }

    #[test]
    fn services_come_and_go_with_the_list() {
        let mut catalog = Catalog::new(1);
        assert!(catalog.list(0, names(&["a", "b"])).is_empty());
        catalog.subscribed(&key(0, "a"));
        assert_eq!(catalog.keys(true), [(key(0, "a"), true), (key(0, "b"), false)]);
        assert_eq!(catalog.keys(false), [(key(0, "b"), false)]);
        assert_eq!(catalog.list(0, names(&["b", "c"])), [key(0, "a")]);
        assert_eq!(catalog.keys(true), [(key(0, "b"), false), (key(0, "c"), false)]);
        catalog.subscribed(&key(0, "b"));
        catalog.unsubscribe_all();
        assert_eq!(catalog.keys(false).len(), 2);
    }

    #[test]
    fn a_service_that_cannot_be_read_hides_no_other_and_is_news_once_it_can() {
        let mut catalog = Catalog::new(1);
        catalog.list(0, names(&["large", "small"]));
        for service in ["large", "small"] {
            let read = catalog.begin_read();
            catalog.apply(&key(0, service), read, instances(&["a"]));
            catalog.subscribed(&key(0, service));
        }
        catalog.fail(&key(0, "large"));
        assert_eq!(catalog.listing("large"), None);
        assert_eq!(catalog.all().unwrap().into_iter().map(|one| one.service).collect::<Vec<_>>(), ["small"]);
        assert_eq!(catalog.keys(false), [], "it is tried with everything else");
        let read = catalog.begin_read();
        assert!(catalog.apply(&key(0, "large"), read, instances(&["a"])));
        assert_eq!(catalog.all().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn hints_of_one_service_are_one() {
        let hints = Hints::default();
        hints.add(key(0, "a"));
        hints.add(key(0, "a"));
        hints.added().await;
        assert_eq!(hints.take(), Some(key(0, "a")));
        assert!(hints.take().is_none());
    }
}
