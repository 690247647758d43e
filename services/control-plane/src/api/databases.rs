//! The tenants' databases. Credentials come in and are sealed; nothing here gives them out.

use std::sync::Arc;

use grey_core::change::Change;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::schema::{Observation, SchemaVersion};
use grey_core::tenant::{Tenant, TenantStatus};
use grey_edge::Caller;
use grey_proto::control::{
    self, DatabaseKind, DeleteDatabaseRequest, DeleteDatabaseResponse, ListDatabasesRequest,
    ListDatabasesResponse, ListSealedDatabasesRequest, ListSealedDatabasesResponse, PutDatabaseRequest,
    PutDatabaseResponse, RotateKeysRequest, RotateKeysResponse, SealedDatabase,
};
use grey_proto::convert::{InvalidMessage, timestamp};
use grey_proto::status::ApiError;
use grey_runtime::Secret;
use grey_vault::Vault;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Select};

use super::pairs::{self, Pairs};
use super::{Api, Written, command, cut, id, invalid, optional_id, page_size, unavailable, wait};
use crate::command::{Command, Credentials, Intent, Proposed, now_ms, unknown_tenant};
use crate::entity::tenant_databases::{Column, Entity};
use crate::entity::{tenant_keys, tenants, unsigned};
use crate::registered;

/// Most tenants that one listing may name.
const MAX_TENANTS: usize = 1_000;

impl Api {
    /// Registers a tenant's database for a service, or replaces it; by the same event, the schema that was seen in it is
    /// recorded and the tenant becomes active, as the request says.
    ///
    /// # Errors
    /// As for every write, or a malformed or contradictory registration, an unknown tenant or service, or no master key
    /// to seal with. No error repeats the URL.
    pub async fn put_database(
        &self,
        caller: &Caller,
        request: PutDatabaseRequest,
    ) -> Result<PutDatabaseResponse, ApiError> {
        let (url, direct_url) = (Secret::new(request.url), Secret::new(request.direct_url));
        let wanted = request.database.ok_or_else(|| InvalidMessage::missing("database"))?;
        let (tenant, service) =
            (id("database.tenant", &wanted.tenant)?, id("database.service", &wanted.service)?);
        let kind = DatabaseKind::try_from(wanted.kind);
        let kind = kind.map_err(|_| invalid("database.kind", "is not one of the kinds"))?;
        let kind = if kind == DatabaseKind::Unspecified { DatabaseKind::Database } else { kind };
        let (guard, schema) = (&self.0.registrar.guard, &wanted.schema);
        let database = registered::place(guard, kind.into(), schema, url.expose(), direct_url.expose());
        let beside = |fault: &InvalidMessage| fault.field == "url" || fault.field == "direct_url";
        let database =
            database.map_err(|fault| if beside(&fault) { fault } else { fault.under("database") })?;
        let mut told = control::TenantDatabase::from((&tenant, &service, &database));
        let credentials = Some(Credentials { url, direct_url, vault: Arc::clone(self.vault()?) });
        let options = request.write.unwrap_or_default();
        let wait = wait(options.wait, "write.wait")?;
        // First, since what comes after belongs to the tenant and is of the event's revision.
        let mut changes = Vec::new();
        if request.activate {
            changes.extend(self.activation(&tenant).await?);
        }
        let observed: Option<SchemaVersion> = optional_id("observed_schema", &request.observed_schema)?;
        let seen = observed.map(|schema| {
            let seen = Observation { schema, at_ms: now_ms() };
            Change::Put(Fact::Schema(tenant.clone(), service.clone(), seen))
        });
        let change = Change::Put(Fact::Database(tenant, service, Box::new(database)));
        changes.push(Proposed { change, expected: options.expected_revision });
        changes.extend(seen.map(|change| Proposed { change, expected: None }));
        let intent = Intent::Changes(changes);
        let command = Command { credentials, ..command(caller, options, intent)? };
        let (committed, result) = self.run(command, wait).await?;
        if !result.dry_run {
            tracing::info!(
                tenant.id = told.tenant,
                service.id = told.service,
                actor = %caller,
                database.server = told.server,
                "registered a tenant's database"
            );
            told.revision = result.revision;
            told.updated_at = Some(timestamp(committed.at_ms));
        }
        told.actor = caller.to_string();
        Ok(PutDatabaseResponse { database: Some(told), result: Some(result) })
    }

    /// The change that makes a tenant active, if nobody changes it in between; none if it is active.
    async fn activation(&self, tenant: &TenantId) -> Result<Option<Proposed>, ApiError> {
        let database = &self.0.database;
        let row = tenants::dated(tenants::Entity::find_by_id(tenant.as_str())).one(database.readers());
        let found = database.read("read a tenant", row).await?;
        let found = found.ok_or_else(|| unknown_tenant(tenant.as_str()))?;
        let present = found.row.tenant()?;
        if present.status == TenantStatus::Active {
            return Ok(None);
        }
        let expected = Some(unsigned("tenants", found.revision)?);
        let active = Tenant { status: TenantStatus::Active, ..present };
        Ok(Some(Proposed { change: Change::Put(Fact::Tenant(Box::new(active))), expected }))
    }

