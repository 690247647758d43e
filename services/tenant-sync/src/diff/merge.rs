//! What the API says, laid over what the control plane has.

use grey_core::ids::TenantId;
use grey_core::tenant::{Tenant, TenantStatus};

use super::{DELETED_AT, MANAGED_BY, Rules, gone_since, key};
use crate::source::Sourced;

/// A tenant that the control plane does not have yet.
pub(super) fn created(id: &TenantId, sourced: &Sourced, rules: &Rules) -> Tenant {
    let mut tenant = Tenant::new(id.clone());
    overwrite(&mut tenant, sourced, rules);
    tenant
}

/// The tenant as the API wants it; none: it is so already.
pub(super) fn merged(tenant: &Tenant, sourced: &Sourced, rules: &Rules) -> Option<Tenant> {
    if agrees(tenant, sourced, rules) {
        return None;
    }
    let mut tenant = tenant.clone();
    overwrite(&mut tenant, sourced, rules);
    Some(tenant)
}

fn overwrite(tenant: &mut Tenant, sourced: &Sourced, rules: &Rules) {
    tenant.status = status(tenant, sourced, rules);
    if let Some(name) = &sourced.name {
        tenant.name.clone_from(name);
    }
    if let Some(tier) = &sourced.tier {
        tenant.tier.clone_from(tier);
    }
    if let Some(region) = &sourced.region {
        tenant.region.clone_from(region);
    }
    if let Some(residency) = &sourced.residency {
        tenant.residency.clone_from(residency);
    }
    for (key, value) in &sourced.labels {
        match value {
            Some(value) => drop(tenant.labels.insert(key.clone(), value.clone())),
            None => drop(tenant.labels.remove(key)),
        }
    }
    tenant.labels.remove(DELETED_AT);
    tenant.labels.insert(key(MANAGED_BY), rules.managed_by.clone());
}

/// Whether [`overwrite`] would change nothing, found without copying the tenant.
fn agrees(tenant: &Tenant, sourced: &Sourced, rules: &Rules) -> bool {
    let Sourced { name, status: _, tier, region, residency, labels } = sourced;
    name.as_ref().is_none_or(|name| *name == tenant.name)
        && status(tenant, sourced, rules) == tenant.status
        && tier.as_ref().is_none_or(|tier| *tier == tenant.tier)
        && region.as_ref().is_none_or(|region| *region == tenant.region)
        && residency.as_ref().is_none_or(|residency| *residency == tenant.residency)
        && labels.iter().all(|(key, value)| tenant.labels.get(key) == value.as_ref())
        && !tenant.labels.contains_key(DELETED_AT)
        && rules.manages(tenant)
}

fn status(tenant: &Tenant, sourced: &Sourced, rules: &Rules) -> TenantStatus {
    match sourced.status {
        Some(TenantStatus::Active)
            if tenant.status == TenantStatus::Maintenance && !rules.tells_maintenance =>
        {
            TenantStatus::Maintenance
        }
        Some(status) => status,
        // Nobody but us has suspended it.
        None if gone_since(tenant).is_some() => TenantStatus::Active,
        None => tenant.status,
    }
}
