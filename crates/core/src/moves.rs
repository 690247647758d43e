//! Which tenants a list of changes moves to another version, told before it is done.
//!
//! A tenant's *effective version* of a service is the one that [`decide`](crate::decide::decide) answers its plain
//! call with: a call without metadata, user, request key, place and wish. Schema gate, overlays that split by
//! tenant, residency and failover all count, by the same code. A tenant *moves* if that version differs between
//! the table before and the table after.
//!
//! ```
//! use grey_core::change::{Change, Event, Revision};
//! use grey_core::ids::{ServiceId, TenantId};
//! use grey_core::key::Fact;
//! use grey_core::moves::{Budget, moves};
//! use grey_core::service::{Service, ServiceVersion};
//! use grey_core::table::Table;
//! use grey_core::tenant::Tenant;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let billing = ServiceId::new("billing")?;
//! let default = |version: &str| -> Result<Change, Box<dyn std::error::Error>> {
//!     Ok(Change::Put(Fact::Service(Service { id: billing.clone(), default: version.parse()? })))
//! };
//! let mut changes = vec![default("v1.0")?];
//! for version in ["v1.0", "v2.0"] {
//!     let (service, version) = (billing.clone(), version.parse()?);
//!     changes.push(Change::Put(Fact::Version(Box::new(ServiceVersion { service, version, window: Default::default() }))));
//! }
//! for number in 0..300 {
//!     changes.push(Change::Put(Fact::Tenant(Box::new(Tenant::new(TenantId::new(&format!("t{number}"))?)))));
//! }
//! let mut table = Table::default();
//! table.apply(&Event { revision: Revision(1), changes, ..Event::default() })?;
//!
//! let told = moves(&table, &[default("v2.0")?], 5);
//! assert_eq!(told.groups.len(), 1);
//! assert_eq!(told.groups[0].to_string(), "300 of billing: v1.0 → v2.0");
//! let refused = Budget::default().check(&told, None).unwrap_err();
//! assert!(refused.to_string().contains("--moves 300"));
//! assert!(Budget::default().check(&told, Some(300)).is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! What it does not count: users and requests that overlays split by, and tenants that nobody has declared, since
//! their number is not known.

mod budget;
mod count;

pub use budget::{Budget, OverBudget};
pub(crate) use count::compare;
pub use count::{moves, preview};

use crate::ids::{ServiceId, TenantId};
use crate::version::Version;
use std::collections::BTreeMap;
use std::fmt;

/// What a list of changes does to the tenants' effective versions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moves {
    /// Declared tenants whose calls are routed before the changes; each of them may call every service.
    pub active: u64,
    /// By service; the largest group of a service first.
    pub groups: Vec<Move>,
}

/// Tenants of one service that make the same move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// The service.
    pub service: ServiceId,
    /// The version that served them; none if their calls were refused.
    ///
    /// Where no instance serves them before and after, it is the version that was decided all the same: what
    /// has no instance today may have one tomorrow, and the registry may be away.
    pub from: Option<Version>,
    /// The version that serves them afterwards; none if their calls are refused.
    pub to: Option<Version>,
    /// What they lack afterwards and did not lack before.
    pub loss: Option<Loss>,
    /// How many there are.
    pub tenants: u64,
    /// Some of them: the first by id.
    pub examples: Vec<TenantId>,
}

/// Why tenants do not get the version that the rules want for them. Without [`Move::to`] their calls are
/// refused, else that version stands in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Loss {
    /// The version that the rules want.
    pub wanted: Version,
    /// What is missing.
    pub lack: Lack,
}

/// What tenants may lack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lack {
    /// The wanted version does not work on their schema.
    Schema,
    /// The wanted version has no instance that may serve them.
    Instance,
}

impl Move {
    /// Whether it takes from its tenants what they had. Those whose calls were refused before only gain.
    #[must_use]
    pub fn takes(&self) -> bool {
        self.from.is_some()
    }
}

impl Moves {
    /// Whether nobody moves.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many tenants each service moves away from what they had. No tenant is in two groups of a service.
    #[must_use]
    pub fn by_service(&self) -> BTreeMap<&ServiceId, u64> {
        let mut tenants = BTreeMap::new();
        for group in self.groups.iter().filter(|group| group.takes()) {
            *tenants.entry(&group.service).or_default() += group.tenants;
        }
        tenants
    }

    /// The number to state for these moves to be allowed: the most tenants that one service moves.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.by_service().into_values().max().unwrap_or(0)
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |version: &Option<Version>| version.as_ref().map_or("refused", Version::as_str).to_owned();
        write!(f, "{} of {}: {} → {}", self.tenants, self.service, name(&self.from), name(&self.to))?;
        match &self.loss {
            Some(loss) => write!(f, " ({loss})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lack {
            Lack::Schema => write!(f, "{} does not work on their schema", self.wanted),
            Lack::Instance => write!(f, "{} has no instance for them", self.wanted),
        }
    }
}
