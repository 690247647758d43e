//! What a complete reading of the tenant API listed.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::Arc;

use grey_core::ids::TenantId;

use crate::mapping::{Entry, Invalid, Sourced};

/// Most entries that fit no tenant and are told one by one.
pub const MAX_INVALID: usize = 1000;

/// Every tenant that the API lists. It is complete: a list that may lack an entry is an error, never a roster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    /// The tenants and what is said of them.
    pub tenants: BTreeMap<TenantId, Arc<Sourced>>,
    /// Tenants that are listed, but not in a way that can be read: they have not vanished, and stay as they are.
    pub present: BTreeSet<TenantId>,
    /// Entries that fit no tenant, those of `present` among them; the first [`MAX_INVALID`] of them.
    pub invalid: Vec<Invalid>,
    /// How many such entries there are.
    pub invalid_total: u64,
    /// Entries whose id cannot be read, by what stands there (empty: nothing): a tenant that seems to have vanished may
    /// be behind one of them.
    pub unidentified: BTreeMap<String, u64>,
    /// Entries beyond the first of the same tenant.
    pub duplicates: u64,
    /// Pages read.
    pub pages: u64,
}

impl Roster {
    /// How many different tenants are listed, as far as can be told.
    #[must_use]
    pub fn listed(&self) -> u64 {
        (self.tenants.len() + self.present.len()) as u64 + self.unidentified.values().sum::<u64>()
    }

    /// Takes one more entry in.
    pub(super) fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Tenant(id, sourced) => self.add_tenant(id, sourced),
            Entry::Unfit(None, invalid) => {
                let told = self.unidentified.len() < MAX_INVALID;
                let id = Some(invalid.id.clone()).filter(|id| told || self.unidentified.contains_key(id));
                *self.unidentified.entry(id.unwrap_or_default()).or_default() += 1;
                self.report(invalid.clone());
            }
            Entry::Unfit(Some(id), invalid) => {
                let known = self.tenants.remove(id).is_some();
                if known || self.present.contains(id) {
                    self.duplicates += 1;
                }
                if self.present.insert(id.clone()) {
                    self.report(invalid.clone());
                }
            }
        }
    }

    fn add_tenant(&mut self, id: &TenantId, sourced: &Arc<Sourced>) {
        if self.present.contains(id) {
            self.duplicates += 1;
            return;
        }
        let known = match self.tenants.entry(id.clone()) {
            btree_map::Entry::Occupied(known) => known,
            btree_map::Entry::Vacant(place) => {
                place.insert(Arc::clone(sourced));
                return;
            }
        };
        self.duplicates += 1;
        // The same entry twice is what a shift of pages between two requests looks like; two different ones leave open
        // which of them is true.
        if known.get() != sourced {
            known.remove();
            let reason = "listed twice with different content".to_owned();
            self.report(Invalid { id: id.to_string(), reason });
            self.present.insert(id.clone());
        }
    }

    fn report(&mut self, invalid: Invalid) {
        self.invalid_total += 1;
        if self.invalid.len() < MAX_INVALID {
            self.invalid.push(invalid);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant(id: &str, name: &str) -> Entry {
        let sourced = Sourced { name: Some(name.to_owned()), ..Sourced::default() };
        Entry::Tenant(TenantId::new(id).unwrap(), Arc::new(sourced))
    }

    fn unfit(id: &str) -> Entry {
        let invalid = Invalid { id: id.to_owned(), reason: "unfit".to_owned() };
        Entry::Unfit(TenantId::new(id).ok(), invalid)
    }

    #[test]
    fn an_equal_entry_counts_and_a_different_one_leaves_the_tenant_alone() {
        let mut roster = Roster::default();
        for entry in
            [tenant("a", "A"), tenant("a", "A"), tenant("b", "B"), tenant("b", "X"), tenant("b", "B")]
        {
            roster.add(&entry);
        }
        assert_eq!(roster.tenants.keys().map(TenantId::as_str).collect::<Vec<_>>(), ["a"]);
        assert_eq!(roster.present.iter().map(TenantId::as_str).collect::<Vec<_>>(), ["b"]);
        let reason = "listed twice with different content".to_owned();
        assert_eq!(roster.invalid, [Invalid { id: "b".to_owned(), reason }]);
        assert_eq!((roster.duplicates, roster.invalid_total, roster.listed()), (3, 1, 2));
    }

    #[test]
    fn reports_are_bounded_but_counted() {
        let mut roster = Roster::default();
        for _ in 0..MAX_INVALID + 5 {
            roster.add(&unfit(""));
        }
        assert_eq!((roster.invalid.len(), roster.invalid_total), (MAX_INVALID, 1005));
        assert_eq!((roster.unidentified[""], roster.listed()), (1005, 1005));
    }

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            8 => ("[a-d]", "[XY]").prop_map(|(id, name)| tenant(&id, &name)),
            1 => "[a-d]".prop_map(|id| unfit(&id)),
            1 => Just(unfit("")),
        ]
    }

    proptest! {
        /// No order of entries loses a tenant, and none is both fit and unfit.
        #[test]
        fn every_id_that_is_listed_is_accounted_for(entries in proptest::collection::vec(entry(), 0..12)) {
            let mut roster = Roster::default();
            let mut listed: BTreeMap<TenantId, Vec<Entry>> = BTreeMap::new();
            for entry in entries.clone() {
                if let Entry::Tenant(id, _) | Entry::Unfit(Some(id), _) = &entry {
                    listed.entry(id.clone()).or_default().push(entry.clone());
                }
                roster.add(&entry);
            }
            for (id, same) in &listed {
                let agree = same.iter().all(|entry| matches!(entry, Entry::Tenant(..)) && *entry == same[0]);
                prop_assert_eq!(roster.tenants.contains_key(id), agree);
                prop_assert_eq!(roster.present.contains(id), !agree);
            }
            prop_assert_eq!(roster.listed() + roster.duplicates, entries.len() as u64);
            prop_assert_eq!(roster.invalid_total, roster.present.len() as u64 + roster.unidentified.values().sum::<u64>());
        }
    }
}
