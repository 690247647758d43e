//! The indexes: which services and tenants there are.

use grey_core::key::RecordId;
use grey_core::table::Table;
use grey_core::tenant::TenantStatus;
use std::collections::BTreeSet;

/// What the indexes name. Members are texts: an index may hold what is no id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Indexes {
    /// Declared services.
    pub services: BTreeSet<String>,
    /// Tenants.
    pub tenants: BTreeSet<String>,
    /// Active tenants.
    pub active_tenants: BTreeSet<String>,
}

impl Indexes {
    /// What they should name by `table`.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        let services = table.services().filter(|service| service.default_version().is_some());
        let mut indexes =
            Self { services: services.map(|service| service.id().to_string()).collect(), ..Self::default() };
        for (id, profile) in table.profiles() {
            if profile.status == TenantStatus::Active {
                indexes.active_tenants.insert(id.to_string());
            }
            indexes.tenants.insert(id.to_string());
        }
        indexes
    }

    /// How many members are named by one and not by the other, but for those of `but`.
    pub(crate) fn differences(&self, other: &Self, but: &BTreeSet<RecordId>) -> usize {
        let (mut services, mut tenants) = (BTreeSet::new(), BTreeSet::new());
        for id in but {
            match id {
                RecordId::Service(id) => services.insert(id.as_str()),
                RecordId::Tenant(id) => tenants.insert(id.as_str()),
            };
        }
        let count = |ours: &BTreeSet<String>, theirs: &BTreeSet<String>, but: &BTreeSet<&str>| {
            ours.symmetric_difference(theirs).filter(|id| !but.contains(id.as_str())).count()
        };
        count(&self.services, &other.services, &services)
            + count(&self.tenants, &other.tenants, &tenants)
            + count(&self.active_tenants, &other.active_tenants, &tenants)
    }
}
