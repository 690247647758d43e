//! The routing table: an immutable snapshot of one revision.
//!
//! A [`Table`] is a persistent map: a clone is free and shares everything, a change copies only the
//! path to what it touches. One writer folds events into its own table and publishes clones; readers
//! keep theirs as long as they like and always see exactly one revision.
//!
//! A tenant is one [`Row`], replaced as a whole. It holds four bytes per pin: a service's index and
//! the index of an [`Assignment`] that the service shares among all tenants with the same pin and schema.

mod apply;
mod pool;
mod records;
mod service;

pub use pool::{Member, Place, Pool};
pub use service::{Assignment, ServiceTable, VersionSlot};

use crate::change::Position;
use crate::ids::{Name, ServiceId, TenantId};
use crate::tenant::TenantStatus;
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

/// Ties a tenant to an assignment of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    service: u16,
    assignment: u16,
}

/// Everything about one tenant.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// None while only pins of the tenant have arrived.
    profile: Option<Arc<Profile>>,
    /// By service index.
    entries: Box<[Entry]>,
}

impl Row {
    /// The tenant's attributes; none if it is not declared.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// The tenant's assignment of a service; 0 is every service's "no pin, no schema".
    fn assignment(&self, service: u16) -> u16 {
        // Tenants pinned to most services are the rule, so the entry is often at its own index.
        let guess = self.entries.get(usize::from(service)).filter(|e| e.service == service);
        let entry = guess.or_else(|| self.find(service).ok().and_then(|at| self.entries.get(at)));
        entry.map_or(0, |e| e.assignment)
    }

    fn find(&self, service: u16) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&service, |e| e.service)
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
/// use grey_core::table::Table;
/// use grey_core::tenant::Tenant;
///
/// let mut next = Table::default();
/// let published = next.clone();
/// let created = Change::TenantPut(Tenant::new(TenantId::new("acme")?));
/// let (actor, reason) = (String::new(), String::new());
/// let event = Event { revision: Revision(1), at_ms: 0, actor, reason, changes: vec![created] };
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
    services: Map<ServiceId, Arc<ServiceTable>>,
    /// Service ids by index, for reading a row.
    names: imbl::Vector<ServiceId>,
    /// Indexes that no service has any more.
    free_services: imbl::Vector<u16>,
}

impl Table {
    /// What the table contains.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Digest of everything that decisions depend on, instances left out.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
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

    /// What a tenant is assigned to in a service.
    #[must_use]
    pub fn assignment<'t>(&'t self, row: Option<&Row>, service: &'t ServiceTable) -> &'t Assignment {
        service.assignment(row.map_or(0, |row| row.assignment(service.index())))
    }

    /// Tenants that anything is known of.
    #[must_use]
    pub fn tenant_count(&self) -> usize {
        self.tenants.len()
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
