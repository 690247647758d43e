//! Tenants: created, changed, removed with what is tied to them.

use grey_core::error::Reason;
use grey_core::ids::TenantId;
use grey_core::tenant::Tenant;
use grey_proto::status::ApiError;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, Iterable, QueryFilter};

use super::transaction::{Attempt, Outcome, during, present};
use super::{Error, Proposed, Thing};
use crate::entity::{observed_schemas, pins, tenant_databases, tenant_keys, tenants};

/// A tenant that nobody has declared.
pub(crate) fn unknown(tenant: &str) -> ApiError {
    ApiError::new(Reason::UnknownTenant, format!("tenant `{tenant}` is not declared")).with("tenant", tenant)
}

pub(super) async fn find(attempt: &Attempt<'_>, id: &TenantId) -> Result<Option<tenants::Model>, Error> {
    let found = tenants::Entity::find_by_id(id.as_str()).one(attempt.transaction).await;
    found.map_err(during("read the tenant"))
}

pub(super) async fn put(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    tenant: &Tenant,
) -> Result<Outcome, Error> {
    let before = find(attempt, &tenant.id).await?;
    let revision = before.as_ref().map(|row| row.revision);
    Thing::of(&proposed.change).expect(proposed.expected, present(revision)?)?;
    let row = tenants::Model::of(tenant, revision.unwrap_or_default());
    if let Some(before) = before.filter(|before| *before == row) {
        return Ok(Outcome::unchanged(before.revision));
    }
    let row = tenants::Model { revision: attempt.revision, ..row }.into_active_model();
    let replace = OnConflict::column(tenants::Column::Id).update_columns(tenants::Column::iter()).to_owned();
    let insert = tenants::Entity::insert(row).on_conflict(replace);
    insert.exec_without_returning(attempt.transaction).await.map_err(during("write the tenant"))?;
    Ok(attempt.changed(&proposed.change))
}

pub(super) async fn remove(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    id: &TenantId,
) -> Result<Outcome, Error> {
    let before = find(attempt, id).await?;
    let revision = before.as_ref().map(|row| row.revision);
    Thing::of(&proposed.change).expect(proposed.expected, present(revision)?)?;
    if before.is_none() {
        return Err(unknown(id.as_str()).into());
    }
    let pins = pins::Entity::delete_many().filter(pins::Column::Tenant.eq(id.as_str()));
    pins.exec(attempt.transaction).await.map_err(during("remove the tenant's pins"))?;
    let schemas =
        observed_schemas::Entity::delete_many().filter(observed_schemas::Column::Tenant.eq(id.as_str()));
    schemas.exec(attempt.transaction).await.map_err(during("remove the tenant's schemas"))?;
    let databases =
        tenant_databases::Entity::delete_many().filter(tenant_databases::Column::Tenant.eq(id.as_str()));
    databases.exec(attempt.transaction).await.map_err(during("remove the tenant's databases"))?;
    // Without the key nothing opens any more what was sealed with it, wherever a copy is left.
    let key = tenant_keys::Entity::delete_by_id(id.as_str()).exec(attempt.transaction).await;
    key.map_err(during("remove the tenant's data key"))?;
    let tenant = tenants::Entity::delete_by_id(id.as_str()).exec(attempt.transaction).await;
    tenant.map_err(during("remove the tenant"))?;
    Ok(Attempt::removed(&proposed.change))
}
