//! Databases of tenants: registered with credentials that are sealed on the way in, and forgotten.

use grey_core::database::Database;
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_database_url::direct_context;
use grey_proto::control::DatabaseKind;
use grey_proto::status::ApiError;
use grey_vault::{SealedKey, Vault};

use super::super::attempt::{Attempt, Outcome};
use super::super::error::{Error, chain};
use super::super::proposal::{Credentials, Proposed};
use crate::entity::{signed, tenant_databases, tenant_keys};

/// Registers a database, or replaces it. What is there is not compared: nobody opens a URL to see whether it is the same.
pub(in super::super) async fn put(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    (tenant, service): (&TenantId, &ServiceId),
    database: &Database,
) -> Result<Outcome, Error> {
    attempt.require_tenant(tenant).await?;
    attempt.require_service(service).await?;
    let before = attempt.find::<tenant_databases::Entity>(key(tenant, service), "read the database").await?;
    proposed.expect(before.map(|row| row.revision))?;
    let Some(Credentials { url, direct_url, vault }) = &attempt.command.credentials else {
        let message = "a database is registered with its URL only; use PutDatabase";
        return Err(ApiError::new(Reason::InvalidArgument, message).with("field", "url").into());
    };
    let data_key = data_key(attempt, vault, tenant).await?;
    let seal = |context: &str, url: &str| vault.seal(tenant.as_str(), &data_key, context, url);
    let sealed_url = seal(service.as_str(), url.expose()).map_err(|error| unusable(&error))?;
    let sealed_direct_url = match direct_url.expose() {
        "" => String::new(),
        url => seal(&direct_context(service.as_str()), url).map_err(|error| unusable(&error))?,
    };
    let row = tenant_databases::Model {
        tenant: tenant.to_string(),
        service: service.to_string(),
        kind: DatabaseKind::from(database.kind).as_str_name().to_owned(),
        schema_name: database.schema.clone(),
        dialect: database.dialect.to_string(),
        server: database.server.clone(),
        database_name: database.name.clone(),
        sealed_url,
        sealed_direct_url,
        direct_server: database.direct_server.clone(),
        actor: attempt.command.principal.to_string(),
        updated_at_ms: signed(attempt.at_ms),
        revision: attempt.revision,
    };
    attempt.write(tenant_databases::Entity, [row], "write a tenant's database").await?;
    Ok(attempt.changed(proposed))
}

/// Forgets a database; it is itself left alone.
pub(in super::super) async fn remove(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    (tenant, service): (&TenantId, &ServiceId),
) -> Result<Outcome, Error> {
    let key = key(tenant, service);
    let before = attempt.find::<tenant_databases::Entity>(key.clone(), "read the database").await?;
    proposed.expect(before.as_ref().map(|row| row.revision))?;
    if before.is_none() {
        let message = format!("no database of tenant `{tenant}` is registered for service `{service}`");
        let unknown = ApiError::new(Reason::UnknownDatabase, message);
        return Err(unknown.with("tenant", tenant.as_str()).with("service", service.as_str()).into());
    }
    attempt.remove(tenant_databases::Entity, key, "forget a tenant's database").await?;
    Ok(Outcome::removed(proposed))
}

fn key(tenant: &TenantId, service: &ServiceId) -> (String, String) {
    (tenant.to_string(), service.to_string())
}

/// The tenant's data key; a new one if it has none.
async fn data_key(attempt: &Attempt<'_>, vault: &Vault, tenant: &TenantId) -> Result<SealedKey, Error> {
    let found = attempt.find::<tenant_keys::Entity>(tenant.as_str(), "read a tenant's data key").await?;
    if let Some(row) = found {
        return Ok(SealedKey::new(row.sealed_key));
    }
    let key = vault.new_key(tenant.as_str());
    let row = tenant_keys::Model { tenant: tenant.to_string(), sealed_key: key.as_str().to_owned() };
    attempt.write(tenant_keys::Entity, [row], "write a tenant's data key").await?;
    Ok(key)
}

/// A data key that does not open. What the vault says names master keys by their ids only.
fn unusable(error: &grey_vault::Error) -> ApiError {
    tracing::error!(error = %chain(error), "data key does not open");
    let message =
        format!("the tenant's data key cannot be used: {error}; configure its master key in [vault]");
    ApiError::new(Reason::Unavailable, message)
}
