//! A tenant API, a control plane on SQLite and replicas of the service, all in this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use grey_control_plane as plane;
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    Event, GetTenantRequest, GetTenantResponse, ListEventsRequest, ListTenantsRequest, PutTenantRequest,
    Tenant, TenantStatus,
};
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_proto::sync::{
    AcceptRequest, GetStatusRequest, HandledRequest, SyncRun, SyncStatus, TriggerRequest,
};
use grey_runtime::config::{Source, load};
use grey_runtime::{Secret, Shutdown, Telemetry};
use grey_state::State;
use grey_tenant_sync as sync;
use grey_testkit::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::upstream::Upstream;

/// Longer than anything here takes, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Longer than any test.
pub(crate) const NEVER: Duration = Duration::from_secs(86_400);
/// No time at all, as far as a test can tell.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(1);

/// A serving control plane.
pub(crate) struct Plane {
    pub(crate) addr: SocketAddr,
    channel: Channel,
    shutdown: Shutdown,
    serving: JoinHandle<anyhow::Result<()>>,
    pub(crate) store: TempDir,
}

impl Plane {
    /// Empty, on a free port.
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), tempfile::tempdir().unwrap(), |_| {}).await
    }

    pub(crate) async fn start_at(
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
        config.telemetry.log_filter = "error".to_owned();
        change(&mut config);
        let telemetry = Telemetry::start("grey-control-plane", &config.telemetry).unwrap();
        let app = plane::App::bind(config, State::memory(), telemetry).await.unwrap();
        let addr = app.grpc_addr();
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let serving = tokio::spawn(async move { app.serve(&inner).await });
        Self { addr, channel: lazy(addr), shutdown, serving, store }
    }

    /// Stops it in good order; its port is free then.
    pub(crate) async fn stop(self) -> TempDir {
        drop(self.channel);
        self.shutdown.begin();
        tokio::time::timeout(SOON, self.serving).await.unwrap().unwrap().unwrap();
        self.store
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn tenants(&self) -> TenantServiceClient<Channel> {
        TenantServiceClient::new(self.channel.clone())
    }

    pub(crate) fn pins(&self) -> PinServiceClient<Channel> {
        PinServiceClient::new(self.channel.clone())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Writes a tenant by hand.
    pub(crate) async fn put(&self, tenant: Tenant) {
        let request = PutTenantRequest { tenant: Some(tenant), write: None, update_mask: Vec::new() };
        self.tenants().put_tenant(request).await.unwrap();
    }

    pub(crate) async fn get(&self, id: &str) -> Result<GetTenantResponse, Status> {
        let request = GetTenantRequest { id: id.to_owned() };
        self.tenants().get_tenant(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn tenant(&self, id: &str) -> Tenant {
        self.get(id).await.unwrap().tenant.unwrap()
    }

    pub(crate) async fn status(&self, id: &str) -> TenantStatus {
        self.tenant(id).await.status()
    }

    /// Every tenant, by id.
    pub(crate) async fn all(&self) -> BTreeMap<String, Tenant> {
        let mut all = BTreeMap::new();
        let mut page_token = String::new();
        loop {
            let request = ListTenantsRequest { page_size: 1_000, page_token, ..Default::default() };
            let page = self.tenants().list_tenants(request).await.unwrap().into_inner();
            all.extend(page.tenants.into_iter().map(|tenant| (tenant.id.clone(), tenant)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    /// How many tenants have this status.
    pub(crate) async fn count(&self, status: TenantStatus) -> usize {
        self.all().await.values().filter(|tenant| tenant.status() == status).count()
    }

    /// Where the log is.
    pub(crate) async fn revision(&self) -> u64 {
        let mut history = HistoryServiceClient::new(self.channel.clone());
        history.list_events(ListEventsRequest::default()).await.unwrap().into_inner().revision
    }

    /// The first thousand events.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let mut history = HistoryServiceClient::new(self.channel.clone());
        let request = ListEventsRequest { limit: 1_000, ..ListEventsRequest::default() };
        history.list_events(request).await.unwrap().into_inner().events
    }
}

/// A serving replica.
pub(crate) struct Replica {
    pub(crate) grpc: SyncServiceClient<Channel>,
    pub(crate) base: String,
    shutdown: Shutdown,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Replica {
    pub(crate) async fn start(config: sync::Config, state: &State) -> Self {
        grey_runtime::tls::install_provider();
        let telemetry = Telemetry::start("grey-tenant-sync", &config.telemetry).unwrap();
        let app = sync::App::bind(config, state.clone(), telemetry).await.unwrap();
        let grpc = SyncServiceClient::new(lazy(app.grpc_addr()));
        let base = format!("http://{}", app.http_addr());
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let serving = tokio::spawn(async move { app.serve(&inner).await });
        Self { grpc, base, shutdown, serving }
    }

    /// Stops it in good order.
    pub(crate) async fn stop(self) {
        drop(self.grpc);
        self.shutdown.begin();
        tokio::time::timeout(SOON, self.serving).await.unwrap().unwrap().unwrap();
    }

    pub(crate) async fn status(&self) -> SyncStatus {
        self.grpc.clone().get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap()
    }

    /// Waits until the first sync of a leader has ended.
    pub(crate) async fn first_run(&self) -> SyncRun {
        eventually(SOON, "the first sync ends", async || !self.status().await.runs.is_empty()).await;
        self.status().await.runs.pop().unwrap()
    }

    /// Asks for a sync and waits for its end.
    pub(crate) async fn trigger(&self) -> HandledRequest {
        let request = TriggerRequest { wait: Some(SOON.into()) };
        self.grpc.clone().trigger(request).await.unwrap().into_inner().handled.unwrap()
    }

    /// A sync that succeeds, and what it did.
    pub(crate) async fn run(&self) -> SyncRun {
        let handled = self.trigger().await;
        assert_eq!(handled.error, "");
        self.status().await.runs.swap_remove(0)
    }

    /// A sync that fails, and why.
    pub(crate) async fn failed_run(&self) -> String {
        let handled = self.trigger().await;
        assert_ne!(handled.error, "");
        assert_eq!(self.status().await.runs[0].error, handled.error);
        handled.error
    }

    pub(crate) async fn accept(&self, change: &str) -> Result<HandledRequest, Status> {
        let request = AcceptRequest { change: change.to_owned(), wait: Some(SOON.into()) };
        self.grpc.clone().accept(request).await.map(|answer| answer.into_inner().handled.unwrap())
    }

    pub(crate) async fn metrics(&self) -> String {
        reqwest::get(format!("{}/metrics", self.base)).await.unwrap().text().await.unwrap()
    }
}

/// One of each.
pub(crate) struct World {
    pub(crate) upstream: Upstream,
    pub(crate) plane: Plane,
    pub(crate) replica: Replica,
    pub(crate) state: State,
}

impl World {
    /// The API lists these when the replica starts, and its first sync has ended.
    pub(crate) async fn start(tenants: &[Value]) -> Self {
        Self::start_with(tenants, |_| {}).await
    }

    pub(crate) async fn start_with(tenants: &[Value], change: impl FnOnce(&mut sync::Config)) -> Self {
        let (upstream, plane, state) = (Upstream::start().await, Plane::start().await, State::memory());
        upstream.list(tenants);
        let mut config = config(&upstream, &plane.url());
        change(&mut config);
        let replica = Replica::start(config, &state).await;
        replica.first_run().await;
        Self { upstream, plane, replica, state }
    }

    /// The API lists these, and a sync that succeeds hears of it.
    pub(crate) async fn list(&self, tenants: &[Value]) -> SyncRun {
        self.upstream.list(tenants);
        self.replica.run().await
    }

    pub(crate) async fn stop(self) {
        self.replica.stop().await;
        self.plane.stop().await;
    }
}

/// The default configuration on free ports, which syncs only when asked to, without waiting for anything.
pub(crate) fn config(upstream: &Upstream, plane: &str) -> sync::Config {
    let env = [("GREY__SOURCE__URL".to_owned(), upstream.url())];
    let source = Source { defaults: sync::DEFAULTS, file: None, env };
    let mut config: sync::Config = load(source).unwrap();
    config.grpc.listen = "127.0.0.1:0".parse().unwrap();
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.control.url = plane.to_owned();
    config.apply.first_pause = Duration::from_millis(5);
    config.apply.max_pause = Duration::from_millis(50);
    config.source.retries.attempts = 2;
    config.source.retries.first = AT_ONCE;
    config.source.retries.max = AT_ONCE;
    config.mapping.tier = "/tier".to_owned();
    config.mapping.labels = [("color".to_owned(), "/color".to_owned())].into();
    config.sync.interval = NEVER;
    config.sync.retry = NEVER;
    config.sync.min_gap = Duration::ZERO;
    config.tombstone.recheck = NEVER;
    config.telemetry.log_filter = "error".to_owned();
    config
}

fn lazy(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_timeout(SOON).connect_lazy()
}

/// A tenant of the API.
pub(crate) fn entry(id: &str, status: &str) -> Value {
    json!({"id": id, "name": format!("Tenant {id}"), "status": status})
}

/// What a sync did, of the kinds that are not zero.
pub(crate) fn counts(run: &SyncRun) -> BTreeMap<&str, u64> {
    assert_eq!(run.error, "");
    run.counts.iter().filter(|(_, count)| **count > 0).map(|(kind, count)| (kind.as_str(), *count)).collect()
}

/// The same, as expected.
pub(crate) fn did<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<&str, u64> {
    counts.into()
}
