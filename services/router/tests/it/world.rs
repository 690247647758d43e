//! A fleet: shared state, who writes it, and routers on it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use grey_core::change::{Change, Epoch, Event, FormatLevel, Position, Revision};
use grey_core::ids::{InstanceId, Name, ServiceId, TenantId};
use grey_core::instance::Instance;
use grey_core::key::{Fact, Key};
use grey_core::policy::Policy;
use grey_core::record::Record;
use grey_core::schema::SchemaWindow;
use grey_core::service::{Hold, Pin, Service, ServiceVersion};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::router::{RouteRequest, RouteResponse};
use grey_proto::status::{ApiError, from_status};
use grey_router::{App, Config, DEFAULTS};
use grey_runtime::config::{Source, load};
use grey_runtime::{Shutdown, Telemetry};
use grey_state::feed::{Append, FeedEntry};
use grey_state::follower::Tables;
use grey_state::instances::ServiceInstances;
use grey_state::projection::{Beat, ProjectionStatus};
use grey_state::{Digests, FencingToken, State};
use tokio::task::{AbortHandle, JoinHandle};
use tonic::transport::{Channel, Endpoint};

/// Far longer than anything here takes, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

pub(crate) async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    grey_testkit::eventually(DEADLINE, what, condition).await;
}

/// Shared state and its writer, which keeps the table that routers should come to.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) table: Table,
    token: FencingToken,
    /// Leaves signs of life.
    beating: AbortHandle,
}

impl Drop for World {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

impl World {
    pub(crate) async fn memory() -> Self {
        Self::on(State::memory(), 1).await
    }

    /// Starts an empty history on `state`.
    pub(crate) async fn on(state: State, epoch: u64) -> Self {
        let token = lead(&state).await;
        let mut table = Table::default();
        table.set_position(Position { epoch: Epoch(epoch), revision: Revision(0) });
        let beating = tokio::spawn(beat(state.clone(), token)).abort_handle();
        let world = Self { state, table, token, beating };
        world.rebuild().await;
        world
    }

    /// Writes feed and projection anew from the table, as a publisher does after they were lost.
    pub(crate) async fn rebuild(&self) {
        let position = self.table.position();
        self.state.feed.reset(self.token, &position).await.unwrap();
        let mut rebuild = self.state.projection.rebuild(self.token, &position).await.unwrap();
        rebuild.write(self.table.service_records().map(Record::Service).collect()).await.unwrap();
        rebuild.write(self.table.tenant_records().map(Record::Tenant).collect()).await.unwrap();
        rebuild.finish(&self.status()).await.unwrap();
    }

    fn status(&self) -> ProjectionStatus {
        let (position, digests) = (self.table.position(), Digests::of(&self.table));
        ProjectionStatus { position, digests, level: FormatLevel::FIRST }
    }

    /// Takes the lease on a store that lost it.
    pub(crate) async fn lead_again(&mut self) {
        self.token = lead(&self.state).await;
        self.beating.abort();
        self.beating = tokio::spawn(beat(self.state.clone(), self.token)).abort_handle();
    }

    /// Commits one event.
    pub(crate) async fn publish(&mut self, changes: Vec<Change>) -> Revision {
        self.publish_as(changes, Digests::of).await
    }

    /// Commits one event after which a publisher has a table of these digests.
    pub(crate) async fn publish_as(
        &mut self,
        changes: Vec<Change>,
        digests: impl Fn(&Table) -> Digests,
    ) -> Revision {
        let position = self.table.position();
        let revision = position.revision.next();
        let event = Event { revision, at_ms: 1, changes, ..Event::default() };
        self.table.apply(&event).unwrap();
        let entry = FeedEntry { event: event.clone(), digests: digests(&self.table) };
        assert_eq!(
            self.state.feed.append(self.token, position.epoch, &[entry]).await.unwrap(),
            Append::Appended
        );
        let reached = ProjectionStatus { digests: digests(&self.table), ..self.status() };
        self.state.projection.apply(self.token, &[event], &reached).await.unwrap();
        revision
    }

