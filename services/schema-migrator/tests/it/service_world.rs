//! A control plane on SQLite, replicas of the migrator, and tenants' databases on real servers.

use crate::run_world::{mariadb, postgres};
use grey_control_plane as plane;
use grey_core::error::Reason;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::database_service_client::DatabaseServiceClient;
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    DatabaseKind, DeleteVersionRequest, Event, GetTenantRequest, ListEventsRequest, ListPinsRequest, Pin,
    PutDatabaseRequest, PutServiceRequest, PutTenantRequest, PutVersionRequest, SchemaWindow, Service,
    ServiceVersion, Tenant, TenantDatabase,
};
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::schema::{
    GetUpgradeRequest, StartUpgradeRequest, Target, Upgrade, UpgradeState, WatchUpgradeRequest,
};
use grey_proto::status::from_status;
use grey_runtime::config::{Source, load};
use grey_runtime::{Secret, Shutdown, Telemetry};
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::{App, Config, DEFAULTS};
use grey_state::State;
use grey_testkit::eventually;
use grey_vault::MasterKey;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A name that no other test has.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Two migrations that every dialect takes; the second has an undo file.
pub(crate) const PLAIN: [(&str, &str); 4] = [
    ("V1.1__make_notes.sql", "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY, body VARCHAR(100));"),
    ("U1.1__make_notes.sql", "DROP TABLE notes;"),
    ("V1.2__make_tags.sql", "CREATE TABLE tags (id INT NOT NULL PRIMARY KEY);"),
    ("U1.2__make_tags.sql", "DROP TABLE tags;"),
];

/// The master key of both services.
pub(crate) fn vault() -> grey_vault::Options {
    let secret = Secret::new("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U");
    grey_vault::Options { keys: vec![MasterKey { id: "k".to_owned(), secret }], active: "k".to_owned() }
}

fn lazy(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_timeout(SOON).connect_lazy()
}

/// A serving control plane.
pub(crate) struct Plane {
    pub(crate) addr: SocketAddr,
    pub(crate) http: SocketAddr,
    channel: Channel,
    shutdown: Shutdown,
    serving: JoinHandle<anyhow::Result<()>>,
    store: TempDir,
}

impl Plane {
    pub(crate) async fn start_at(listen: SocketAddr, store: TempDir) -> Self {
        Self::start_with(listen, store, |_| {}).await
    }

    /// As a test wants it.
    pub(crate) async fn start_with(
        listen: SocketAddr,
        store: TempDir,
        change: impl FnOnce(&mut plane::Config),
    ) -> Self {
        grey_runtime::tls::install_provider();
        let source = Source { defaults: plane::DEFAULTS, file: None, env: Vec::new() };
        let mut config: plane::Config = load(source).unwrap();
        config.grpc.listen = listen;
        config.http.listen = "127.0.0.1:0".parse().unwrap();
        config.database.url = Secret::new(format!("sqlite://{}/control.db", store.path().display()));
        config.vault = vault();
        config.telemetry.log_filter = "error".to_owned();
        change(&mut config);
        let telemetry = Telemetry::start("grey-control-plane", &config.telemetry).unwrap();
        let app = Box::pin(plane::App::bind(config, State::memory(), telemetry)).await.unwrap();
        let (addr, http) = (app.grpc_addr(), app.http_addr());
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let serving = tokio::spawn(async move { Box::pin(app.serve(&inner)).await });
        Self { addr, http, channel: lazy(addr), shutdown, serving, store }
    }

    /// Stops it in good order; its port is free then.
    pub(crate) async fn stop(self) -> TempDir {
        drop(self.channel);
        self.shutdown.begin();
        tokio::time::timeout(SOON, self.serving).await.unwrap().unwrap().unwrap();
        self.store
    }

