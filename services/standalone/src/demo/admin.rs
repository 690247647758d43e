//! The demo's operator: the commands of the story, with deadlines.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::database_service_client::DatabaseServiceClient;
use grey_proto::control::fleet_service_client::FleetServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    ApplyChangeSetRequest, Change, DatabaseKind, DeletePinRequest, GetTenantRequest, ListRoutersRequest,
    Overlay, Pin, ProposedChange, PutDatabaseRequest, PutOverlayRequest, PutPinRequest, PutPinResponse,
    TenantDatabase, WriteOptions, WriteResult,
};
use grey_proto::status::{ApiError, from_status};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// For one call, waiting for routers included.
const DEADLINE: Duration = Duration::from_secs(15);
/// For the routers to apply a write.
const WAIT: Duration = Duration::from_secs(5);

/// Writes to the control plane.
#[derive(Clone)]
pub(super) struct Admin {
    tenants: TenantServiceClient<Channel>,
    catalog: CatalogServiceClient<Channel>,
    pins: PinServiceClient<Channel>,
    databases: DatabaseServiceClient<Channel>,
    fleet: FleetServiceClient<Channel>,
}

/// A connection to a service of this process.
pub(super) async fn connect(addr: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?;
    let endpoint = endpoint.connect_timeout(DEADLINE).timeout(DEADLINE).tcp_nodelay(true);
    endpoint.connect().await.with_context(|| format!("connect to {addr}"))
}

/// Why a write was refused.
#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn refused(status: Status) -> ApiError {
    from_status(&status)
}

fn options(reason: &str) -> Option<WriteOptions> {
    Some(WriteOptions { reason: reason.to_owned(), wait: Some(WAIT.into()), ..WriteOptions::default() })
}

impl Admin {
    pub(super) async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        let channel = connect(addr).await?;
        Ok(Self {
            tenants: TenantServiceClient::new(channel.clone()),
            catalog: CatalogServiceClient::new(channel.clone()),
            pins: PinServiceClient::new(channel.clone()),
            databases: DatabaseServiceClient::new(channel.clone()),
            fleet: FleetServiceClient::new(channel),
        })
    }

    /// Applies changes together.
    pub(super) async fn apply(&self, changes: Vec<Kind>, reason: &str) -> Result<WriteResult, ApiError> {
        let proposed = |change| ProposedChange {
            change: Some(Change { change: Some(change) }),
            expected_revision: None,
        };
        let changes = changes.into_iter().map(proposed).collect();
        let request = ApplyChangeSetRequest { changes, write: options(reason) };
        let response = self.pins.clone().apply_change_set(request).await.map_err(refused)?;
        Ok(response.into_inner().result.unwrap_or_default())
    }

    pub(super) async fn pin(
        &self,
        tenant: &str,
        service: &str,
        version: &str,
        reason: &str,
    ) -> Result<WriteResult, ApiError> {
        let response = self.put_pin(tenant, service, version, reason, false).await?;
        Ok(response.result.unwrap_or_default())
    }

    /// Pins a tenant once its database has been upgraded; the upgrade that was started.
    pub(super) async fn pin_migrating(
        &self,
        tenant: &str,
        service: &str,
        version: &str,
        reason: &str,
    ) -> Result<String, ApiError> {
        Ok(self.put_pin(tenant, service, version, reason, true).await?.upgrade)
    }

    async fn put_pin(
        &self,
        tenant: &str,
        service: &str,
        version: &str,
        reason: &str,
        migrate: bool,
    ) -> Result<PutPinResponse, ApiError> {
        let pin = Pin {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            version: version.to_owned(),
            ..Pin::default()
        };
        let request =
            PutPinRequest { pin: Some(pin), write: options(reason), migrate, ..PutPinRequest::default() };
        Ok(self.pins.clone().put_pin(request).await.map_err(refused)?.into_inner())
    }

    pub(super) async fn unpin(
        &self,
        tenant: &str,
        service: &str,
        reason: &str,
    ) -> Result<WriteResult, ApiError> {
        let (tenant, service) = (tenant.to_owned(), service.to_owned());
        let request = DeletePinRequest { tenant, service, write: options(reason) };
        let response = self.pins.clone().delete_pin(request).await.map_err(refused)?;
        Ok(response.into_inner().result.unwrap_or_default())
    }

    pub(super) async fn set_overlay(&self, overlay: Overlay, reason: &str) -> Result<WriteResult, ApiError> {
        let request =
            PutOverlayRequest { overlay: Some(overlay), write: options(reason), update_mask: Vec::new() };
        let response = self.catalog.clone().put_overlay(request).await.map_err(refused)?;
        Ok(response.into_inner().result.unwrap_or_default())
    }

    /// Registers the SQLite file at `url` as a tenant's database for a service.
    pub(super) async fn put_database(
        &self,
        tenant: &str,
        service: &str,
        url: String,
    ) -> Result<(), ApiError> {
        let database = TenantDatabase {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            kind: DatabaseKind::File.into(),
            ..TenantDatabase::default()
        };
        let request = PutDatabaseRequest { database: Some(database), url, ..PutDatabaseRequest::default() };
        self.databases.clone().put_database(request).await.map_err(refused)?;
        Ok(())
    }

    /// The schema that was seen in a tenant's database for a service; empty: none yet.
    pub(super) async fn schema_of(&self, tenant: &str, service: &str) -> Result<String, ApiError> {
        let request = GetTenantRequest { id: tenant.to_owned() };
        let response = self.tenants.clone().get_tenant(request).await.map_err(refused)?.into_inner();
        let seen = response.schemas.into_iter().find(|schema| schema.service == service);
        Ok(seen.unwrap_or_default().schema)
    }

    /// How many routers count.
    pub(super) async fn routers(&self) -> Result<usize, ApiError> {
        let response =
            self.fleet.clone().list_routers(ListRoutersRequest::default()).await.map_err(refused)?;
        Ok(response.into_inner().routers.len())
    }
}
