//! Services and their versions.

use grey_core::change::Change;
use grey_core::error::Reason;
use grey_core::ids::ServiceId;
use grey_core::schema::{SchemaVersion, SchemaWindow};
use grey_core::service::{MAX_SERVICES, MAX_VERSIONS, Service, ServiceVersion};
use grey_core::version::Version;
use grey_proto::status::ApiError;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel, Iterable, PaginatorTrait,
    QueryFilter, Statement,
};

use super::transaction::{Attempt, Outcome, during, present};
use super::{Error, Proposed, Thing, policy};
use crate::entity::{pins, policies, read, services, tenant_databases, unsigned, versions};

/// A service that nobody has declared.
pub(crate) fn unknown_service(service: &str) -> ApiError {
    let message = format!("service `{service}` is not declared; create it with its default version");
    ApiError::new(Reason::UnknownService, message).with("service", service)
}

/// A version that nobody has declared.
pub(crate) fn unknown_version(service: &str, version: &str) -> ApiError {
    let message = format!("version {version} of service `{service}` is not declared");
    ApiError::new(Reason::UnknownVersion, message).with("service", service).with("version", version)
}

/// Refuses one more of what there are `present`.
fn check_room(what: &str, present: u64, limit: u64) -> Result<(), ApiError> {
    if present < limit {
        return Ok(());
    }
    let message = format!("there are {present} {what}, at most {limit} are allowed; remove one first");
    Err(ApiError::new(Reason::TooLarge, message).with("limit", limit.to_string()))
}

pub(super) async fn find_service(
    attempt: &Attempt<'_>,
    id: &ServiceId,
) -> Result<Option<services::Model>, Error> {
    let found = services::Entity::find_by_id(id.as_str()).one(attempt.transaction).await;
    found.map_err(during("read the service"))
}

async fn find_version(
    attempt: &Attempt<'_>,
    service: &ServiceId,
    version: &Version,
) -> Result<Option<versions::Model>, Error> {
    let key = (service.to_string(), version.to_string());
    let found = versions::Entity::find_by_id(key).one(attempt.transaction).await;
    found.map_err(during("read the version"))
}

pub(super) async fn put_service(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    service: &Service,
) -> Result<Outcome, Error> {
    let before = find_service(attempt, &service.id).await?;
    let revision = before.as_ref().map(|row| row.revision);
    Thing::of(&proposed.change).expect(proposed.expected, present(revision)?)?;
    let row = services::Model::of(service, revision.unwrap_or_default());
    if let Some(before) = before.as_ref().filter(|before| **before == row) {
        return Ok(Outcome::unchanged(before.revision));
    }
    if before.is_none() {
        let services = services::Entity::find().count(attempt.transaction).await;
        check_room("services", services.map_err(during("count the services"))?, MAX_SERVICES)?;
    }
    let mut outcome = attempt.changed(&proposed.change);
    if !attempt.declares.contains(&(&service.id, &service.default)) {
        match (find_version(attempt, &service.id, &service.default).await?, before) {
            (Some(_), _) => {}
            (None, Some(_)) => {
                return Err(unknown_version(service.id.as_str(), service.default.as_str()).into());
            }
            (None, None) => outcome.changes.push(declare_default(attempt, service).await?),
        }
    }
    let row = services::Model { revision: attempt.revision, ..row }.into_active_model();
    let replace =
        OnConflict::column(services::Column::Id).update_columns(services::Column::iter()).to_owned();
    let insert = services::Entity::insert(row).on_conflict(replace);
    insert.exec_without_returning(attempt.transaction).await.map_err(during("write the service"))?;
    Ok(outcome)
}

/// A new service comes with its default version, on any schema.
async fn declare_default(attempt: &Attempt<'_>, service: &Service) -> Result<Change, Error> {
    let (id, version) = (service.id.clone(), service.default.clone());
    let version = ServiceVersion { service: id, version, window: SchemaWindow::default() };
    write_version(attempt, &version).await?;
    Ok(Change::VersionPut(version))
}

async fn write_version(attempt: &Attempt<'_>, version: &ServiceVersion) -> Result<(), Error> {
    let row = versions::Model::of(version, attempt.revision).into_active_model();
    let replace = OnConflict::columns([versions::Column::Service, versions::Column::Version])
        .update_columns(versions::Column::iter())
        .to_owned();
    let insert = versions::Entity::insert(row).on_conflict(replace);
    insert.exec_without_returning(attempt.transaction).await.map_err(during("write the version"))?;
    Ok(())
}

