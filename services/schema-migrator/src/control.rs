//! The control plane, as the migrator reads and tells it.

use grey_core::change::Principal;
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaWindow;
use grey_core::service::ServiceVersion;
use grey_core::version::Version;
use grey_edge::client::{Client, Error, MAX_ANSWER_BYTES, Options, Peer, Transport};
use grey_edge::on_behalf_of;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::database_service_client::DatabaseServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::{
    ApplyChangeSetRequest, Change, GetServiceRequest, GetServiceResponse, ListPinsRequest,
    ListSealedDatabasesRequest, ObservedSchema, Pin, ProposedChange, PutDatabaseRequest, PutPinRequest,
    SealedDatabase, WriteOptions,
};
use grey_proto::convert::InvalidMessage;
use grey_proto::status::ApiError;
use tonic::{Response, Status};

pub use grey_edge::client::is_transient;

/// Whom this service asks.
const PEER: Peer = Peer { name: "control plane", section: "control" };
/// Databases of one page: the most that the control plane gives.
const PAGE: u32 = 1_000;

/// A client of the control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    client: Client,
    catalog: CatalogServiceClient<Transport>,
    databases: DatabaseServiceClient<Transport>,
    pins: PinServiceClient<Transport>,
}

impl Control {
    /// A client that connects when it is first used.
    ///
    /// # Errors
    /// The address, the token or the certificates cannot be used.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let client = Client::new(PEER, options)?;
        let transport = client.transport();
        let databases = DatabaseServiceClient::new(transport.clone());
        Ok(Self {
            client,
            catalog: CatalogServiceClient::new(transport.clone()),
            databases: databases.max_decoding_message_size(MAX_ANSWER_BYTES),
            pins: PinServiceClient::new(transport),
        })
    }

    /// The registered databases of `tenants` (none: of all) for a service (none: for any), by tenant and service,
    /// credentials sealed.
    ///
    /// # Errors
    /// What the control plane says, or that it does not answer.
    pub async fn databases(
        &self,
        service: Option<&ServiceId>,
        tenants: &[TenantId],
    ) -> Result<Vec<SealedDatabase>, ApiError> {
        let mut databases = Vec::new();
        let mut after = String::new();
        loop {
            let (page, next) = self.databases_page(service, tenants, PAGE, after).await?;
            databases.extend(page);
            if next.is_empty() {
                return Ok(databases);
            }
            after = next;
        }
    }

    /// One page of [`Control::databases`], and where the next one begins.
    ///
    /// # Errors
    /// As there.
    pub async fn databases_page(
        &self,
        service: Option<&ServiceId>,
        tenants: &[TenantId],
        page_size: u32,
        page_token: String,
    ) -> Result<(Vec<SealedDatabase>, String), ApiError> {
        let request = ListSealedDatabasesRequest {
            service: service.map(ToString::to_string).unwrap_or_default(),
            tenants: tenants.iter().map(ToString::to_string).collect(),
            page_size,
            page_token,
        };
        let mut databases = self.databases.clone();
        let call = databases.list_sealed_databases(request);
        let answer = self.ask("list registered databases", call).await?;
        Ok((answer.databases, answer.next_page_token))
    }

    /// The tenant's database for the service, its credentials sealed.
    ///
    /// # Errors
    /// None is registered, or the control plane does not answer.
    pub async fn database(&self, tenant: &TenantId, service: &ServiceId) -> Result<SealedDatabase, ApiError> {
        let (page, _) =
            self.databases_page(Some(service), std::slice::from_ref(tenant), 1, String::new()).await?;
        page.into_iter().next().ok_or_else(|| unregistered(tenant, service))
    }

    /// The declared versions of a service, with the schemas that each works on.
    ///
    /// # Errors
    /// The service is not declared, or the control plane does not answer.
    pub async fn versions(&self, service: &ServiceId) -> Result<Vec<ServiceVersion>, ApiError> {
        let known = self.service(service).await?.versions.into_iter().map(ServiceVersion::try_from);
        known.collect::<Result<_, _>>().map_err(|fault| answered(&fault))
    }

    /// A service with its default, its versions and its overlays.
    ///
    /// # Errors
    /// The service is not declared, or the control plane does not answer.
    pub async fn service(&self, service: &ServiceId) -> Result<GetServiceResponse, ApiError> {
        let mut catalog = self.catalog.clone();
        let call = catalog.get_service(GetServiceRequest { id: service.to_string() });
        self.ask("read the service", call).await
    }

    /// The schemas that a service version works on.
    ///
    /// # Errors
    /// The service or the version is not declared, or the control plane does not answer.
    pub async fn window(&self, service: &ServiceId, version: &Version) -> Result<SchemaWindow, ApiError> {
        let known = self.versions(service).await?;
        known.into_iter().find(|known| known.version == *version).map(|known| known.window).ok_or_else(|| {
            let message = format!("version {version} of service `{service}` is not declared");
            ApiError::new(Reason::UnknownVersion, message)
        })
    }

    /// Tells what schemas tenants' databases have: all of it is taken, or nothing.
    ///
    /// # Errors
    /// What the control plane says, or that it does not answer.
    pub async fn observe(&self, seen: Vec<ObservedSchema>) -> Result<(), ApiError> {
        let proposed = |schema| ProposedChange {
            change: Some(Change { change: Some(Kind::SchemaObserved(schema)) }),
            expected_revision: None,
        };
        let changes = seen.into_iter().map(proposed).collect();
        let request = ApplyChangeSetRequest { changes, write: None };
        self.ask("report schemas", self.pins.clone().apply_change_set(request)).await.map(drop)
    }

    /// Pins a tenant on behalf of `asker`, whose role is judged as well as this service's own.
    ///
    /// # Errors
    /// What the control plane says, or that it does not answer.
    pub async fn pin(&self, asker: &Principal, pin: Pin, write: WriteOptions) -> Result<(), ApiError> {
        let request = PutPinRequest { pin: Some(pin), write: Some(write), ..PutPinRequest::default() };
        let request = on_behalf_of(asker, request);
        self.ask("pin the tenant", self.pins.clone().put_pin(request)).await.map(drop)
    }

    /// Registers a database on behalf of `asker`, whose role is judged as well as this service's own.
    ///
    /// # Errors
    /// What the control plane says, or that it does not answer.
    pub async fn register(&self, asker: &Principal, request: PutDatabaseRequest) -> Result<(), ApiError> {
        let request = on_behalf_of(asker, request);
        self.ask("register the database", self.databases.clone().put_database(request)).await.map(drop)
    }

    /// The tenant's pin for a service.
    ///
    /// # Errors
    /// What the control plane says, or that it does not answer.
    pub async fn pinned(&self, tenant: &str, service: &str) -> Result<Option<Pin>, ApiError> {
        let request = ListPinsRequest {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            ..ListPinsRequest::default()
        };
        let answer = self.ask("read the pin", self.pins.clone().list_pins(request)).await?;
        Ok(answer.pins.into_iter().find(|pin| pin.tenant == tenant && pin.service == service))
    }

    /// Makes a call; `attempted` says in a verb phrase what it is for.
    async fn ask<T>(
        &self,
        attempted: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ApiError> {
        self.client.call(call).await.map_err(|error| {
            let error = self.client.for_callers(error);
            ApiError { message: format!("{attempted}: {}", error.message), ..error }
        })
    }
}

/// No database is registered.
pub(crate) fn unregistered(tenant: &TenantId, service: &ServiceId) -> ApiError {
    let message = format!("no database of tenant `{tenant}` is registered for service `{service}`");
    ApiError::new(Reason::UnknownDatabase, message)
        .with("tenant", tenant.as_str())
        .with("service", service.as_str())
}

pub(crate) fn answered(fault: &InvalidMessage) -> ApiError {
    ApiError::new(Reason::Unavailable, format!("read what the control plane answers: {fault}"))
}
