//! Explains the decision of a call as of any revision of the log.
//!
//! The log tells everything that a decision depends on but the instances, which come and go without an event: those are
//! always the present ones. So the version is exact for every revision, the instance only for the present.

use std::time::Duration;

use grey_core::balance::Moment;
use grey_core::change::{Change, Event, Position, Record, Revision, ServiceRecord, TenantRecord};
use grey_core::decide::Call;
use grey_core::error::Reason;
use grey_core::explain::explain;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::policy::Policy;
use grey_core::table::Table;
use grey_edge::Caller;
use grey_proto::control::{ExplainAtRequest, ExplainAtResponse};
use grey_proto::convert::InvalidMessage;
use grey_proto::decision;
use grey_proto::router::RouteRequest;
use grey_proto::status::ApiError;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use tokio::time::timeout;

use super::{Api, id, invalid, unavailable};
use crate::database::head;
use crate::entity::{observed_schemas, pins, policies, services, tenants, versions};

/// Events folded at once.
const CHUNK: usize = 200;
/// For reading the instances.
const INSTANCES_DEADLINE: Duration = Duration::from_secs(5);
/// Most entries and bytes of a call's metadata, as the router takes them.
const MAX_METADATA: (usize, usize) = (64, 8 << 10);

impl Api {
    /// Explains a decision.
    ///
    /// # Errors
    /// A malformed call, a revision that is not in the log or too far from its start, or database or shared state
    /// are away.
    pub async fn explain_at(
        &self,
        _: &Caller,
        request: ExplainAtRequest,
    ) -> Result<ExplainAtResponse, ApiError> {
        let call = request.call.ok_or_else(|| InvalidMessage::missing("call"))?;
        let tenant: TenantId = id("call.tenant", &call.tenant)?;
        let service: ServiceId = id("call.service", &call.service)?;
        check_size(&call)?;
        let limit = self.0.limits.explain_timeout;
        let table = timeout(limit, self.table_at(&tenant, &service, Revision(request.revision))).await;
        let mut table =
            table.map_err(|_| unavailable(format!("explaining took longer than {limit:?}")))??;
        let state = timeout(INSTANCES_DEADLINE, self.0.state.instances.load()).await;
        let Ok(Ok((lists, _))) = state else {
            return Err(unavailable("the service's instances cannot be read; retry later"));
        };
        if let Some(list) = lists.into_iter().find(|list| list.service == service) {
            table.set_instances(&service, list.instances);
        }
        let explained = explain(&table, &core_call(&call), &Moment::default());
        let outcome = explained.outcome.map(|decided| decision::response(&table, &decided, false));
        let explanation = decision::explanation(&table, outcome.map_err(ApiError::from), explained.steps);
        Ok(ExplainAtResponse { explanation: Some(explanation) })
    }

    /// A table of one tenant and one service as of a revision; 0: the present one.
    async fn table_at(
        &self,
        tenant: &TenantId,
        service: &ServiceId,
        revision: Revision,
    ) -> Result<Table, ApiError> {
        let head = self.0.database.head().await?;
        if revision > head.revision {
            let message = format!("the log ends at revision {}, before {revision}", head.revision);
            return Err(ApiError::new(Reason::RevisionUnavailable, message));
        }
        if revision == Revision(0) || revision == head.revision {
            return self.present_table(tenant, service).await;
        }
        let limit = self.0.limits.max_explained_events;
        if revision.0 > limit {
            let message =
                format!("revision {revision} is {revision} events from the log's start, more than {limit}");
            return Err(ApiError::new(Reason::RevisionUnavailable, message));
        }
        let mut table = Table::default();
        table.set_position(Position { generation: head.generation, revision: Revision(0) });
        while table.position().revision < revision {
            let reached = table.position().revision;
            let left = usize::try_from(revision.0 - reached.0).unwrap_or(CHUNK);
            let events = self.0.database.events(reached, CHUNK.min(left)).await?;
            if events.is_empty() {
                return Err(unavailable("the log ended early"));
            }
            for event in events {
                let changes = event.changes.into_iter().filter(|change| concerns(change, tenant, service));
                let event = Event { changes: changes.collect(), ..event };
                table.apply(&event).map_err(|gap| ApiError::new(Reason::Internal, gap.to_string()))?;
            }
        }
        Ok(table)
    }

    /// The present state needs no fold: it is a handful of rows.
    async fn present_table(&self, tenant: &TenantId, service: &ServiceId) -> Result<Table, ApiError> {
        let database = &self.0.database;
        let snapshot = database.begin_snapshot().await?;
        let position = database.read("read the log's head", head(&snapshot)).await?;
        let position: Position = position.try_into()?;
        let mut table = Table::default();
        let row = services::Entity::find_by_id(service.as_str()).one(&snapshot);
        if let Some(row) = database.read("read a service", row).await? {
            let declared = versions::Entity::find().filter(versions::Column::Service.eq(service.as_str()));
            let declared = database.read("read a service's versions", declared.all(&snapshot)).await?;
            let policy = policies::Entity::find_by_id(service.as_str()).one(&snapshot);
            let policy = database.read("read a service's policy", policy).await?;
            let versions = declared.iter().map(versions::Model::version).collect::<Result<_, _>>()?;
            let policy = policy.map_or(Ok(Policy::default()), |row| row.policy())?;
            table.insert(Record::Service(ServiceRecord { service: row.service()?, versions, policy }));
        }
        let row = tenants::Entity::find_by_id(tenant.as_str()).one(&snapshot);
        if let Some(row) = database.read("read a tenant", row).await? {
            let key = (tenant.to_string(), service.to_string());
            let pin = pins::Entity::find_by_id(key.clone()).one(&snapshot);
            let pin = database.read("read a pin", pin).await?;
            let seen = observed_schemas::Entity::find_by_id(key).one(&snapshot);
            let seen = database.read("read an observed schema", seen).await?;
            let pins = pin.iter().map(pins::Model::pin).collect::<Result<_, _>>()?;
            let schemas = seen.iter().map(observed_schemas::Model::observation).collect::<Result<_, _>>()?;
            table.insert(Record::Tenant(TenantRecord { tenant: row.tenant()?, pins, schemas }));
        }
        database.read("end a snapshot", snapshot.commit()).await?;
        table.set_position(position);
        Ok(table)
    }
}

/// Whether a change can matter to this tenant's calls of this service.
fn concerns(change: &Change, tenant: &TenantId, service: &ServiceId) -> bool {
    match change {
        Change::TenantPut(put) => put.id == *tenant,
        Change::TenantRemoved(removed) => removed == tenant,
        Change::ServicePut(put) => put.id == *service,
        Change::ServiceRemoved(removed) => removed == service,
        Change::VersionPut(put) => put.service == *service,
        Change::VersionRemoved { service: of, .. } | Change::PolicyPut { service: of, .. } => of == service,
        Change::PinPut { tenant: who, service: of, .. }
        | Change::PinRemoved { tenant: who, service: of }
        | Change::SchemaObserved { tenant: who, service: of, .. } => who == tenant && of == service,
    }
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
        metadata: &call.metadata,
        user: &call.user,
        request_key: &call.request_key,
        region: &call.region,
        zone: &call.zone,
        override_version: &call.override_version,
        ..Call::new(&call.tenant, &call.service)
    }
}