    /// The service `shop`: 1.0 works on any schema, 2.0 from 1.2 on, 1.5 on 1.1 only.
    async fn declare_shop(&self) {
        let mut catalog = CatalogServiceClient::new(self.channel.clone());
        let service = Service { id: "shop".into(), default_version: "1.0".into(), revision: 0 };
        catalog.put_service(PutServiceRequest { service: Some(service), write: None }).await.unwrap();
        for (version, min, max) in [("2.0", "1.2", ""), ("1.5", "1.1", "1.1")] {
            self.put_version(version, min, max).await;
        }
    }

    /// Declares a version of `shop`, which works on these schemas.
    pub(crate) async fn put_version(&self, version: &str, min: &str, max: &str) {
        let mut catalog = CatalogServiceClient::new(self.channel.clone());
        let schema = Some(SchemaWindow { min: min.into(), max: max.into() });
        let (service, version) = ("shop".into(), version.into());
        let version = ServiceVersion { service, version, schema, revision: 0 };
        catalog
            .put_version(PutVersionRequest { version: Some(version), write: None, update_mask: Vec::new() })
            .await
            .unwrap();
    }

    pub(crate) async fn delete_version(&self, version: &str) {
        let mut catalog = CatalogServiceClient::new(self.channel.clone());
        let (service, version) = ("shop".into(), version.into());
        catalog.delete_version(DeleteVersionRequest { service, version, write: None }).await.unwrap();
    }

    pub(crate) async fn put_tenant(&self, id: &str) {
        self.put(Tenant { id: id.into(), ..Tenant::default() }).await;
    }

    pub(crate) async fn put(&self, tenant: Tenant) {
        let mut tenants = TenantServiceClient::new(self.channel.clone());
        tenants
            .put_tenant(PutTenantRequest { tenant: Some(tenant), write: None, update_mask: Vec::new() })
            .await
            .unwrap();
    }

    pub(crate) async fn register(&self, tenant: &str, kind: DatabaseKind, schema: &str, url: &str) {
        self.register_with_direct(tenant, kind, schema, url, "").await;
    }

    /// The same with a URL for migrations.
    pub(crate) async fn register_with_direct(
        &self,
        tenant: &str,
        kind: DatabaseKind,
        schema: &str,
        url: &str,
        direct_url: &str,
    ) {
        let database = TenantDatabase {
            tenant: tenant.into(),
            service: "shop".into(),
            kind: kind.into(),
            schema: schema.into(),
            ..TenantDatabase::default()
        };
        let mut databases = DatabaseServiceClient::new(self.channel.clone());
        let (url, direct_url) = (url.to_owned(), direct_url.to_owned());
        let request = PutDatabaseRequest { database: Some(database), url, direct_url, ..Default::default() };
        databases.put_database(request).await.unwrap();
    }

    pub(crate) async fn tenant(&self, id: &str) -> Tenant {
        let mut tenants = TenantServiceClient::new(self.channel.clone());
        let answer = tenants.get_tenant(GetTenantRequest { id: id.into() }).await.unwrap().into_inner();
        answer.tenant.unwrap()
    }

    pub(crate) fn databases(&self) -> DatabaseServiceClient<Channel> {
        DatabaseServiceClient::new(self.channel.clone())
    }

    pub(crate) fn catalog(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
    }

    /// The schema that the control plane knows of; empty: none.
    pub(crate) async fn observed(&self, tenant: &str) -> String {
        let mut tenants = TenantServiceClient::new(self.channel.clone());
        let answer = tenants.get_tenant(GetTenantRequest { id: tenant.into() }).await.unwrap().into_inner();
        let shop = answer.schemas.into_iter().find(|schema| schema.service == "shop");
        shop.map(|schema| schema.schema).unwrap_or_default()
    }

    /// What was committed last.
    pub(crate) async fn newest_event(&self) -> Event {
        let request = ListEventsRequest { limit: 1, newest_first: true, ..ListEventsRequest::default() };
        let mut history = HistoryServiceClient::new(self.channel.clone());
        history.list_events(request).await.unwrap().into_inner().events.remove(0)
    }

