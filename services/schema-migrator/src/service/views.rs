//! Schemas of views: which there are, which one new sessions should use, and which may go.

use super::{Api, reason, service_id, tenant_id};
use crate::prepare::{database_error, invalid};
use crate::tenant::Connection;
use crate::views::{Recorded, drop_unused, list, switch};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use grey_core::text::is_plain;
use grey_edge::Caller;
use grey_proto::schema::{
    DropViewsRequest, DropViewsResponse, ListViewsRequest, ListViewsResponse, SwitchViewsRequest,
    SwitchViewsResponse, ViewSchema,
};
use grey_proto::status::ApiError;

/// Most roles, and most versions, of one request.
const MOST: usize = 100;

/// Longest name of a role in PostgreSQL, in bytes.
const LONGEST_ROLE: usize = 63;

impl Api {
    pub(super) async fn list_views(
        &self,
        _: &Caller,
        request: ListViewsRequest,
    ) -> Result<ListViewsResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let found = self.grounds.registered(&tenant, &service).await?;
        let connection = Box::pin(Connection::open(&found.target, self.grounds.timeouts())).await;
        let connection = connection.map_err(|error| database_error(&error))?;
        Ok(ListViewsResponse { views: Box::pin(self.views(&connection)).await? })
    }

    pub(super) async fn switch_views(
        &self,
        asker: &Caller,
        request: SwitchViewsRequest,
    ) -> Result<SwitchViewsResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let why = reason(&request.reason)?;
        let schema = SchemaVersion::new(&request.schema).map_err(|error| invalid("schema", error))?;
        if request.roles.len() > MOST {
            return Err(invalid("roles", format!("must be at most {MOST}")));
        }
        let odd = |role: &String| role.is_empty() || role.len() > LONGEST_ROLE || !is_plain(role);
        if request.roles.iter().any(odd) {
            return Err(invalid(
                "roles",
                format!("must have names of at most {LONGEST_ROLE} bytes of plain text"),
            ));
        }
        let connection = Box::pin(self.locked(&tenant, &service)).await?;
        let switched = Box::pin(switch(&connection, &schema, &request.roles)).await;
        switched.map_err(|error| database_error(&error))?;
        tracing::info!(
            tenant.id = %tenant,
            service.id = %service,
            schema.version = %schema,
            roles = request.roles.join(","),
            actor = %asker,
            reason = why,
            "new sessions should use other views"
        );
        Ok(SwitchViewsResponse { views: Box::pin(self.views(&connection)).await? })
    }

    pub(super) async fn drop_views(
        &self,
        asker: &Caller,
        request: DropViewsRequest,
    ) -> Result<DropViewsResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let why = reason(&request.reason)?;
        if request.schemas.len() > MOST {
            return Err(invalid("schemas", format!("must be at most {MOST}")));
        }
        let named = request.schemas.iter().map(|text| SchemaVersion::new(text));
        let named = named.collect::<Result<Vec<_>, _>>().map_err(|error| invalid("schemas", error))?;
        let connection = Box::pin(self.locked(&tenant, &service)).await?;
        // Asked after the lock is taken; a version that is declared later finds no views, as it would a moment later.
        let known = self.with_users(&service, &connection).await?;
        let used = known.iter().filter(|(_, used_by)| !used_by.is_empty());
        let in_use: Vec<SchemaVersion> = used.map(|(it, _)| it.version.clone()).collect();
        let unused = known
            .iter()
            .filter(|(it, used_by)| !it.current && it.roles.is_empty() && used_by.is_empty())
            .map(|(it, _)| it.version.clone());
        let chosen = if named.is_empty() { unused.collect() } else { named };
        let dropped = Box::pin(drop_unused(&connection, &chosen, &in_use)).await;
        let dropped = dropped.map_err(|error| database_error(&error))?;
        for it in &dropped {
            tracing::info!(
                tenant.id = %tenant,
                service.id = %service,
                schema.version = %it.version,
                actor = %asker,
                reason = why,
                "schema of views is dropped"
            );
        }
        let (dropped, kept) = known
            .into_iter()
            .partition::<Vec<_>, _>(|(it, _)| dropped.iter().any(|gone| gone.version == it.version));
        let told = |all: Vec<_>| all.into_iter().map(|it| told(&tenant, &service, it)).collect();
        Ok(DropViewsResponse { dropped: told(dropped), kept: told(kept) })
    }

    async fn views(&self, connection: &Connection) -> Result<Vec<ViewSchema>, ApiError> {
        let (tenant, service) = (&connection.target().tenant, &connection.target().service);
        let known = self.with_users(service, connection).await?;
        Ok(known.into_iter().map(|it| told(tenant, service, it)).collect())
    }

    /// The schemas of views, each with the declared versions of the service that work on it.
    async fn with_users(
        &self,
        service: &ServiceId,
        connection: &Connection,
    ) -> Result<Vec<(Recorded, Vec<String>)>, ApiError> {
        let known = Box::pin(list(connection)).await.map_err(|error| database_error(&error))?;
        let versions = self.grounds.control().versions(service).await?;
        let with_users = |it: Recorded| {
            let users = versions.iter().filter(|version| version.window.admits(Some(&it.version)));
            let users = users.map(|version| version.version.to_string()).collect();
            (it, users)
        };
        Ok(known.into_iter().map(with_users).collect())
    }
}

fn told(tenant: &TenantId, service: &ServiceId, (it, used_by): (Recorded, Vec<String>)) -> ViewSchema {
    ViewSchema {
        tenant: tenant.to_string(),
        service: service.to_string(),
        version: it.version.to_string(),
        name: it.schema,
        current: it.current,
        used_by,
        roles: it.roles,
    }
}
