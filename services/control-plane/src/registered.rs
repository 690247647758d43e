//! Registered databases of tenants. Writing one is a transaction of its own, in order with the commands, but no event:
//! routers need none of it, and the log is for ever.

mod place;

use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_proto::control::DatabaseKind;
use grey_proto::status::ApiError;
use grey_runtime::Secret;
use grey_vault::{SealedKey, Vault};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, Iterable,
    PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
};

use crate::command::{Error, chain, now_ms, unknown_service, unknown_tenant};
use crate::database::{self, Database};
use crate::entity::{services, signed, tenant_databases, tenant_keys, tenants};

pub(crate) use place::{Place, read as place};

/// Data keys sealed anew in one transaction.
const BATCH: u64 = 200;
/// Most tenants that an error names.
const NAMED: usize = 10;

/// A database to be registered.
pub(crate) struct Registration {
    pub(crate) tenant: TenantId,
    pub(crate) service: ServiceId,
    pub(crate) kind: DatabaseKind,
    pub(crate) schema: String,
    pub(crate) place: Place,
    pub(crate) url: Secret,
    pub(crate) actor: String,
}

impl Database {
    /// Seals and stores a registration.
    pub(crate) async fn register(
        &self,
        vault: &Vault,
        registration: Registration,
    ) -> Result<tenant_databases::Model, Error> {
        let Registration { tenant, service, kind, schema, place, url, actor } = registration;
        let transaction = self.begin_in_order().await?;
        let known = tenants::Entity::find_by_id(tenant.as_str()).count(&transaction);
        if self.read("read a tenant", known).await? == 0 {
            return Err(unknown_tenant(tenant.as_str()).into());
        }
        let known = services::Entity::find_by_id(service.as_str()).count(&transaction);
        if self.read("read a service", known).await? == 0 {
            return Err(unknown_service(service.as_str()).into());
        }
        let key = self.key(&transaction, vault, &tenant).await?;
        let sealed_url = vault
            .seal(tenant.as_str(), &key, service.as_str(), url.expose())
            .map_err(|error| unusable(&error))?;
        let row = tenant_databases::Model {
            tenant: tenant.to_string(),
            service: service.to_string(),
            kind: kind.as_str_name().to_owned(),
            schema_name: schema,
            dialect: place.dialect.to_owned(),
            server: place.server,
            database_name: place.database,
            sealed_url,
            actor,
            updated_at_ms: signed(now_ms()),
        };
        let replace =
            OnConflict::columns([tenant_databases::Column::Tenant, tenant_databases::Column::Service])
                .update_columns(tenant_databases::Column::iter())
                .to_owned();
        let insert = tenant_databases::Entity::insert(row.clone().into_active_model()).on_conflict(replace);
        self.read("write a tenant's database", insert.exec_without_returning(&transaction)).await?;
        self.commit(transaction).await?;
        Ok(row)
    }

    /// Forgets a registration; tells whether there was one.
    pub(crate) async fn unregister(&self, tenant: &TenantId, service: &ServiceId) -> Result<bool, Error> {
        let transaction = self.begin_in_order().await?;
        let key = (tenant.to_string(), service.to_string());
        let delete = tenant_databases::Entity::delete_by_id(key).exec(&transaction);
        let deleted = self.read("forget a tenant's database", delete).await?;
        self.commit(transaction).await?;
        Ok(deleted.rows_affected > 0)
    }

    /// Seals every data key under the active master key, a batch at a time; returns how many were not sealed so.
    ///
    /// Whatever interrupts it, each key is sealed under the one or the other master key, and the next call goes on.
    pub(crate) async fn rotate_keys(&self, vault: &Vault) -> Result<u64, Error> {
        let (mut rotated, mut after, mut unopened) = (0, String::new(), Vec::new());
        loop {
            let transaction = self.begin_in_order().await?;
            let batch = tenant_keys::Entity::find()
                .filter(tenant_keys::Column::Tenant.gt(after.as_str()))
                .order_by_asc(tenant_keys::Column::Tenant)
                .limit(BATCH);
            let batch = self.read("read data keys", batch.all(&transaction)).await?;
            let Some(last) = batch.last() else { break };
            after.clone_from(&last.tenant);
            for row in batch {
                match vault.reseal(&row.tenant, &SealedKey::new(row.sealed_key)) {
                    Ok(None) => {}
                    Ok(Some(key)) => {
                        self.write_key(&transaction, &row.tenant, &key).await?;
                        rotated += 1;
                    }
                    Err(error) => {
                        tracing::error!(tenant.id = row.tenant, error = %error, "data key does not open");
                        unopened.push(row.tenant);
                    }
                }
            }
            self.commit(transaction).await?;
        }
        if unopened.is_empty() {
            return Ok(rotated);
        }
        let named: Vec<&str> = unopened.iter().take(NAMED).map(String::as_str).collect();
        let message = format!(
            "{rotated} data keys were sealed anew, but {} do not open with the master keys configured here, among \
             them those of {}; configure their master keys and rotate again",
            unopened.len(),
            named.join(", ")
        );
        Err(ApiError::new(Reason::Unavailable, message).with("rotated", rotated.to_string()).into())
    }

    /// The tenant's data key; a new one if it has none.
    async fn key(
        &self,
        transaction: &DatabaseTransaction,
        vault: &Vault,
        tenant: &TenantId,
    ) -> Result<SealedKey, Error> {
        let found = tenant_keys::Entity::find_by_id(tenant.as_str()).one(transaction);
        if let Some(row) = self.read("read a tenant's data key", found).await? {
            return Ok(SealedKey::new(row.sealed_key));
        }
        let key = vault.new_key(tenant.as_str());
        self.write_key(transaction, tenant.as_str(), &key).await?;
        Ok(key)
    }

    async fn write_key(
        &self,
        transaction: &DatabaseTransaction,
        tenant: &str,
        key: &SealedKey,
    ) -> Result<(), Error> {
        let row = tenant_keys::Model { tenant: tenant.to_owned(), sealed_key: key.as_str().to_owned() };
        let replace = OnConflict::column(tenant_keys::Column::Tenant)
            .update_column(tenant_keys::Column::SealedKey)
            .to_owned();
        let insert = tenant_keys::Entity::insert(row.into_active_model()).on_conflict(replace);
        self.read("write a tenant's data key", insert.exec_without_returning(transaction)).await?;
        Ok(())
    }

    /// Begins a transaction that no command runs beside: holding the log's head, as commands do.
    async fn begin_in_order(&self) -> Result<DatabaseTransaction, database::Error> {
        let transaction = self.begin_write().await?;
        let hold = transaction.execute_unprepared("UPDATE log_head SET revision = revision WHERE id = 1");
        self.read("hold the log's head", hold).await?;
        Ok(transaction)
    }

    async fn commit(&self, transaction: DatabaseTransaction) -> Result<(), Error> {
        let committed = self.read("commit tenants' databases", transaction.commit()).await;
        committed
            .map_err(|error| if error.is_refusal() { Error::Database(error) } else { Error::Unknown(error) })
    }
}

/// A data key that does not open. What the vault says names master keys by their ids only.
fn unusable(error: &grey_vault::Error) -> ApiError {
    tracing::error!(error = %chain(error), "data key does not open");
    let message =
        format!("the tenant's data key cannot be used: {error}; configure its master key in [vault]");
    ApiError::new(Reason::Unavailable, message)
}
