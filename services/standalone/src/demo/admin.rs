//! The demo's operator: the commands of the story, with deadlines.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::fleet_service_client::FleetServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    ApplyChangeSetRequest, Change, DeletePinRequest, ListRoutersRequest, ObserveSchemaRequest, Pin, Policy,
    ProposedChange, PutPinRequest, PutPolicyRequest, WriteOptions, WriteResult,
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
    Some(WriteOptions { expected_revision: None, reason: reason.to_owned(), wait: Some(WAIT.into()) })
}

impl Admin {
    pub(super) async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        let channel = connect(addr).await?;
        Ok(Self {
            tenants: TenantServiceClient::new(channel.clone()),
            catalog: CatalogServiceClient::new(channel.clone()),
            pins: PinServiceClient::new(channel.clone()),
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
        let pin = Pin {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            version: version.to_owned(),
            ..Pin::default()
        };
        let request = PutPinRequest { pin: Some(pin), write: options(reason), migrate: false };
        let response = self.pins.clone().put_pin(request).await.map_err(refused)?;
        Ok(response.into_inner().result.unwrap_or_default())
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

    pub(super) async fn set_policy(&self, policy: Policy, reason: &str) -> Result<WriteResult, ApiError> {
        let request = PutPolicyRequest { policy: Some(policy), write: options(reason) };
        let response = self.catalog.clone().put_policy(request).await.map_err(refused)?;
        Ok(response.into_inner().result.unwrap_or_default())
    }

    pub(super) async fn observe(
        &self,
        schema: grey_proto::control::ObservedSchema,
        reason: &str,
    ) -> Result<WriteResult, ApiError> {
        let request = ObserveSchemaRequest { schema: Some(schema), write: options(reason) };
        let response = self.tenants.clone().observe_schema(request).await.map_err(refused)?;
        Ok(response.into_inner().result.unwrap_or_default())
    }

    /// How many routers live.
    pub(super) async fn routers(&self) -> Result<usize, ApiError> {
        let response = self.fleet.clone().list_routers(ListRoutersRequest {}).await.map_err(refused)?;
        Ok(response.into_inner().routers.len())
    }
}
