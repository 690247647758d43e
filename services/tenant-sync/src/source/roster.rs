//! What a complete reading of the tenant API listed.

use std::collections::{BTreeMap, BTreeSet};

use grey_core::ids::TenantId;

use crate::mapping::{Entry, Invalid, Sourced};

/// Most entries that fit no tenant and are told one by one.
pub const MAX_INVALID: usize = 1000;

/// Every tenant that the API lists. It is complete: a list that may lack an entry is an error, never a roster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    /// The tenants and what is said of them.
    pub tenants: BTreeMap<TenantId, Sourced>,
    /// Tenants that are listed, but not in a way that can be read: they have not vanished, and stay as they are.
    pub present: BTreeSet<TenantId>,
    /// Entries that fit no tenant, those of `present` among them; the first [`MAX_INVALID`] of them.
    pub invalid: Vec<Invalid>,
    /// How many such entries there are.
    pub invalid_total: u64,
    /// Entries without an id that can be read: any tenant that seems to have vanished may be behind one of them.
    pub unidentified: u64,
    /// Entries beyond the first of the same tenant.
    pub duplicates: u64,
    /// Pages read.
    pub pages: u64,
}

impl Roster {
    /// How many different tenants are listed, as far as can be told.
    #[must_use]
    pub fn listed(&self) -> u64 {
        (self.tenants.len() + self.present.len()) as u64 + self.unidentified
    }

    /// Takes one more entry in.
    pub(super) fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Tenant(id, sourced) => self.add_tenant(id, sourced),
            Entry::Unfit(None, invalid) => {
                self.unidentified += 1;
                self.report(invalid);
            }
            Entry::Unfit(Some(id), invalid) => {
                let known = self.tenants.remove(&id).is_some();
                if known || self.present.contains(&id) {
                    self.duplicates += 1;
                }
                if self.present.insert(id) {
                    self.report(invalid);
                }
            }
        }
    }

    fn add_tenant(&mut self, id: TenantId, sourced: Sourced) {
        if self.present.contains(&id) {
            self.duplicates += 1;
            return;
        }
        let Some(known) = self.tenants.get(&id) else {
            self.tenants.insert(id, sourced);
            return;
        };
        self.duplicates += 1;
        // The same entry twice is what a shift of pages between two requests looks like; two different ones leave open
        // which of them is true.
        if *known != sourced {
            self.tenants.remove(&id);
            let reason = "listed twice with different content".to_owned();
            self.report(Invalid { id: id.to_string(), reason });
            self.present.insert(id);
        }
    }

    fn report(&mut self, invalid: Invalid) {
        self.invalid_total += 1;
        if self.invalid.len() < MAX_INVALID {
            self.invalid.push(invalid);
        }
    }
}