pub(super) async fn remove_service(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    id: &ServiceId,
) -> Result<Outcome, Error> {
    let before = find_service(attempt, id).await?;
    let revision = before.as_ref().map(|row| row.revision);
    Thing::of(&proposed.change).expect(proposed.expected, present(revision)?)?;
    if before.is_none() {
        return Err(unknown_service(id.as_str()).into());
    }
    let pins = pins::Entity::find().filter(pins::Column::Service.eq(id.as_str()));
    let pins = pins.count(attempt.transaction).await.map_err(during("count the service's pins"))?;
    if pins > 0 {
        let message = format!("service `{id}` is in use: {pins} pins refer to it; remove them first");
        return Err(in_use(message, &["pins"], pins).into());
    }
    let databases =
        tenant_databases::Entity::find().filter(tenant_databases::Column::Service.eq(id.as_str()));
    let databases = databases.count(attempt.transaction).await.map_err(during("count the databases"))?;
    if databases > 0 {
        let message = format!(
            "service `{id}` is in use: {databases} databases are registered for it; forget them first"
        );
        return Err(in_use(message, &["databases"], 0).with("databases", databases.to_string()).into());
    }
    let versions = versions::Entity::delete_many().filter(versions::Column::Service.eq(id.as_str()));
    versions.exec(attempt.transaction).await.map_err(during("remove the service's versions"))?;
    let policy = policies::Entity::delete_by_id(id.as_str()).exec(attempt.transaction).await;
    policy.map_err(during("remove the service's policy"))?;
    let service = services::Entity::delete_by_id(id.as_str()).exec(attempt.transaction).await;
    service.map_err(during("remove the service"))?;
    Ok(Attempt::removed(&proposed.change))
}

pub(super) async fn put_version(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    version: &ServiceVersion,
) -> Result<Outcome, Error> {
    let service = version.service.as_str();
    if find_service(attempt, &version.service).await?.is_none() {
        return Err(unknown_service(service).into());
    }
    let before = find_version(attempt, &version.service, &version.version).await?;
    let revision = before.as_ref().map(|row| row.revision);
    Thing::of(&proposed.change).expect(proposed.expected, present(revision)?)?;
    let row = versions::Model::of(version, revision.unwrap_or_default());
    if before.is_none() {
        let versions = versions::Entity::find().filter(versions::Column::Service.eq(service));
        let versions = versions.count(attempt.transaction).await.map_err(during("count the versions"))?;
        check_room("versions of the service", versions, MAX_VERSIONS)?;
    }
    if let Some(before) = before.as_ref().filter(|before| **before == row) {
        return Ok(Outcome::unchanged(before.revision));
    }
    if let Some(before) = &before {
        check_pinned(attempt, &before.version()?, version).await?;
    }
    write_version(attempt, version).await?;
    Ok(attempt.changed(&proposed.change))
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
    Err(in_use(message, &["pins"], pins).with("tenants", named.join(",")).into())
}

pub(super) async fn remove_version(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    service: &ServiceId,
    version: &Version,
) -> Result<Outcome, Error> {
    let Some(declared) = find_service(attempt, service).await? else {
        return Err(unknown_service(service.as_str()).into());
    };
    let before = find_version(attempt, service, version).await?;
    let revision = before.as_ref().map(|row| row.revision);
    Thing::of(&proposed.change).expect(proposed.expected, present(revision)?)?;
    if before.is_none() {
        return Err(unknown_version(service.as_str(), version.as_str()).into());
    }
    let pins = pins::Entity::find()
        .filter(pins::Column::Service.eq(service.as_str()))
        .filter(pins::Column::Version.eq(version.as_str()));
    let pins = pins.count(attempt.transaction).await.map_err(during("count the version's pins"))?;
    let policy = policy::find(attempt, service).await?.map(|row| row.policy()).transpose()?;
    let named = policy.is_some_and(|policy| policy.versions().any(|named| named == version));
    let is_default = declared.service()?.default == *version;
    let users = [("default", is_default), ("policy", named), ("pins", pins > 0)];
    let users: Vec<&str> = users.iter().filter(|(_, uses)| *uses).map(|(user, _)| *user).collect();
    if !users.is_empty() {
        let message = format!(
            "version {version} of service `{service}` is in use by its {}; change them first",
            users.join(" and ")
        );
        return Err(in_use(message, &users, pins).into());
    }
    let key = (service.to_string(), version.to_string());
    let removed = versions::Entity::delete_by_id(key).exec(attempt.transaction).await;
    removed.map_err(during("remove the version"))?;
    Ok(Attempt::removed(&proposed.change))
}

fn in_use(message: String, by: &[&str], pins: u64) -> ApiError {
    ApiError::new(Reason::InUse, message).with("by", by.join(",")).with("pins", pins.to_string())
}