    /// The version that the tenant is pinned to; empty: none.
    pub(crate) async fn pinned(&self, tenant: &str) -> String {
        let mut pins = PinServiceClient::new(self.channel.clone());
        let request = ListPinsRequest { tenant: tenant.into(), ..ListPinsRequest::default() };
        let pins = pins.list_pins(request).await.unwrap().into_inner().pins;
        pins.into_iter().next().map(|pin: Pin| pin.version).unwrap_or_default()
    }
}

/// A serving replica of the migrator.
pub(crate) struct Replica {
    channel: Channel,
    pub(crate) http: SocketAddr,
    shutdown: Shutdown,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Replica {
    pub(crate) async fn start(config: Config) -> Self {
        grey_runtime::tls::install_provider();
        let telemetry = Telemetry::start("grey-schema-migrator", &config.telemetry).unwrap();
        let app = Box::pin(App::bind(config, telemetry)).await.unwrap();
        let (channel, http) = (lazy(app.grpc_addr()), app.http_addr());
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let serving = tokio::spawn(async move { Box::pin(app.serve(&inner)).await });
        Self { channel, http, shutdown, serving }
    }

    pub(crate) async fn stop(self) {
        drop(self.channel);
        self.shutdown.begin();
        tokio::time::timeout(SOON, self.serving).await.unwrap().unwrap().unwrap();
    }

    pub(crate) fn grpc(&self) -> SchemaServiceClient<Channel> {
        SchemaServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn try_start(&self, request: StartUpgradeRequest) -> Result<Upgrade, Status> {
        self.grpc().start_upgrade(request).await.map(|answer| answer.into_inner().upgrade.unwrap())
    }

    /// Starts an upgrade to the newest schema.
    pub(crate) async fn up(&self, tenant: &str) -> Upgrade {
        self.try_start(up(tenant)).await.unwrap()
    }

    pub(crate) async fn get(&self, id: &str) -> Upgrade {
        let request = GetUpgradeRequest { id: id.to_owned() };
        self.grpc().get_upgrade(request).await.unwrap().into_inner().upgrade.unwrap()
    }

    /// Waits until an upgrade is in a state.
    pub(crate) async fn reaches(&self, id: &str, state: UpgradeState) -> Upgrade {
        eventually(SOON, &format!("the upgrade is {state:?}"), async || self.get(id).await.state() == state)
            .await;
        self.get(id).await
    }

    /// Follows an upgrade to its end: everything that was told.
    pub(crate) async fn follow(&self, id: &str) -> Vec<Upgrade> {
        let request = WatchUpgradeRequest { id: id.to_owned() };
        let mut stream = self.grpc().watch_upgrade(request).await.unwrap().into_inner();
        let mut told = Vec::new();
        let all = async {
            while let Some(change) = stream.message().await.unwrap() {
                told.push(change.upgrade.unwrap());
            }
        };
        tokio::time::timeout(SOON, all).await.unwrap();
        told
    }

    /// The upgrade once it has ended.
    pub(crate) async fn ended(&self, id: &str) -> Upgrade {
        self.follow(id).await.pop().unwrap()
    }

    pub(crate) async fn metrics(&self) -> String {
        reqwest::get(format!("http://{}/metrics", self.http)).await.unwrap().text().await.unwrap()
    }
}

/// A control plane, files and a store for the migrator; tenants as a test adds them.
pub(crate) struct Stage {
    pub(crate) plane: Plane,
    pub(crate) files: TempDir,
    pub(crate) folder: TempDir,
    pub(crate) store: String,
}

impl Stage {
    pub(crate) async fn new(files: &[(&str, &str)]) -> Self {
        let plane = Plane::start_at("127.0.0.1:0".parse().unwrap(), tempfile::tempdir().unwrap()).await;
        plane.declare_shop().await;
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}/migrator.db", folder.path().display());
        Self { plane, files: crate::files::folder(files), folder, store }
    }

    /// Several replicas can share this one.
    pub(crate) async fn on_postgres(files: &[(&str, &str)]) -> Self {
        let stage = Self::new(files).await;
        let store = postgres().await.database(&unique("jobs")).await.unwrap();
        Self { store, ..stage }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.files.path().join("shop").join(name), text).unwrap();
    }

