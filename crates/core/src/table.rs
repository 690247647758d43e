//! The routing table: an immutable snapshot of one revision.
//!
//! A [`Table`] is a persistent map: a clone is free and shares everything, a change copies only the
//! path to what it touches. One writer folds events into its own table and publishes clones; readers
//! keep theirs as long as they like and always see exactly one revision.
//!
//! A tenant is one [`Row`], replaced as a whole. It holds four bytes per pin, eight where numbers are above 65,535: a
//! service's index and the index of an [`Assignment`] that the service shares among all tenants with the same pin and schema.

mod apply;
mod assignments;
mod entries;
mod pool;
mod records;
mod service;

pub use apply::OutOfOrder;
pub use assignments::Assignment;
pub(crate) use pool::Site;
pub use pool::{Locality, Member, Place, Pool};
pub use service::{ServiceTable, VersionSlot};

use crate::change::Position;
use crate::ids::{Name, ServiceId, TenantId};
use crate::service::Hold;
use crate::tenant::TenantStatus;
use entries::Entries;
use std::collections::BTreeMap;
use std::sync::Arc;

type Map<K, V> = imbl::GenericHashMap<K, V, foldhash::fast::RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// The attributes of a tenant that decisions look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Whether calls are routed.
    pub status: TenantStatus,
    /// Commercial tier.
    pub tier: Option<Name>,
    /// Home region.
    pub region: Option<Name>,
    /// Regions that may serve; empty for any.
    pub residency: Vec<Name>,
    /// Free attributes.
    pub labels: BTreeMap<Name, String>,
}

impl Profile {
    /// Whether the tenant may be served in the region.
    #[must_use]
    pub fn may_be_served_in(&self, region: &str) -> bool {
        is_resident(&self.residency, region)
    }
}

/// Whether who resides in these regions may be served in this one.
fn is_resident(residency: &[Name], region: &str) -> bool {
    residency.is_empty() || residency.iter().any(|allowed| allowed.as_str() == region)
}

/// Everything about one tenant.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// None while only pins of the tenant have arrived.
    profile: Option<Arc<Profile>>,
    /// See [`Row::is_plain`]; set with the row, so that counting over all tenants need not read profiles.
    plain: bool,
    /// By service index.
    entries: Entries,
}

impl Row {
    fn is_active(&self) -> bool {
        self.profile().is_some_and(|profile| profile.status == TenantStatus::Active)
    }

    /// Whether the tenant is active and may be served in any region: what most tenants are.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    /// The tenant's attributes; none if it is not declared.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// The tenant's assignment of a service; 0 is every service's "no pin, no schema".
    fn assignment(&self, service: u32) -> u32 {
        self.entries.assignment(service).unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.profile.is_none() && self.entries.is_empty()
    }
}

/// An immutable snapshot of one revision. See the module's documentation.
///
/// A clone is another snapshot: what is applied to one is never seen by the other.
///
/// ```
/// use grey_core::change::{Change, Event, Revision};
/// use grey_core::ids::TenantId;
/// use grey_core::key::Fact;
/// use grey_core::table::Table;
/// use grey_core::tenant::Tenant;
///
/// let mut next = Table::default();
/// let published = next.clone();
/// let created = Change::Put(Fact::Tenant(Box::new(Tenant::new(TenantId::new("acme")?))));
/// let event = Event { revision: Revision(1), changes: vec![created], ..Event::default() };
/// next.apply(&event)?;
/// assert!(next.tenant("acme").is_some() && published.tenant("acme").is_none());
/// assert_ne!(next.digest(), published.digest());
/// assert!(next.apply(&event).is_err(), "each event once");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Table {
    position: Position,
    digest: u64,
    tenants: Map<TenantId, Arc<Row>>,
    active_tenants: usize,
    /// Apart from the rows: there are few at any time, so that a decision asks whether there is any.
    holds: Map<TenantId, Arc<BTreeMap<ServiceId, Hold>>>,
    services: Map<ServiceId, Arc<ServiceTable>>,
    /// Service ids by index, for reading a row.
    names: imbl::Vector<ServiceId>,
    /// Indexes that no service has any more.
    free_services: imbl::Vector<u32>,
}

impl Table {
    /// What the table contains.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Digest of everything that decisions depend on, instances left out.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Digest of all instances; see [`crate::instance::digest`].
    #[must_use]
    pub fn instances_digest(&self) -> u64 {
        self.services().map(ServiceTable::instances_digest).fold(0, u64::wrapping_add)
    }

    /// A service by name; none if nothing is known of it.
    #[must_use]
    pub fn service(&self, id: &str) -> Option<&ServiceTable> {
        self.services.get(id).map(Arc::as_ref)
    }

    /// A tenant by name; none if nothing is known of it.
    #[must_use]
    pub fn tenant(&self, id: &str) -> Option<&Row> {
        self.tenants.get(id).map(Arc::as_ref)
    }

    /// Every declared tenant with its attributes, in no order.
    pub fn profiles(&self) -> impl Iterator<Item = (&TenantId, &Profile)> {
        self.tenants.iter().filter_map(|(id, row)| Some((id, row.profile()?)))
    }

    /// The hold on a tenant's calls of a service, if there is one.
    #[must_use]
    pub fn hold(&self, tenant: &str, service: &str) -> Option<&Hold> {
        if self.holds.is_empty() {
            return None;
        }
        self.holds.get(tenant)?.get(service)
    }

    /// Every hold, in no order.
    pub fn holds(&self) -> impl Iterator<Item = (&TenantId, &ServiceId, &Hold)> {
        self.holds
            .iter()
            .flat_map(|(tenant, holds)| holds.iter().map(move |(service, hold)| (tenant, service, hold)))
    }

    /// Tenants that anything is known of.
    #[must_use]
    pub fn tenant_count(&self) -> usize {
        self.tenants.len()
    }

    /// Declared tenants whose calls are routed.
    #[must_use]
    pub fn active_tenants(&self) -> usize {
        self.active_tenants
    }

    /// Every tenant that anything is known of, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = (&TenantId, &Row)> {
        self.tenants.iter().map(|(id, row)| (id, row.as_ref()))
    }

    /// Services that anything is known of.
    #[must_use]
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// Every service that anything is known of, in no order.
    pub fn services(&self) -> impl Iterator<Item = &ServiceTable> {
        self.services.values().map(Arc::as_ref)
    }
}
