//! Registered databases of tenants: what their URLs say, and the rotation of the keys that they are sealed with. A
//! rotation changes no fact, so it is no event: transactions of its own, in order with the commands.

mod place;

use std::sync::Arc;

use grey_core::error::Reason;
use grey_database_url::Guard;
use grey_proto::status::ApiError;
use grey_vault::{SealedKey, Vault};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect,
};

use crate::command::Error;
use crate::database::{self, Database};
use crate::entity::tenant_keys;

pub(crate) use place::read as place;

/// Takes registrations in: says where a URL may lead, and seals it.
pub(crate) struct Registrar {
    /// Without it no credentials are taken.
    pub(crate) vault: Option<Arc<Vault>>,
    pub(crate) guard: Guard,
}

/// Data keys sealed anew in one transaction.
const BATCH: u64 = 200;
/// Most tenants that an error names.
const NAMED: usize = 10;

impl Database {
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
