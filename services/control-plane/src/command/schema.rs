//! Schemas observed in the tenants' databases.

use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use sea_orm::sea_query::OnConflict;
use sea_orm::{EntityTrait, IntoActiveModel, Iterable};

use super::catalog::{find_service, unknown_service};
use super::transaction::{Attempt, Outcome, during, present};
use super::{Error, Proposed, Thing, tenant};
use crate::entity::{observed_schemas, signed};

/// Records what was seen. Seeing the same schema again changes nothing, however much later: the time is that of the
/// first look, and a poll of every database leaves no trace in the log.
pub(super) async fn observe(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    (tenant, service): (&TenantId, &ServiceId),
    schema: Option<&SchemaVersion>,
    at_ms: u64,
) -> Result<Outcome, Error> {
    if tenant::find(attempt, tenant).await?.is_none() {
        return Err(tenant::unknown(tenant.as_str()).into());
    }
    if find_service(attempt, service).await?.is_none() {
        return Err(unknown_service(service.as_str()).into());
    }
    let key = (tenant.to_string(), service.to_string());
    let before = observed_schemas::Entity::find_by_id(key.clone()).one(attempt.transaction).await;
    let before = before.map_err(during("read the observed schema"))?;
    let revision = before.as_ref().map(|row| row.revision);
    Thing::of(&proposed.change).expect(proposed.expected, present(revision)?)?;
    let seen = schema.map(ToString::to_string);
    if before.as_ref().map(|row| &row.schema_version) == seen.as_ref() {
        return Ok(Outcome::unchanged(revision.unwrap_or_default()));
    }
    let Some(schema_version) = seen else {
        let removed = observed_schemas::Entity::delete_by_id(key).exec(attempt.transaction).await;
        removed.map_err(during("forget the observed schema"))?;
        return Ok(Attempt::removed(&proposed.change));
    };
    let (tenant, service) = key;
    let (at_ms, revision) = (signed(at_ms), attempt.revision);
    let row = observed_schemas::Model { tenant, service, schema_version, at_ms, revision };
    let replace = OnConflict::columns([observed_schemas::Column::Tenant, observed_schemas::Column::Service])
        .update_columns(observed_schemas::Column::iter())
        .to_owned();
    let insert = observed_schemas::Entity::insert(row.into_active_model()).on_conflict(replace);
    insert.exec_without_returning(attempt.transaction).await.map_err(during("write the observed schema"))?;
    Ok(attempt.changed(&proposed.change))
}