    /// Replaces the instances of a service, each given as `(id, version)`.
    pub(crate) async fn run(&mut self, name: &str, instances: &[(&str, &str)]) {
        let instances = instances.iter().map(|(id, version)| instance(id, version)).collect();
        self.run_these(name, instances).await;
    }

    pub(crate) async fn run_these(&mut self, name: &str, instances: Vec<Instance>) {
        self.table.set_instances(&service(name), instances.clone());
        let list = ServiceInstances { service: service(name), instances };
        self.state.instances.replace(self.token, &list).await.unwrap();
    }

    /// `payment` with v1 (default) and v2, two instances each, and tenants `acme` and `beta` (pinned to v2).
    pub(crate) async fn with_payment(mut self) -> Self {
        self.publish(payment()).await;
        self.run("payment", &[("a1", "v1.0"), ("b1", "v1.0"), ("a2", "v2.0"), ("b2", "v2.0")]).await;
        self
    }

    pub(crate) fn instances(&self, name: &str) -> Vec<Instance> {
        let slots = self.table.service(name).unwrap().versions();
        slots.iter().flat_map(|slot| slot.pool.members()).map(|member| member.instance.clone()).collect()
    }

    pub(crate) async fn start(&self) -> Router {
        Router::start(self.state.clone(), |_| {}).await
    }
}

/// Tells, as a publisher does, that the feed holds all that there is.
async fn beat(state: State, token: FencingToken) {
    for number in 0.. {
        if let Ok(Some(head)) = state.feed.head().await {
            let position = Position { epoch: head.epoch, revision: head.last };
            drop(state.projection.beat(token, &Beat { number, position }).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn lead(state: &State) -> FencingToken {
    let lease = Name::new("test").unwrap();
    within(state.leases.acquire(&lease, "world", DEADLINE * 10)).await.unwrap().unwrap()
}

pub(crate) fn payment() -> Vec<Change> {
    vec![
        put_service("payment", "v1.0"),
        put_version("payment", "v1.0"),
        put_version("payment", "v2.0"),
        put_tenant("acme"),
        put_tenant("beta"),
        pin("beta", "payment", "v2.0"),
    ]
}

pub(crate) fn service(name: &str) -> ServiceId {
    ServiceId::new(name).unwrap()
}

pub(crate) fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

pub(crate) fn put_tenant(id: &str) -> Change {
    Change::Put(Fact::Tenant(Box::new(Tenant::new(TenantId::new(id).unwrap()))))
}

pub(crate) fn put_service(id: &str, default: &str) -> Change {
    Change::Put(Fact::Service(Service { id: service(id), default: version(default) }))
}

pub(crate) fn put_version(id: &str, text: &str) -> Change {
    let (service, version) = (service(id), version(text));
    Change::Put(Fact::Version(Box::new(ServiceVersion { service, version, window: SchemaWindow::default() })))
}

pub(crate) fn put_policy(id: &str, policy: Policy) -> Change {
    Change::Put(Fact::Policy(service(id), policy))
}

pub(crate) fn pin(tenant: &str, id: &str, text: &str) -> Change {
    let pin = Pin { version: version(text), locked: false };
    Change::Put(Fact::Pin(TenantId::new(tenant).unwrap(), service(id), pin))
}

pub(crate) fn hold(tenant: &str, id: &str, to: &str) -> Change {
    let hold = Hold { to: version(to), until_ms: 1 };
    Change::Put(Fact::Hold(TenantId::new(tenant).unwrap(), service(id), hold))
}

pub(crate) fn lift(tenant: &str, id: &str) -> Change {
    Change::Removed(Key::Hold(TenantId::new(tenant).unwrap(), service(id)))
}

pub(crate) fn instance(id: &str, text: &str) -> Instance {
    Instance {
        id: InstanceId::new(id).unwrap(),
        version: version(text),
        address: format!("{id}.test:80").into(),
        region: None,
        zone: None,
        weight: 1,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: None,
        metadata: [("id".to_owned(), id.to_owned())].into(),
    }
}

pub(crate) fn call(tenant: &str, service: &str) -> RouteRequest {
    RouteRequest { tenant: tenant.into(), service: service.into(), ..RouteRequest::default() }
}

/// The failure that a status tells.
pub(crate) fn told<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> ApiError {
    from_status(&answer.unwrap_err())
}

/// A serving router.
pub(crate) struct Router {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) tables: Tables,
    pub(crate) shutdown: Shutdown,
    pub(crate) client: RouterServiceClient<Channel>,
    served: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn config(adjust: impl FnOnce(&mut Config)) -> Config {
    let mut config: Config = load(Source { defaults: DEFAULTS, file: None, env: [] }).unwrap();
    config.grpc.listen = "127.0.0.1:0".parse().unwrap();
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.grpc.threads = 2;
    config.telemetry.log_filter = "warn".to_owned();
    adjust(&mut config);
    config
}

pub(crate) async fn connect(addr: SocketAddr) -> RouterServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let endpoint = endpoint.timeout(DEADLINE).connect_timeout(DEADLINE);
    RouterServiceClient::new(within(endpoint.connect()).await.unwrap())
}

impl Router {
    /// Starts a router and waits until it is ready.
    pub(crate) async fn start(state: State, adjust: impl FnOnce(&mut Config)) -> Self {
        let router = Self::start_unready(state, adjust).await;
        router.ready().await;
        router
    }

    pub(crate) async fn start_unready(state: State, adjust: impl FnOnce(&mut Config)) -> Self {
        grey_runtime::tls::install_provider();
        let config = config(adjust);
        let telemetry = Telemetry::start("grey-router", &config.telemetry).unwrap();
        let app = App::bind(config, state, telemetry).await.unwrap();
        let (grpc, http, tables) = (app.grpc_addr(), app.http_addr(), app.tables());
        let shutdown = Shutdown::new();
        let served = {
            let shutdown = shutdown.clone();
            tokio::spawn(async move { app.serve(&shutdown).await })
        };
        let client = connect(grpc).await;
        Self { grpc, http, tables, shutdown, client, served }
    }

    pub(crate) async fn ready(&self) {
        eventually("the router is ready", async || self.get("/health/ready").await.0 == 200).await;
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = within(reqwest::get(format!("http://{}{path}", self.http))).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub(crate) async fn reached(&self, revision: Revision) {
        let reached = self.tables.wait_until(|position| position.revision >= revision, DEADLINE).await;
        assert!(reached, "the router reaches revision {revision}");
    }

    /// Waits until the table is the world's, instances included.
    pub(crate) async fn follows(&self, world: &World) {
        let there = world.table.position();
        let reached = self.tables.wait_until(|position| position.contains(there), DEADLINE).await;
        assert!(reached, "the router reaches {there}");
        eventually("the router has the instances", async || {
            instances_of(&self.tables.load_full()) == instances_of(&world.table)
        })
        .await;
        assert_eq!(self.tables.load().digest(), world.table.digest());
        eventually("the router is up to date", async || {
            let (code, body) = self.get("/health/ready").await;
            code == 200 && !body.contains("stale")
        })
        .await;
    }

    pub(crate) async fn route(&self, request: RouteRequest) -> Result<RouteResponse, tonic::Status> {
        Ok(within(self.client.clone().route(request)).await?.into_inner())
    }

    pub(crate) async fn version(&self, tenant: &str, service: &str) -> String {
        self.route(call(tenant, service)).await.unwrap().version
    }

    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        within(self.served).await.unwrap().unwrap();
    }
}

/// Every instance, as `service/version/id`.
pub(crate) fn instances_of(table: &Table) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for service in table.services() {
        for slot in service.versions() {
            let members = slot.pool.members().iter();
            names.extend(members.map(|m| format!("{}/{}/{}", service.id(), slot.version, m.instance.id)));
        }
    }
    names.sort();
    names
}
