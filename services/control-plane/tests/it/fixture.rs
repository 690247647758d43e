//! A control plane in this process, and what tests say to it.

use std::time::Duration;

use grey_control_plane::{App, Config, DEFAULTS};
use grey_core::error::Reason;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::database_service_client::DatabaseServiceClient;
use grey_proto::control::fleet_service_client::FleetServiceClient;
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    Event, ListEventsRequest, Pin, PutPinRequest, PutServiceRequest, PutTenantRequest, PutVersionRequest,
    SchemaWindow, Service, ServiceVersion, Tenant, WriteOptions, WriteResult,
};
use grey_proto::status::from_status;
use grey_runtime::config::{Source, load};
use grey_runtime::{Secret, Shutdown, Telemetry};
use grey_state::State;
use grey_state::follower::{Follower, Tables};
use grey_testkit::Postgres;
use grey_vault::MasterKey;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Where the truth is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// Runs one test on both databases.
macro_rules! on_both {
    ($($name:ident)*) => {$(
        mod $name {
            use crate::fixture::{Backend, Plane};

            #[tokio::test]
            async fn sqlite() {
                super::$name(Plane::start(Backend::Sqlite).await).await;
            }

            #[tokio::test]
            async fn postgres() {
                super::$name(Plane::start(Backend::Postgres).await).await;
            }
        }
    )*};
}
pub(crate) use on_both;

/// An empty database, gone with the test.
pub(crate) struct Store {
    pub url: String,
    _dir: Option<TempDir>,
}

impl Store {
    /// The database of another control plane.
    pub(crate) fn borrowed(url: &str) -> Self {
        Self { url: url.to_owned(), _dir: None }
    }

    pub(crate) async fn new(backend: Backend) -> Self {
        static SERVER: OnceCell<Postgres> = OnceCell::const_new();
        match backend {
            Backend::Sqlite => {
                let dir = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}/control.db", dir.path().display());
                Self { url, _dir: Some(dir) }
            }
            Backend::Postgres => {
                let server = SERVER.get_or_init(async || Postgres::start().await.unwrap()).await;
                let name = format!("control_{}", uuid());
                Self { url: server.database(&name).await.unwrap(), _dir: None }
            }
        }
    }
}

/// Tables of a follower that never runs.
pub(crate) fn unfollowed() -> Tables {
    Follower::new(State::memory(), Default::default()).1
}

/// A name that no other test has.
pub(crate) fn uuid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The default configuration on free ports.
pub(crate) fn config(url: &str) -> Config {
    let source = Source { defaults: DEFAULTS, file: None, env: Vec::new() };
    let mut config: Config = load(source).unwrap();
    config.grpc.listen = "127.0.0.1:0".parse().unwrap();
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.database.url = Secret::new(url);
    config.database.connections = 4;
    config.vault = vault(&["first"]);
    config.telemetry.log_filter = "error".to_owned();
    config
}

/// Master keys of these names, the last one active. A name is always the same key.
pub(crate) fn vault(names: &[&str]) -> grey_vault::Options {
    let key = |name: &&str| {
        let secret: String = name.bytes().cycle().take(42).map(char::from).collect();
        MasterKey { id: (*name).to_owned(), secret: Secret::new(secret + "A") }
    };
    let active = (*names.last().unwrap()).to_owned();
    grey_vault::Options { keys: names.iter().map(key).collect(), active }
}

/// Sends a bearer token with every call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<String>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

pub(crate) type Caller = InterceptedService<Channel, Bearer>;

