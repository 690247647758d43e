//! Tenants: created, changed, removed with what belongs to them.

use grey_core::ids::TenantId;
use grey_core::tenant::Tenant;

use super::super::attempt::{Attempt, Outcome, unknown_tenant};
use super::super::error::Error;
use super::super::proposal::Proposed;
use crate::entity::{holds, observed_schemas, pins, tenant_databases, tenant_keys, tenants};

pub(in super::super) async fn put(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    tenant: &Tenant,
) -> Result<Outcome, Error> {
    let before = attempt.tenant(&tenant.id).await?;
    proposed.expect(before.as_ref().map(|before| before.revision))?;
    let row = tenants::Model::of(tenant);
    if let Some(before) = before.filter(|before| before.row == row) {
        return Ok(Outcome::unchanged(before.revision));
    }
    attempt.write(tenants::Entity, [row], "write the tenant").await?;
    Ok(attempt.changed(proposed))
}

pub(in super::super) async fn remove(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    id: &TenantId,
) -> Result<Outcome, Error> {
    let before = attempt.tenant(id).await?;
    proposed.expect(before.as_ref().map(|before| before.revision))?;
    if before.is_none() {
        return Err(unknown_tenant(id.as_str()).into());
    }
    let id = id.as_str();
    attempt.remove_where(pins::Entity, pins::Column::Tenant, id, "remove the tenant's pins").await?;
    let column = observed_schemas::Column::Tenant;
    attempt.remove_where(observed_schemas::Entity, column, id, "remove the tenant's schemas").await?;
    attempt.remove_where(holds::Entity, holds::Column::Tenant, id, "remove the tenant's holds").await?;
    let column = tenant_databases::Column::Tenant;
    attempt.remove_where(tenant_databases::Entity, column, id, "remove the tenant's databases").await?;
    // Without the key nothing opens any more what was sealed with it, wherever a copy is left.
    attempt.remove(tenant_keys::Entity, id, "remove the tenant's data key").await?;
    attempt.remove(tenants::Entity, id, "remove the tenant").await?;
    Ok(Outcome::removed(proposed))
}