    /// Lists registered databases, without credentials, by tenant and service.
    ///
    /// # Errors
    /// A malformed filter or page, or the control database is away.
    pub async fn list_databases(
        &self,
        _: &Caller,
        request: ListDatabasesRequest,
    ) -> Result<ListDatabasesResponse, ApiError> {
        let size = page_size("page_size", request.page_size)?;
        let tenant = optional_id("tenant", &request.tenant)?;
        let service = optional_id("service", &request.service)?;
        let query = page(&Pairs { tenant, service }, size, &request.page_token)?;
        let lists = &self.0.lanes.lists;
        let rows =
            lists.read("list tenants' databases", Box::pin(query.all(lists.database().readers()))).await?;
        let mut databases = Vec::with_capacity(rows.len());
        for row in &rows {
            databases.push(row.message()?);
        }
        let more = cut(&mut databases, size);
        let next_page_token = databases.last().filter(|_| more).map(token).unwrap_or_default();
        Ok(ListDatabasesResponse { databases, next_page_token })
    }

    /// Forgets a tenant's database for a service; the database itself is left alone.
    ///
    /// # Errors
    /// As for every write, or there is no such registration.
    pub async fn delete_database(
        &self,
        caller: &Caller,
        request: DeleteDatabaseRequest,
    ) -> Result<DeleteDatabaseResponse, ApiError> {
        let tenant: TenantId = id("tenant", &request.tenant)?;
        let service: ServiceId = id("service", &request.service)?;
        let change = Change::Removed(Key::Database(tenant.clone(), service.clone()));
        let Written { result, .. } = self.write(caller, change, request.write).await?;
        if !result.dry_run {
            tracing::info!(tenant.id = %tenant, service.id = %service, actor = %caller, "forgot a tenant's database");
        }
        Ok(DeleteDatabaseResponse { result: Some(result) })
    }

    /// Lists registered databases with sealed credentials: nobody without the master keys can use them.
    ///
    /// # Errors
    /// A malformed filter or page, or the control database is away.
    pub async fn list_sealed_databases(
        &self,
        _: &Caller,
        request: ListSealedDatabasesRequest,
    ) -> Result<ListSealedDatabasesResponse, ApiError> {
        let size = page_size("page_size", request.page_size)?;
        let service = optional_id("service", &request.service)?;
        let mut query = page(&Pairs { tenant: None, service }, size, &request.page_token)?;
        if request.tenants.len() > MAX_TENANTS {
            return Err(invalid("tenants", format!("must be at most {MAX_TENANTS}")));
        }
        if !request.tenants.is_empty() {
            let tenants: Result<Vec<TenantId>, _> =
                request.tenants.iter().map(|tenant| id("tenants", tenant)).collect();
            query = query.filter(Column::Tenant.is_in(tenants?.iter().map(TenantId::as_str)));
        }
        let database = &self.0.database;
        // Of one moment: a tenant may be removed and created again with another key.
        let snapshot = database.begin_snapshot().await?;
        let rows = database.read("list sealed databases", query.all(&snapshot)).await?;
        let keys = tenant_keys::Entity::find()
            .filter(tenant_keys::Column::Tenant.is_in(rows.iter().map(|row| row.tenant.as_str())));
        let keys = database.read("list data keys", keys.all(&snapshot)).await?;
        database.read("end a snapshot", snapshot.commit()).await?;
        let keys: std::collections::BTreeMap<_, _> =
            keys.into_iter().map(|row| (row.tenant, row.sealed_key)).collect();
        let mut databases = Vec::with_capacity(rows.len());
        for row in rows {
            let sealed_key = keys.get(&row.tenant).cloned().unwrap_or_default();
            let database = Some(row.message()?);
            let (sealed_url, sealed_direct_url) = (row.sealed_url, row.sealed_direct_url);
            databases.push(SealedDatabase { database, sealed_url, sealed_key, sealed_direct_url });
        }
        let more = cut(&mut databases, size);
        let last = databases.last().filter(|_| more).and_then(|sealed| sealed.database.as_ref());
        let next_page_token = last.map(token).unwrap_or_default();
        Ok(ListSealedDatabasesResponse { databases, next_page_token })
    }

    /// Seals every tenant's data key under the active master key.
    ///
    /// # Errors
    /// No master key is configured, some data key is sealed under one that is not, or the control database is away.
    /// Keys that were sealed anew by then stay so.
    pub async fn rotate_keys(
        &self,
        caller: &Caller,
        _: RotateKeysRequest,
    ) -> Result<RotateKeysResponse, ApiError> {
        let vault = self.vault()?;
        let rotated = self.0.database.rotate_keys(vault).await?;
        tracing::info!(rotated, actor = %caller, vault.key = vault.active(), "rotated data keys");
        Ok(RotateKeysResponse { rotated, active_key: vault.active().to_owned() })
    }

    fn vault(&self) -> Result<&Arc<Vault>, ApiError> {
        self.0.registrar.vault.as_ref().ok_or_else(|| {
            unavailable(
                "this control plane has no master key to seal credentials with: configure `keys` and `active` in \
                 [vault], or GREY__VAULT__KEYS and GREY__VAULT__ACTIVE",
            )
        })
    }
}

fn page(of: &Pairs, size: usize, page_token: &str) -> Result<Select<Entity>, ApiError> {
    of.page((Column::Tenant, Column::Service), size, page_token)
}

fn token(database: &control::TenantDatabase) -> String {
    pairs::token(&database.tenant, &database.service)
}