/// A serving control plane.
pub(crate) struct Plane {
    pub state: State,
    pub store: Store,
    pub base: String,
    pub http: reqwest::Client,
    channel: Channel,
    token: Option<String>,
    shutdown: Shutdown,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Plane {
    pub(crate) async fn start(backend: Backend) -> Self {
        let store = Store::new(backend).await;
        let config = config(&store.url);
        Self::start_with(store, config, State::memory()).await
    }

    pub(crate) async fn start_with(store: Store, config: Config, state: State) -> Self {
        grey_runtime::tls::install_provider();
        let telemetry = Telemetry::start("grey-control-plane", &config.telemetry).unwrap();
        let app = App::bind(config, state.clone(), telemetry).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", app.grpc_addr())).unwrap();
        let channel = endpoint.connect_timeout(SOON).connect_lazy();
        let base = format!("http://{}", app.http_addr());
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let serving = tokio::spawn(async move { app.serve(&inner).await });
        let http = reqwest::Client::new();
        Self { state, store, base, http, channel, token: None, shutdown, serving }
    }

    /// The same control plane for the holder of a token.
    pub(crate) fn set_token(&mut self, token: Option<&str>) {
        self.token = token.map(str::to_owned);
    }

    /// Stops it in good order.
    pub(crate) async fn stop(self) -> Store {
        let Self { channel, http, shutdown, serving, store, .. } = self;
        drop((channel, http));
        shutdown.begin();
        tokio::time::timeout(SOON, serving).await.unwrap().unwrap().unwrap();
        store
    }

    pub(crate) fn caller(&self) -> Caller {
        InterceptedService::new(self.channel.clone(), Bearer(self.token.clone()))
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn tenants(&self) -> TenantServiceClient<Caller> {
        TenantServiceClient::new(self.caller())
    }

    pub(crate) fn catalog(&self) -> CatalogServiceClient<Caller> {
        CatalogServiceClient::new(self.caller())
    }

    pub(crate) fn pins(&self) -> PinServiceClient<Caller> {
        PinServiceClient::new(self.caller())
    }

    pub(crate) fn databases(&self) -> DatabaseServiceClient<Caller> {
        DatabaseServiceClient::new(self.caller())
    }

    pub(crate) fn history(&self) -> HistoryServiceClient<Caller> {
        HistoryServiceClient::new(self.caller())
    }

    pub(crate) fn fleet(&self) -> FleetServiceClient<Caller> {
        FleetServiceClient::new(self.caller())
    }

    pub(crate) async fn put_tenant(&self, id: &str) -> u64 {
        let request = PutTenantRequest { tenant: Some(tenant(id)), write: None, update_mask: Vec::new() };
        revision(self.tenants().put_tenant(request).await.unwrap().into_inner().result)
    }

    pub(crate) async fn put_service(&self, id: &str, default: &str) -> u64 {
        let service = Service { id: id.into(), default_version: default.into(), revision: 0 };
        let request = PutServiceRequest { service: Some(service), write: None };
        revision(self.catalog().put_service(request).await.unwrap().into_inner().result)
    }

    pub(crate) async fn put_version(
        &self,
        service: &str,
        version: &str,
        schema: Option<(&str, &str)>,
    ) -> u64 {
        let schema = schema.map(|(min, max)| SchemaWindow { min: min.into(), max: max.into() });
        let version =
            ServiceVersion { service: service.into(), version: version.into(), schema, revision: 0 };
        let request = PutVersionRequest { version: Some(version), write: None, update_mask: Vec::new() };
        revision(self.catalog().put_version(request).await.unwrap().into_inner().result)
    }

    pub(crate) async fn put_pin(&self, tenant: &str, service: &str, version: &str) -> Result<u64, Status> {
        let request = PutPinRequest { pin: Some(pin(tenant, service, version)), ..PutPinRequest::default() };
        self.pins().put_pin(request).await.map(|response| revision(response.into_inner().result))
    }

    /// Every event.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let request = ListEventsRequest { limit: 1_000, ..ListEventsRequest::default() };
        self.history().list_events(request).await.unwrap().into_inner().events
    }

    /// Where the log is.
    pub(crate) async fn revision(&self) -> u64 {
        self.history().list_events(ListEventsRequest::default()).await.unwrap().into_inner().revision
    }

    /// Payment with two versions, the newer one on schema 1.1 and later; tenant acme without a schema.
    pub(crate) async fn acme(&self) -> u64 {
        self.put_service("payment", "1.0").await;
        self.put_version("payment", "2.0", Some(("1.1", ""))).await;
        self.put_tenant("acme").await
    }
}

pub(crate) fn tenant(id: &str) -> Tenant {
    Tenant { id: id.into(), ..Tenant::default() }
}

pub(crate) fn pin(tenant: &str, service: &str, version: &str) -> Pin {
    Pin { tenant: tenant.into(), service: service.into(), version: version.into(), ..Pin::default() }
}

/// Expects that the thing changed last at `revision`.
pub(crate) fn expecting(revision: u64) -> Option<WriteOptions> {
    Some(WriteOptions { expected_revision: Some(revision), ..WriteOptions::default() })
}

pub(crate) fn revision(result: Option<WriteResult>) -> u64 {
    result.unwrap().revision
}

/// The reason of a refusal.
#[track_caller]
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> Reason {
    from_status(&result.unwrap_err()).reason
}

/// A fact of a refusal.
#[track_caller]
pub(crate) fn fact<T: std::fmt::Debug>(result: Result<T, Status>, key: &str) -> String {
    from_status(&result.unwrap_err()).get(key).unwrap_or_default().to_owned()
}