    /// Quick to notice what other replicas do.
    pub(crate) fn config(&self) -> Config {
        config(&self.store, self.files.path(), &format!("http://{}", self.plane.addr))
    }

    pub(crate) async fn replica(&self) -> Replica {
        Replica::start(self.config()).await
    }

    /// A tenant with an empty SQLite file.
    pub(crate) async fn sqlite(&self, tenant: &str) -> PathBuf {
        let file = self.folder.path().join(format!("{tenant}.db"));
        std::fs::File::create(&file).unwrap();
        self.plane.put_tenant(tenant).await;
        self.plane.register(tenant, DatabaseKind::File, "", &format!("sqlite://{}", file.display())).await;
        file
    }

    /// A tenant with an empty database; tells the database's name or file.
    pub(crate) async fn tenant(&self, dialect: Dialect, tenant: &str) -> String {
        let name = unique("tenant");
        let url = match dialect {
            Dialect::Postgres => postgres().await.database(&name).await.unwrap(),
            Dialect::MySql => mariadb().await.database(&name).await.unwrap(),
            Dialect::Sqlite => return self.sqlite(tenant).await.display().to_string(),
        };
        self.plane.put_tenant(tenant).await;
        self.plane.register(tenant, DatabaseKind::Database, "", &url).await;
        name
    }

    /// A single answer of a tenant's database.
    pub(crate) async fn ask(&self, dialect: Dialect, name: &str, sql: &str) -> String {
        match dialect {
            Dialect::Postgres => postgres().await.query(name, sql).await.unwrap(),
            Dialect::MySql => mariadb().await.query(name, sql).await.unwrap(),
            Dialect::Sqlite => sqlite_ask(Path::new(name), sql).await,
        }
    }
}

/// A single number of a SQLite file, as text.
pub(crate) async fn sqlite_ask(file: &Path, sql: &str) -> String {
    use sea_orm::{ConnectionTrait, Database, Statement};
    let db = Database::connect(format!("sqlite://{}", file.display())).await.unwrap();
    if !sql.starts_with("SELECT") {
        db.execute_unprepared(sql).await.unwrap();
        return String::new();
    }
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let row = db.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index::<i64>(0).unwrap().to_string()
}

pub(crate) fn config(store: &str, files: &Path, plane: &str) -> Config {
    let source = Source { defaults: DEFAULTS, file: None, env: Vec::new() };
    let mut config: Config = load(source).unwrap();
    config.grpc.listen = "127.0.0.1:0".parse().unwrap();
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.database.url = Secret::new(store);
    config.control.url = plane.to_owned();
    config.follow_up.pause = Duration::from_millis(100);
    config.vault = vault();
    config.migrations.folder = files.to_owned();
    config.jobs.lease = Duration::from_secs(6);
    config.jobs.heartbeat = Duration::from_millis(100);
    config.jobs.poll = Duration::from_millis(100);
    config.drain_grace = Duration::from_millis(500);
    config.tenants.connect = Duration::from_secs(10);
    config.telemetry.log_filter = "error".to_owned();
    config
}

/// To the newest schema.
pub(crate) fn up(tenant: &str) -> StartUpgradeRequest {
    StartUpgradeRequest {
        tenant: tenant.to_owned(),
        service: "shop".to_owned(),
        ..StartUpgradeRequest::default()
    }
}

pub(crate) fn to_schema(schema: &str) -> Option<Target> {
    Some(Target { schema: schema.to_owned(), service_version: String::new() })
}

pub(crate) fn to_version(version: &str) -> Option<Target> {
    Some(Target { schema: String::new(), service_version: version.to_owned() })
}

/// The reason of a refusal.
#[track_caller]
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> Reason {
    from_status(&result.unwrap_err()).reason
}
