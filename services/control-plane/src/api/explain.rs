//! Explains the decision of a call as of any revision of the log.
//!
//! The log tells everything that a decision depends on but the instances, which come and go without an event: those are
//! always the present ones. So the version is exact for every revision, the instance only for the present. Of a past
//! revision only the histories of the call's tenant and service are read, from the checkpoint before it on.

use std::time::Duration;

use grey_core::balance::Moment;
use grey_core::change::{Position, Revision};
use grey_core::decide::{Call, Metadata};
use grey_core::error::Reason;
use grey_core::explain::explain;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::record::{Record, ServiceRecord, TenantRecord};
use grey_core::table::Table;
use grey_edge::Caller;
use grey_proto::control::{ExplainAtRequest, ExplainAtResponse};
use grey_proto::convert::InvalidMessage;
use grey_proto::decision;
use grey_proto::router::RouteRequest;
use grey_proto::status::ApiError;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter};
use tokio::time::timeout;

use super::{Api, id, invalid, unavailable};
use crate::database::{Database, head};
use crate::entity::checkpoints::Part;
use crate::entity::{holds, observed_schemas, overlays, pins, policies, services, tenants, versions};

/// For reading the instances.
const INSTANCES_DEADLINE: Duration = Duration::from_secs(5);
/// Most entries and bytes of a call's metadata, as the router takes them.
const MAX_METADATA: (usize, usize) = (64, 8 << 10);

impl Api {
    /// Explains a decision.
    ///
    /// # Errors
    /// A malformed call, a revision that is not in the log, too many such calls at once, or database or shared state are away.
    pub async fn explain_at(
        &self,
        _: &Caller,
        request: ExplainAtRequest,
    ) -> Result<ExplainAtResponse, ApiError> {
        let call = request.call.ok_or_else(|| InvalidMessage::missing("call"))?;
        let tenant: TenantId = id("call.tenant", &call.tenant)?;
        let service: ServiceId = id("call.service", &call.service)?;
        check_size(&call)?;
        let lane = &self.0.lanes.explanations;
        let table = self.table_at(lane.database(), &tenant, &service, Revision(request.revision));
        let table = lane.run(Box::pin(table)).await?;
        let explained = explain(&table, &core_call(&call), &Moment::default());
        let outcome = explained.outcome.map(|decided| decision::response(&table, &decided, false));
        let explanation = decision::explanation(&table, outcome.map_err(ApiError::from), explained.steps);
        Ok(ExplainAtResponse { explanation: Some(explanation) })
    }

    /// A table of one tenant and one service as of a revision, with the present instances; 0: the present one.
    async fn table_at(
        &self,
        database: &Database,
        tenant: &TenantId,
        service: &ServiceId,
        revision: Revision,
    ) -> Result<Table, ApiError> {
        let head = database.head().await?;
        if revision > head.revision {
            let message = format!("the log ends at revision {}, before {revision}", head.revision);
            return Err(ApiError::new(Reason::RevisionUnavailable, message));
        }
        let mut table = if revision == Revision(0) || revision == head.revision {
            present_table(database, tenant, service).await?
        } else {
            past_table(database, tenant, service, Position { epoch: head.epoch, revision }).await?
        };
        match timeout(INSTANCES_DEADLINE, self.0.state.instances.list(service)).await {
            Ok(Ok(list)) => table.set_instances(service, list.instances),
            _ => return Err(unavailable("the service's instances cannot be read; retry later")),
        }
        Ok(table)
    }
}

async fn past_table(
    database: &Database,
    tenant: &TenantId,
    service: &ServiceId,
    position: Position,
) -> Result<Table, ApiError> {
    let mut table = Table::default();
    for part in [Part::of_service(service), Part::of_tenant(tenant, service)] {
        if let Some(record) = database.part_at(&part, position.revision).await? {
            table.insert(record);
        }
    }
    table.set_position(position);
    Ok(table)
}

/// The present state needs no fold: it is a handful of rows.
async fn present_table(
    database: &Database,
    tenant: &TenantId,
    service: &ServiceId,
) -> Result<Table, ApiError> {
    let snapshot = database.begin_snapshot().await?;
    let position = database.read("read the log's head", head(&snapshot)).await?;
    let position: Position = position.try_into()?;
    let mut table = Table::default();
    let row = services::Entity::find_by_id(service.as_str()).one(&snapshot);
    if let Some(row) = database.read("read a service", row).await? {
        table.insert(Record::Service(service_record(database, &snapshot, &row).await?));
    }
    let row = tenants::Entity::find_by_id(tenant.as_str()).one(&snapshot);
    if let Some(row) = database.read("read a tenant", row).await? {
        let key = (tenant.to_string(), service.to_string());
        let pin = pins::Entity::find_by_id(key.clone()).one(&snapshot);
        let pin = database.read("read a pin", pin).await?;
        let seen = observed_schemas::Entity::find_by_id(key.clone()).one(&snapshot);
        let seen = database.read("read an observed schema", seen).await?;
        let pins = pin.iter().map(pins::Model::pin).collect::<Result<_, _>>()?;
        let schemas = seen.iter().map(observed_schemas::Model::observation).collect::<Result<_, _>>()?;
        let hold = holds::Entity::find_by_id(key).one(&snapshot);
        let hold = database.read("read a hold", hold).await?;
        let holds = hold.iter().map(holds::Model::hold).collect::<Result<_, _>>()?;
        table.insert(Record::Tenant(TenantRecord { tenant: row.tenant()?, pins, schemas, holds }));
    }
    database.read("end a snapshot", snapshot.commit()).await?;
    table.set_position(position);
    Ok(table)
}

async fn service_record(
    database: &Database,
    snapshot: &DatabaseTransaction,
    row: &services::Model,
) -> Result<ServiceRecord, ApiError> {
    let mut record = ServiceRecord::from(row.service()?);
    let declared = versions::Entity::find().filter(versions::Column::Service.eq(row.id.as_str()));
    let declared = database.read("read a service's versions", declared.all(snapshot)).await?;
    record.versions = declared.iter().map(versions::Model::version).collect::<Result<_, _>>()?;
    let policy = policies::Entity::find_by_id(row.id.as_str()).one(snapshot);
    if let Some(policy) = database.read("read a service's policy", policy).await? {
        record.policy = policy.policy()?;
    }
    let laid = overlays::Entity::find().filter(overlays::Column::Service.eq(row.id.as_str()));
    let laid = database.read("read a service's overlays", laid.all(snapshot)).await?;
    record.overlays = laid.iter().map(overlays::Model::overlay).collect::<Result<_, _>>()?;
    Ok(record)
}

fn check_size(call: &RouteRequest) -> Result<(), ApiError> {
    let bytes: usize = call.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    let (entries_limit, bytes_limit) = MAX_METADATA;
    if call.metadata.len() > entries_limit || bytes > bytes_limit {
        let why = format!("at most {entries_limit} entries and {bytes_limit} bytes are allowed");
        return Err(invalid("call.metadata", why));
    }
    Ok(())
}

/// The call as core sees it. It has no role: nobody's credentials came with it, so no override is obeyed.
fn core_call(call: &RouteRequest) -> Call<'_> {
    Call {
        metadata: Metadata::Map(&call.metadata),
        user: &call.user,
        request_key: &call.request_key,
        region: &call.region,
        zone: &call.zone,
        override_version: &call.override_version,
        ..Call::new(&call.tenant, &call.service)
    }
}
