//! The control plane, as the migrator reads and tells it.

use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaWindow;
use grey_core::service::ServiceVersion;
use grey_core::version::Version;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::database_service_client::DatabaseServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    GetServiceRequest, ListPinsRequest, ListSealedDatabasesRequest, ObserveSchemaRequest, ObservedSchema,
    Pin, PutPinRequest, SealedDatabase, WriteOptions,
};
use grey_proto::convert::InvalidMessage;
use grey_proto::status::{ApiError, from_status};
use grey_runtime::config::duration;
use grey_runtime::{Faults, Secret, Validate, tls};
use pbjson_types::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Databases of one page: the most that the control plane gives.
const PAGE: u32 = 1_000;
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Unanswered pings end a connection after this long.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How the control plane is reached.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where its gRPC is.
    pub url: String,
    /// A bearer token of the role operator; empty: none is sent.
    pub token: Secret,
    /// Whom to trust, for an `https` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ClientOptions>,
    /// For a connection.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// For one call.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Before a schema or a pin that was not taken is sent again.
    #[serde(with = "duration")]
    pub pause: Duration,
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        let scheme = self.url.starts_with("http://") || self.url.starts_with("https://");
        faults.check(scheme, "url", "must begin with http:// or https://");
        let fits = self.tls.is_none() || self.url.starts_with("https://");
        faults.check(fits, "tls", "needs an https:// url");
        let ascii = self.token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        faults.check(ascii, "token", "must be visible ASCII");
        for (key, value) in
            [("connect_timeout", self.connect_timeout), ("timeout", self.timeout), ("pause", self.pause)]
        {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
        if let Some(tls) = &self.tls {
            faults.section("tls", tls);
        }
    }
}

/// Why the control plane cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or the token cannot be used.
    #[error("use control plane {url}: {why}")]
    Configuration {
        /// As configured.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The certificates cannot be used.
    #[error("use the certificates for control plane {url}")]
    Tls {
        /// As configured.
        url: String,
        /// What is wrong.
        source: tls::Error,
    },
}

/// Sends the token with every call.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Transport = InterceptedService<Channel, Bearer>;

/// A client of the control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    tenants: TenantServiceClient<Transport>,
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
        let url = options.url.clone();
        let unusable = |why: String| Error::Configuration { url: options.url.clone(), why };
        let mut endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| unusable(error.to_string()))?
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .tcp_nodelay(true);
        if let Some(tls) = &options.tls {
            let config = tls.tonic().map_err(|source| Error::Tls { url, source })?;
            endpoint = endpoint.tls_config(config).map_err(|error| unusable(error.to_string()))?;
        }
        let transport = InterceptedService::new(endpoint.connect_lazy(), Bearer(bearer(options)?));
        let databases = DatabaseServiceClient::new(transport.clone());
        Ok(Self {
            tenants: TenantServiceClient::new(transport.clone()),
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
        let answer = self.databases.clone().list_sealed_databases(request).await;
        let answer = answer.map_err(failed("list registered databases"))?.into_inner();
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
        let answer = self.catalog.clone().get_service(GetServiceRequest { id: service.to_string() }).await;
        let answer = answer.map_err(failed("read the service"))?.into_inner();
        let known = answer.versions.into_iter().map(ServiceVersion::try_from);
        known.collect::<Result<_, _>>().map_err(|fault| answered(&fault))
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

    /// Tells what schema a tenant's database has.
    ///
    /// # Errors
    /// What the control plane says, or that it does not answer.
    pub async fn observe(
        &self,
        tenant: &str,
        service: &str,
        schema: &str,
        at: Timestamp,
    ) -> Result<(), ApiError> {
        let schema = ObservedSchema {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            schema: schema.to_owned(),
            observed_at: Some(at),
            revision: 0,
        };
        let request = ObserveSchemaRequest { schema: Some(schema), write: None };
        let answer = self.tenants.clone().observe_schema(request).await;
        answer.map(drop).map_err(failed("report the schema"))
    }

    /// Pins a tenant.
    ///
    /// # Errors
    /// What the control plane says, or that it does not answer.
    pub async fn pin(&self, pin: Pin, expected: Option<u64>, reason: String) -> Result<(), ApiError> {
        let write = WriteOptions { expected_revision: expected, reason, wait: None };
        let request = PutPinRequest { pin: Some(pin), write: Some(write), migrate: false };
        let answer = self.pins.clone().put_pin(request).await;
        answer.map(drop).map_err(failed("pin the tenant"))
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
        let answer = self.pins.clone().list_pins(request).await;
        let pins = answer.map_err(failed("read the pin"))?.into_inner().pins;
        Ok(pins.into_iter().find(|pin| pin.tenant == tenant && pin.service == service))
    }
}

/// Whether the same call may succeed later. A write may have been carried out all the same.
#[must_use]
pub fn is_transient(error: &ApiError) -> bool {
    // Internal is what a broken connection in the middle of an answer looks like.
    matches!(
        error.reason,
        Reason::Unavailable
            | Reason::RateLimited
            | Reason::Internal
            | Reason::Unauthenticated
            | Reason::Denied
    )
}

fn bearer(options: &Options) -> Result<Option<MetadataValue<Ascii>>, Error> {
    let token = options.token.expose();
    if token.is_empty() {
        return Ok(None);
    }
    let unusable =
        |_| Error::Configuration { url: options.url.clone(), why: "the token is not ASCII".into() };
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Callers of the migrator are not callers of the control plane: that it lets this service not in is not their fault.
fn failed(attempted: &'static str) -> impl FnOnce(Status) -> ApiError {
    move |status| {
        let mut error = from_status(&status);
        if matches!(error.reason, Reason::Unauthenticated | Reason::Denied | Reason::Internal) {
            tracing::warn!(error = %error, reason = error.reason.as_str(), attempted, "control plane refused the migrator");
            error = ApiError::new(Reason::Unavailable, "the control plane does not serve this migrator");
        }
        error.message = format!("{attempted}: {}", error.message);
        error
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
