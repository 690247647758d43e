//! Selecting many tenants at once: by label, tier, region, status, list, or the version that they are on.

use crate::decide::{Call, applies, choose_assigned};
use crate::ids::{Name, ServiceId, TenantId};
use crate::policy::Match;
use crate::table::{Row, Table};
use crate::tenant::TenantStatus;
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// What selected tenants have in common. Every condition given must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conditions {
    /// Any of these tenants.
    pub tenants: BTreeSet<TenantId>,
    /// Each label with any of its values.
    pub labels: BTreeMap<Name, BTreeSet<String>>,
    /// Any of these tiers.
    pub tiers: BTreeSet<Name>,
    /// Any of these home regions.
    pub regions: BTreeSet<Name>,
    /// This status.
    pub status: Option<TenantStatus>,
    /// The version that the rules give them in a service: pin or default, overlays and schema gate included.
    ///
    /// Whether instances run is left out, so that the same tenants are selected when a preview is carried out;
    /// so is the status, which is a condition of its own.
    pub on_version: Option<(ServiceId, Version)>,
}

/// Which of the declared tenants are meant: all, or those of some conditions.
///
/// ```
/// use grey_core::selector::{Conditions, Selector};
/// assert!(Selector::matching(Conditions::default()).is_err(), "all must be said");
/// assert_ne!(Selector::all(), Selector::matching(Conditions {
///     tiers: ["gold".parse()?].into(),
///     ..Conditions::default()
/// })?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selector(Option<Conditions>);

/// A selector without a condition: what was forgotten must not mean everyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the selector has no condition; name one, or say that all tenants are meant")]
pub struct EmptySelector;

impl Selector {
    /// Every declared tenant.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// The tenants for which every condition holds.
    ///
    /// # Errors
    /// When there is no condition.
    pub fn matching(conditions: Conditions) -> Result<Self, EmptySelector> {
        if conditions == Conditions::default() {
            return Err(EmptySelector);
        }
        Ok(Self(Some(conditions)))
    }

    /// The conditions; none if all tenants are meant.
    #[must_use]
    pub fn conditions(&self) -> Option<&Conditions> {
        self.0.as_ref()
    }
}

/// The declared tenants that the selector means, by id, with their rows.
#[must_use]
pub fn select<'t>(table: &'t Table, selector: &Selector) -> Vec<(&'t TenantId, &'t Row)> {
    let declared = table.tenants().filter(|(_, row)| row.profile().is_some());
    let mut selected: Vec<(&TenantId, &Row)> = match &selector.0 {
        None => declared.collect(),
        Some(conditions) => {
            let about = conditions.about();
            declared.filter(|(tenant, row)| conditions.hold(&about, table, tenant, row)).collect()
        }
    };
    selected.sort_unstable_by_key(|(tenant, _)| *tenant);
    selected
}

impl Conditions {
    /// The conditions that overlays have too.
    fn about(&self) -> Match {
        Match {
            tenants: self.tenants.clone(),
            tiers: self.tiers.clone(),
            regions: self.regions.clone(),
            labels: self.labels.clone(),
            metadata: Vec::new(),
        }
    }

    fn hold(&self, about: &Match, table: &Table, tenant: &TenantId, row: &Row) -> bool {
        let status = row.profile().map(|profile| profile.status);
        applies(about, &Call::new(tenant.as_str(), ""), row.profile())
            && self.status.is_none_or(|wanted| status == Some(wanted))
            && self.on_version.as_ref().is_none_or(|(service, version)| {
                // Pins may outlast the service that they name; nobody is served by it.
                let known = table.service(service.as_str()).filter(|known| known.default_version().is_some());
                known.is_some_and(|known| {
                    let call = Call::new(tenant.as_str(), service.as_str());
                    let choice = choose_assigned(known, known.assigned(Some(row)), row, &call);
                    choice.is_ok_and(|choice| choice.version == version)
                })
            })
    }
}
