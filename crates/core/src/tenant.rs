//! Tenants: who the calls are made for.

use crate::ids::{Name, TenantId};
use std::collections::BTreeMap;

/// Most labels on one tenant.
pub const MAX_LABELS: usize = 32;
/// Longest label value, in bytes.
pub const MAX_LABEL_VALUE: usize = 128;
/// Longest display name, in bytes.
pub const MAX_TENANT_NAME: usize = 200;

/// Whether a tenant's calls are routed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TenantStatus {
    /// Calls are routed.
    #[default]
    Active,
    /// Calls are refused until the tenant is active again.
    Suspended,
    /// Calls are refused for a while, with a hint to retry.
    Maintenance,
}

impl TenantStatus {
    /// The word used in the projection, the database and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Maintenance => "maintenance",
        }
    }

    /// Reads the word that [`Self::as_str`] writes.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Suspended, Self::Maintenance].into_iter().find(|status| status.as_str() == word)
    }
}

/// A tenant and the attributes that routing and rollouts select by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenant {
    /// The id that callers send.
    pub id: TenantId,
    /// The name that people read; routing never looks at it.
    pub name: String,
    /// Whether calls are routed.
    pub status: TenantStatus,
    /// Commercial tier, such as `gold`.
    pub tier: Option<Name>,
    /// Home region.
    pub region: Option<Name>,
    /// Regions the tenant's calls may be served in, most wanted first; empty means any.
    pub residency: Vec<Name>,
    /// Free attributes for selection.
    pub labels: BTreeMap<Name, String>,
}

impl Tenant {
    /// An active tenant without attributes, named like its id.
    #[must_use]
    pub fn new(id: TenantId) -> Self {
        let name = id.as_str().to_owned();
        Self {
            id,
            name,
            status: TenantStatus::Active,
            tier: None,
            region: None,
            residency: Vec::new(),
            labels: BTreeMap::new(),
        }
    }
}
