//! Services: created with their default version, changed, removed with what belongs to them.

use grey_core::change::Change;
use grey_core::ids::ServiceId;
use grey_core::key::Fact;
use grey_core::schema::SchemaWindow;
use grey_core::service::{MAX_SERVICES, Service, ServiceVersion};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::super::attempt::{Attempt, Outcome, check_room, in_use, unknown_service, unknown_version};
use super::super::error::Error;
use super::super::proposal::Proposed;
use crate::entity::{holds, overlays, pins, policies, services, tenant_databases, versions};

pub(in super::super) async fn put(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    service: &Service,
) -> Result<Outcome, Error> {
    let before = attempt.service(&service.id).await?;
    proposed.expect(before.as_ref().map(|before| before.revision))?;
    let row = services::Model::of(service);
    if let Some(before) = before.as_ref().filter(|before| before.row == row) {
        return Ok(Outcome::unchanged(before.revision));
    }
    if before.is_none() {
        let services = attempt.count(services::Entity::find(), "count the services").await?;
        check_room("services", services, MAX_SERVICES)?;
    }
    let mut outcome = attempt.changed(proposed);
    if !attempt.declares.contains(&(service.id.clone(), service.default.clone())) {
        match (attempt.version(&service.id, &service.default).await?, before) {
            (Some(_), _) => {}
            (None, Some(_)) => return Err(unknown_version(&service.id, &service.default).into()),
            (None, None) => outcome.changes.push(declare_default(attempt, service).await?),
        }
    }
    attempt.write(services::Entity, [row], "write the service").await?;
    Ok(outcome)
}

/// A new service comes with its default version, on any schema.
async fn declare_default(attempt: &Attempt<'_>, service: &Service) -> Result<Change, Error> {
    let (id, version) = (service.id.clone(), service.default.clone());
    let version = ServiceVersion { service: id, version, window: SchemaWindow::default() };
    let row = versions::Model::of(&version, attempt.revision);
    attempt.write(versions::Entity, [row], "write the version").await?;
    Ok(Change::Put(Fact::Version(Box::new(version))))
}

pub(in super::super) async fn remove(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    id: &ServiceId,
) -> Result<Outcome, Error> {
    let before = attempt.service(id).await?;
    proposed.expect(before.as_ref().map(|before| before.revision))?;
    if before.is_none() {
        return Err(unknown_service(id.as_str()).into());
    }
    check_unused(attempt, id).await?;
    let id = id.as_str();
    let (column, attempted) = (versions::Column::Service, "remove the service's versions");
    attempt.remove_where(versions::Entity, column, id, attempted).await?;
    let (column, attempted) = (overlays::Column::Service, "remove the service's overlays");
    attempt.remove_where(overlays::Entity, column, id, attempted).await?;
    attempt.remove(policies::Entity, id, "remove the service's policy").await?;
    attempt.remove(services::Entity, id, "remove the service").await?;
    Ok(Outcome::removed(proposed))
}

/// Refuses to remove what tenants have something of.
async fn check_unused(attempt: &Attempt<'_>, id: &ServiceId) -> Result<(), Error> {
    let pins = pins::Entity::find().filter(pins::Column::Service.eq(id.as_str()));
    let pins = attempt.count(pins, "count the service's pins").await?;
    if pins > 0 {
        let message = format!("service `{id}` is in use: {pins} pins refer to it; remove them first");
        return Err(in_use(message, &["pins"]).with("pins", pins.to_string()).into());
    }
    let moves = holds::Entity::find().filter(holds::Column::Service.eq(id.as_str()));
    if attempt.count(moves, "count the service's moves").await? > 0 {
        let message = format!("service `{id}` is in use: tenants are being moved; wait until that has ended");
        return Err(in_use(message, &["moves"]).into());
    }
    let databases =
        tenant_databases::Entity::find().filter(tenant_databases::Column::Service.eq(id.as_str()));
    let databases = attempt.count(databases, "count the service's databases").await?;
    if databases > 0 {
        let message = format!(
            "service `{id}` is in use: {databases} databases are registered for it; forget them first"
        );
        return Err(in_use(message, &["databases"]).with("databases", databases.to_string()).into());
    }
    Ok(())
}
