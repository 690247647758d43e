//! Versions of services, and the schemas that they work on.

use grey_core::ids::ServiceId;
use grey_core::schema::SchemaVersion;
use grey_core::service::{MAX_VERSIONS, ServiceVersion};
use grey_core::version::Version;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, Statement};

use super::super::attempt::{Attempt, Outcome, check_room, during, in_use, unknown_service, unknown_version};
use super::super::error::Error;
use super::super::proposal::Proposed;
use crate::entity::{holds, pins, read, unsigned, versions};

pub(in super::super) async fn put(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    version: &ServiceVersion,
) -> Result<Outcome, Error> {
    attempt.require_service(&version.service).await?;
    let before = attempt.version(&version.service, &version.version).await?;
    let revision = before.as_ref().map(|row| row.revision);
    proposed.expect(revision)?;
    let row = versions::Model::of(version, attempt.revision);
    match before {
        None => {
            let of = versions::Entity::find().filter(versions::Column::Service.eq(version.service.as_str()));
            let versions = attempt.count(of, "count the versions").await?;
            check_room("versions of the service", versions, MAX_VERSIONS)?;
        }
        Some(before) if before.version()? == *version => return Ok(Outcome::unchanged(before.revision)),
        Some(before) => check_pinned(attempt, &before.version()?, version).await?,
    }
    attempt.write(versions::Entity, [row], "write the version").await?;
    Ok(attempt.changed(proposed))
}

/// Tenants that are pinned to one version and have the same schema.
#[derive(Debug, FromQueryResult)]
struct Holders {
    schema_version: Option<String>,
    pins: i64,
}

const HOLDERS: &str = "SELECT o.schema_version, COUNT(*) AS pins FROM pins p LEFT JOIN observed_schemas o \
    ON o.tenant = p.tenant AND o.service = p.service WHERE p.service = $1 AND p.version = $2 \
    GROUP BY o.schema_version";
const HOLDERS_OF: &str = "SELECT p.tenant FROM pins p LEFT JOIN observed_schemas o \
    ON o.tenant = p.tenant AND o.service = p.service WHERE p.service = $1 AND p.version = $2 \
    AND COALESCE(o.schema_version, '') = $3 ORDER BY p.tenant LIMIT 10";

/// A tenant is never left on a version whose schema it does not have: no window closes over those pinned to it.
async fn check_pinned(
    attempt: &Attempt<'_>,
    before: &ServiceVersion,
    version: &ServiceVersion,
) -> Result<(), Error> {
    let backend = attempt.transaction.get_database_backend();
    let key = [version.service.as_str().into(), version.version.as_str().into()];
    let holders = Holders::find_by_statement(Statement::from_sql_and_values(backend, HOLDERS, key.clone()));
    let holders =
        holders.all(attempt.transaction).await.map_err(during("read the schemas of pinned tenants"))?;
    let (mut pins, mut named) = (0, Vec::new());
    for held in holders {
        let schema = held.schema_version.as_deref().map(|schema| read("observed_schemas", schema));
        let schema: Option<SchemaVersion> = schema.transpose()?;
        if version.window.admits(schema.as_ref()) || !before.window.admits(schema.as_ref()) {
            continue;
        }
        pins += unsigned("pins", held.pins)?;
        let [service, declared] = key.clone();
        let values = [service, declared, held.schema_version.unwrap_or_default().into()];
        let tenants = Statement::from_sql_and_values(backend, HOLDERS_OF, values);
        let tenants = attempt.transaction.query_all_raw(tenants).await;
        for row in tenants.map_err(during("read the pinned tenants"))? {
            named.push(row.try_get::<String>("", "tenant").map_err(during("read a pinned tenant"))?);
        }
    }
    if pins == 0 {
        return Ok(());
    }
    named.sort_unstable();
    named.truncate(10);
    let message = format!(
        "version {} of service `{}` is in use by {pins} pinned tenants whose schema is outside {}, among them {}; \
         upgrade their databases or change their pins first",
        version.version,
        version.service,
        version.window,
        named.join(", ")
    );
    let refusal = in_use(message, &["pins"]).with("pins", pins.to_string());
    Err(refusal.with("tenants", named.join(",")).into())
}

pub(in super::super) async fn remove(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    service: &ServiceId,
    version: &Version,
) -> Result<Outcome, Error> {
    let Some(declared) = attempt.service(service).await? else {
        return Err(unknown_service(service.as_str()).into());
    };
    let before = attempt.version(service, version).await?;
    proposed.expect(before.as_ref().map(|row| row.revision))?;
    if before.is_none() {
        return Err(unknown_version(service, version).into());
    }
    let pins = pins::Entity::find()
        .filter(pins::Column::Service.eq(service.as_str()))
        .filter(pins::Column::Version.eq(version.as_str()));
    let pins = attempt.count(pins, "count the version's pins").await?;
    let moves = holds::Entity::find()
        .filter(holds::Column::Service.eq(service.as_str()))
        .filter(holds::Column::ToVersion.eq(version.as_str()));
    let moves = attempt.count(moves, "count the moves to the version").await?;
    let (policy, _) = attempt.policy(service).await?;
    let overlays = attempt.overlays(service).await?;
    let users = [
        ("default", declared.row.service()?.default == *version),
        ("policy", policy.versions().any(|named| named == version)),
        ("overlays", overlays.iter().any(|(overlay, _)| overlay.versions().any(|named| named == version))),
        ("pins", pins > 0),
        ("moves", moves > 0),
    ];
    let users: Vec<&str> = users.iter().filter(|(_, uses)| *uses).map(|(user, _)| *user).collect();
    if !users.is_empty() {
        let message = format!(
            "version {version} of service `{service}` is in use by its {}; change them first",
            users.join(" and ")
        );
        return Err(in_use(message, &users).with("pins", pins.to_string()).into());
    }
    let key = (service.to_string(), version.to_string());
    attempt.remove(versions::Entity, key, "remove the version").await?;
    Ok(Outcome::removed(proposed))
}
