//! Tenants and their observed schemas.

use grey_core::change::{Change, Position};
use grey_core::ids::{Name, ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::tenant::Tenant;
use grey_edge::Caller;
use grey_proto::control::{
    self, DeleteTenantRequest, DeleteTenantResponse, GetTenantRequest, GetTenantResponse, ListTenantsRequest,
    ListTenantsResponse, ObserveSchemaRequest, ObserveSchemaResponse, PutTenantRequest, PutTenantResponse,
    WriteOptions,
};
use grey_proto::convert::{InvalidMessage, change_at, mask, tenant_status};
use grey_proto::status::ApiError;
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect, Statement};
use serde::Serialize;

use super::{Api, Written, cut, entity_tag, id, one_more, optional_id, page_size, partial, required};
use crate::command::{now_ms, unknown_tenant};
use crate::database::head;
use crate::entity::{holds, observed_schemas, pins, tenants, unsigned};

/// The version that each service has for one tenant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveServices {
    /// The tenant.
    pub tenant: String,
    /// By service.
    pub services: Vec<EffectiveService>,
    /// Give it with the next call; empty: this was the last page.
    pub next_page_token: String,
}

/// The version that one service has for one tenant, before experiments and canaries.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveService {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// `pin` or `default`.
    pub source: &'static str,
    /// Experiments and canaries leave a locked pin alone.
    pub locked: bool,
    /// The tenant's observed schema; empty if none was observed.
    pub schema: String,
    /// The pin's entity tag, for `If-Match`; none without a pin.
    pub etag: Option<String>,
}

#[derive(Debug, FromQueryResult)]
struct EffectiveRow {
    id: String,
    default_version: String,
    version: Option<String>,
    locked: Option<bool>,
    revision: Option<i64>,
    schema_version: Option<String>,
    epoch: i64,
}

const EFFECTIVE: &str = "SELECT s.id, s.default_version, p.version, p.locked, p.revision, o.schema_version, \
    (SELECT epoch FROM log_head) AS epoch FROM services s LEFT JOIN pins p ON p.tenant = $1 AND p.service = s.id \
    LEFT JOIN observed_schemas o ON o.tenant = $1 AND o.service = s.id \
    WHERE s.id > $2 ORDER BY s.id LIMIT $3";

impl Api {
    /// Reads one tenant with what is tied to it, as of one moment.
    ///
    /// # Errors
    /// A malformed id, an unknown tenant, or the database is away.
    pub async fn get_tenant(
        &self,
        _: &Caller,
        request: GetTenantRequest,
    ) -> Result<GetTenantResponse, ApiError> {
        let tenant: TenantId = id("id", &request.id)?;
        let database = &self.0.database;
        let snapshot = database.begin_snapshot().await?;
        let epoch = database.read("read the log's head", head(&snapshot)).await?;
        let epoch = Position::try_from(epoch)?.epoch.0;
        let row = tenants::dated(tenants::Entity::find_by_id(tenant.as_str())).one(&snapshot);
        let row =
            database.read("read a tenant", row).await?.ok_or_else(|| unknown_tenant(tenant.as_str()))?;
        let held = pins::Entity::find()
            .filter(pins::Column::Tenant.eq(tenant.as_str()))
            .order_by_asc(pins::Column::Service);
        let held = database.read("read a tenant's pins", held.all(&snapshot)).await?;
        let seen = observed_schemas::Entity::find()
            .filter(observed_schemas::Column::Tenant.eq(tenant.as_str()))
            .order_by_asc(observed_schemas::Column::Service);
        let seen = database.read("read a tenant's schemas", seen.all(&snapshot)).await?;
        let moving = holds::Entity::find()
            .filter(holds::Column::Tenant.eq(tenant.as_str()))
            .order_by_asc(holds::Column::Service);
        let moving = database.read("read a tenant's holds", moving.all(&snapshot)).await?;
        database.read("end a snapshot", snapshot.commit()).await?;
        Ok(GetTenantResponse {
            tenant: Some(row.message()?),
            pins: held.iter().map(pins::Model::message).collect::<Result<_, _>>()?,
            schemas: seen.iter().map(observed_schemas::Model::message).collect::<Result<_, _>>()?,
            epoch,
            holds: moving.iter().map(holds::Model::message).collect::<Result<_, _>>()?,
        })
    }

    /// Lists tenants by id.
    ///
    /// # Errors
    /// A malformed filter or page, or the database is away.
    pub async fn list_tenants(
        &self,
        _: &Caller,
        request: ListTenantsRequest,
    ) -> Result<ListTenantsResponse, ApiError> {
        let size = page_size("page_size", request.page_size)?;
        let mut query = tenants::Entity::find().order_by_asc(tenants::Column::Id).limit(one_more(size));
        if let Some(after) = optional_id::<TenantId>("page_token", &request.page_token)? {
            query = query.filter(tenants::Column::Id.gt(after.as_str()));
        }
        if let Some(tier) = optional_id::<Name>("tier", &request.tier)? {
            query = query.filter(tenants::Column::Tier.eq(tier.as_str()));
        }
        if let Some(region) = optional_id::<Name>("region", &request.region)? {
            query = query.filter(tenants::Column::Region.eq(region.as_str()));
        }
        if request.status != 0 {
            let status = tenant_status(request.status)?;
            query = query.filter(tenants::Column::Status.eq(status.as_str()));
        }
        let lists = &self.0.lanes.lists;
        let rows = tenants::dated(query).all(lists.database().readers());
        let rows = lists.read("list tenants", rows).await?;
        let mut tenants: Vec<control::Tenant> =
            rows.iter().map(tenants::Dated::message).collect::<Result<_, _>>()?;
        let more = cut(&mut tenants, size);
        let last = tenants.last().map(|tenant| tenant.id.clone()).filter(|_| more);
        Ok(ListTenantsResponse { tenants, next_page_token: last.unwrap_or_default() })
    }

