//! Schemas observed in the tenants' databases.

use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::Observation;

use super::super::attempt::{Attempt, Outcome};
use super::super::error::Error;
use super::super::proposal::Proposed;
use crate::entity::observed_schemas;

/// Records what was seen. Seeing the same schema again changes nothing, however much later: the time is that of the
/// first look, and a poll of every database leaves no trace in the log.
pub(in super::super) async fn observe(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    (tenant, service): (&TenantId, &ServiceId),
    seen: Option<&Observation>,
) -> Result<Outcome, Error> {
    attempt.require_tenant(tenant).await?;
    attempt.require_service(service).await?;
    let key = (tenant.to_string(), service.to_string());
    let before = attempt.find::<observed_schemas::Entity>(key.clone(), "read the observed schema").await?;
    let revision = before.as_ref().map(|row| row.revision);
    proposed.expect(revision)?;
    let schema = seen.map(|seen| seen.schema.to_string());
    if before.map(|row| row.schema_version) == schema {
        return Ok(Outcome::unchanged(revision.unwrap_or_default()));
    }
    let Some(seen) = seen else {
        attempt.remove(observed_schemas::Entity, key, "forget the observed schema").await?;
        return Ok(Outcome::removed(proposed));
    };
    let row = observed_schemas::Model::of(tenant, service, seen, attempt.revision);
    attempt.write(observed_schemas::Entity, [row], "write the observed schema").await?;
    Ok(attempt.changed(proposed))
}