    /// Creates a tenant or replaces its attributes; with a mask, sets those that it names.
    ///
    /// # Errors
    /// As for every write: see [`crate::command::Error`]; with a mask, a tenant that is unknown too.
    pub async fn put_tenant(
        &self,
        caller: &Caller,
        request: PutTenantRequest,
    ) -> Result<PutTenantResponse, ApiError> {
        let PutTenantRequest { tenant, write, update_mask } = request;
        if update_mask.is_empty() {
            return self.replace_tenant(caller, tenant, write).await;
        }
        let given = tenant.ok_or_else(|| InvalidMessage::missing("tenant"))?;
        let mut attempts = partial::Attempts::of(write.as_ref());
        loop {
            let asked = GetTenantRequest { id: given.id.clone() };
            let GetTenantResponse { tenant, epoch, .. } = self.get_tenant(caller, asked).await?;
            let present = tenant.unwrap_or_default();
            let tag = (epoch, present.revision);
            let merged = mask::merge(&present, &given, &update_mask, partial::TENANT)?;
            let written =
                self.replace_tenant(caller, Some(merged), partial::conditional(write.clone(), tag)).await;
            if !attempts.again(&written) {
                return written;
            }
        }
    }

    async fn replace_tenant(
        &self,
        caller: &Caller,
        tenant: Option<control::Tenant>,
        write: Option<WriteOptions>,
    ) -> Result<PutTenantResponse, ApiError> {
        let tenant: Tenant = required("tenant", tenant)?;
        let mut message = control::Tenant::from(&tenant);
        let change = Change::Put(Fact::Tenant(Box::new(tenant)));
        let Written { result, revision, .. } = self.write(caller, change, write).await?;
        message.revision = revision;
        Ok(PutTenantResponse { result: Some(result), tenant: Some(message) })
    }

    /// Removes a tenant with its pins and observed schemas.
    ///
    /// # Errors
    /// As for every write, or the tenant is unknown.
    pub async fn delete_tenant(
        &self,
        caller: &Caller,
        request: DeleteTenantRequest,
    ) -> Result<DeleteTenantResponse, ApiError> {
        let change = Change::Removed(Key::Tenant(id("id", &request.id)?));
        let written = self.write(caller, change, request.write).await?;
        Ok(DeleteTenantResponse { result: Some(written.result) })
    }

    /// Records the schema seen in a tenant's database.
    ///
    /// # Errors
    /// As for every write, or tenant or service is unknown.
    pub async fn observe_schema(
        &self,
        caller: &Caller,
        request: ObserveSchemaRequest,
    ) -> Result<ObserveSchemaResponse, ApiError> {
        let seen = request.schema.ok_or_else(|| InvalidMessage::missing("schema"))?;
        let change = control::Change { change: Some(control::change::Change::SchemaObserved(seen)) };
        let change = change_at(change, now_ms()).map_err(|mut invalid| {
            invalid.field = invalid.field.replacen("schema_observed", "schema", 1);
            invalid
        })?;
        let written = self.write(caller, change, request.write).await?;
        Ok(ObserveSchemaResponse { result: Some(written.result) })
    }

    /// The version of every service for one tenant, by service: its pin, else the service's default.
    ///
    /// # Errors
    /// A malformed id or page, an unknown tenant, or the database is away.
    pub async fn effective_services(
        &self,
        _: &Caller,
        tenant: &str,
        page: (u32, &str),
    ) -> Result<EffectiveServices, ApiError> {
        let tenant: TenantId = id("id", tenant)?;
        let size = page_size("pageSize", page.0)?;
        let after: Option<ServiceId> = optional_id("pageToken", page.1)?;
        let after = after.as_ref().map_or("", ServiceId::as_str);
        let database = &self.0.database;
        let known = tenants::Entity::find_by_id(tenant.as_str()).one(database.readers());
        if database.read("read a tenant", known).await?.is_none() {
            return Err(unknown_tenant(tenant.as_str()));
        }
        let limit = i64::try_from(one_more(size)).unwrap_or(i64::MAX);
        let values = [tenant.as_str().into(), after.into(), limit.into()];
        let lists = &self.0.lanes.lists;
        let readers = lists.database().readers();
        let statement = Statement::from_sql_and_values(readers.get_database_backend(), EFFECTIVE, values);
        let rows = EffectiveRow::find_by_statement(statement).all(readers);
        let mut rows = lists.read("read a tenant's services", rows).await?;
        let more = rows.len() > size;
        rows.truncate(size);
        let last = rows.last().map(|row| row.id.clone()).filter(|_| more);
        let services = rows.into_iter().map(effective).collect::<Result<_, _>>()?;
        Ok(EffectiveServices {
            tenant: tenant.to_string(),
            services,
            next_page_token: last.unwrap_or_default(),
        })
    }
}

fn effective(row: EffectiveRow) -> Result<EffectiveService, ApiError> {
    let revision = row.revision.map(|revision| unsigned("pins", revision)).transpose()?;
    let epoch = unsigned("log_head", row.epoch)?;
    Ok(EffectiveService {
        service: row.id,
        source: if row.version.is_some() { "pin" } else { "default" },
        version: row.version.unwrap_or(row.default_version),
        locked: row.locked.unwrap_or_default(),
        schema: row.schema_version.unwrap_or_default(),
        etag: revision.map(|revision| entity_tag((epoch, revision))),
    })
}
