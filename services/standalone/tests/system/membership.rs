//! Which routers are waited for, whatever becomes of them and of shared state.

use crate::server::{DEADLINE, Server, settings, stage};
use grey_core::ids::Name;
use grey_core::instance::Instance;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::fleet_service_client::FleetServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    DismissRouterRequest, ListRoutersRequest, Pin, PutPinRequest, PutServiceRequest, PutTenantRequest,
    PutVersionRequest, RouterProgress, RouterState, RouterStatus, Service, ServiceVersion, Tenant,
    WriteOptions,
};
use grey_state::State;
use grey_state::instances::ServiceInstances;
use grey_testkit::{Redis, ReservedPort, eventually};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A control plane and two routers with short leases, on a Redis of their own.
pub(crate) struct World {
    pub(crate) redis: Redis,
    pub(crate) state: State,
    pub(crate) control: Server,
    pub(crate) a: Server,
    pub(crate) b: Server,
    writes: AtomicU64,
    _dir: TempDir,
}

/// A router that follows the Redis at `redis`.
pub(crate) fn router(id: &str, redis: &str) -> Vec<(String, String)> {
    let urls = format!("[\"{redis}\"]");
    settings([
        ("ROUTER__ID", id),
        ("REDIS__URLS", &urls),
        ("HEARTBEAT__INTERVAL", "200ms"),
        ("HEARTBEAT__TTL", "1500ms"),
        ("FEED__WAIT", "100ms"),
        ("FEED__STALE_AFTER", "1500ms"),
    ])
}

impl World {
    pub(crate) async fn start() -> Self {
        let redis = Redis::start().await.unwrap();
        let url = redis.url();
        Self::with(redis, &url).await
    }

    /// The same with router `b` following another address of the same Redis.
    pub(crate) async fn with(redis: Redis, b: &str) -> Self {
        grey_runtime::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}", dir.path().join("control.db").display());
        let urls = format!("[\"{}\"]", redis.url());
        let control = settings([("DATABASE__URL", &database), ("REDIS__URLS", &urls)]);
        let control = Server::new("grey-control-plane", control);
        let a = Server::new("grey-router", router("a", &redis.url()));
        let b = Server::new("grey-router", router("b", b));
        let options = grey_state::redis::Options { urls: vec![redis.url()], ..Default::default() };
        let state = State::redis(&options).await.unwrap();
        let world = Self { redis, state, control, a, b, writes: AtomicU64::new(0), _dir: dir };
        world.control.until_ready().await;
        world.declare().await;
        world.a.until_ready().await;
        world.b.until_ready().await;
        world.until("a", RouterStatus::Applied).await;
        world.until("b", RouterStatus::Applied).await;
        world
    }

    async fn declare(&self) {
        let mut catalog = CatalogServiceClient::new(self.control.channel());
        let service = Service { id: "payment".into(), default_version: "v1.0".into(), revision: 0 };
        catalog.put_service(PutServiceRequest { service: Some(service), write: None }).await.unwrap();
        let version =
            ServiceVersion { service: "payment".into(), version: "v2.0".into(), ..ServiceVersion::default() };
        catalog
            .put_version(PutVersionRequest { version: Some(version), ..Default::default() })
            .await
            .unwrap();
        let mut tenants = TenantServiceClient::new(self.control.channel());
        for id in ["acme", "beta"] {
            let tenant = Tenant { id: id.into(), ..Tenant::default() };
            tenants
                .put_tenant(PutTenantRequest { tenant: Some(tenant), ..Default::default() })
                .await
                .unwrap();
        }
        self.run_instances().await;
    }

    /// What the mirror of a registry would write.
    pub(crate) async fn run_instances(&self) {
        let lease = Name::new("instances").unwrap();
        let token = self.state.leases.acquire(&lease, "test", DEADLINE).await.unwrap().unwrap();
        let instance = |version: &str| Instance {
            id: version.parse().unwrap(),
            version: version.parse().unwrap(),
            address: "10.0.0.1:80".into(),
            region: None,
            zone: None,
            weight: 1,
            enabled: true,
            healthy: true,
            ephemeral: true,
            source: None,
            metadata: BTreeMap::new(),
        };
        let instances = vec![instance("v1.0"), instance("v2.0")];
        let list = ServiceInstances { service: "payment".parse().unwrap(), instances };
        self.state.instances.replace(token, &list).await.unwrap();
    }

    /// Pins beta to a version that it does not have, and waits for the routers.
    pub(crate) async fn pin(&self, wait: Duration) -> RouterProgress {
        let count = self.writes.fetch_add(1, Relaxed);
        let version = if count.is_multiple_of(2) { "v2.0" } else { "v1.0" };
        let pin = Pin { version: version.into(), ..pin("beta") };
        let write = WriteOptions { wait: Some(wait.into()), ..WriteOptions::default() };
        let request = PutPinRequest { pin: Some(pin), write: Some(write), ..PutPinRequest::default() };
        let mut pins = PinServiceClient::new(self.control.channel());
        pins.put_pin(request).await.unwrap().into_inner().result.unwrap().routers.unwrap()
    }

    pub(crate) async fn routers(&self) -> Vec<RouterState> {
        let mut fleet = FleetServiceClient::new(self.control.channel());
        match fleet.list_routers(ListRoutersRequest { former: true }).await {
            Ok(answer) => answer.into_inner().routers,
            Err(_) => Vec::new(),
        }
    }

    pub(crate) async fn until(&self, id: &str, status: RouterStatus) {
        eventually(DEADLINE, &format!("router {id} is {status:?}"), async || {
            self.routers().await.iter().any(|router| router.id == id && router.status() == status)
        })
        .await;
    }
}

pub(crate) fn pin(tenant: &str) -> Pin {
    Pin { tenant: tenant.into(), service: "payment".into(), ..Pin::default() }
}

/// Everyone has it.
#[track_caller]
fn everywhere(progress: &RouterProgress, total: u32) {
    assert!(progress.complete, "{progress:?}");
    assert_eq!((progress.applied, progress.total), (total, total), "{progress:?}");
}

/// Not everyone has it, and this one is named.
#[track_caller]
fn lacks(progress: &RouterProgress, id: &str, status: RouterStatus) {
    assert!(!progress.complete, "{progress:?}");
    let found = progress.routers.iter().find(|router| router.id == id).map(RouterState::status);
    assert_eq!(found, Some(status), "{progress:?}");
}

const BRIEFLY: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_state_that_is_wiped_or_away_makes_no_router_forgotten() {
    let _stage = stage().await;
    let world = World::start().await;
    everywhere(&world.pin(DEADLINE).await, 2);

    let mut redis = TcpStream::connect(world.redis.addr()).await.unwrap();
    redis.write_all(b"FLUSHALL\r\n").await.unwrap();
    let mut answer = [0; 5];
    redis.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+OK\r\n");
    everywhere(&world.pin(DEADLINE).await, 2);

    world.redis.kill9().unwrap();
    let away = world.pin(BRIEFLY).await;
    assert!(!away.complete && away.applied == 0, "{away:?}");
    assert_eq!(away.routers.len(), 2, "both are named: {away:?}");
    world.redis.restart_empty().await.unwrap();
    everywhere(&world.pin(DEADLINE).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_router_is_waited_for_until_it_goes_on_or_is_dismissed() {
    let _stage = stage().await;
    let world = World::start().await;
    everywhere(&world.pin(DEADLINE).await, 2);
    world.b.freeze();
    world.until("b", RouterStatus::Unreachable).await;
    lacks(&world.pin(BRIEFLY).await, "b", RouterStatus::Unreachable);
    world.b.thaw();
    everywhere(&world.pin(DEADLINE).await, 2);

    world.b.freeze();
    world.until("b", RouterStatus::Unreachable).await;
    let mut fleet = FleetServiceClient::new(world.control.channel());
    let request = DismissRouterRequest { id: "b".into(), reason: "its machine is off for good".into() };
    fleet.dismiss_router(request).await.unwrap();
    everywhere(&world.pin(DEADLINE).await, 1);
    world.b.thaw();
    world.until("b", RouterStatus::Applied).await;
    everywhere(&world.pin(DEADLINE).await, 2);
}

/// The command line, on the world's control plane.
async fn grey(world: &World, args: &[&str]) -> std::process::Output {
    let program = grey_testkit::process::cargo_binary("grey").unwrap();
    let control = format!("http://{}", world.control.grpc);
    let mut command = tokio::process::Command::new(program);
    command.args(["--control", &control]).args(args).kill_on_drop(true);
    tokio::time::timeout(DEADLINE, command.output()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_router_counts_until_that_is_proven_and_one_that_leaves_counts_no_more() {
    let _stage = stage().await;
    let mut world = World::start().await;
    world.b.kill9();
    world.until("b", RouterStatus::Unreachable).await;
    lacks(&world.pin(BRIEFLY).await, "b", RouterStatus::Unreachable);
    let told = grey(&world, &["tenant", "set", "beta", "--name", "Beta", "--wait", "100ms"]).await;
    assert!(!told.status.success(), "what not everyone has is no success: {told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("ROUTERS_BEHIND"), "{told:?}");
    world.until("b", RouterStatus::Gone).await;
    everywhere(&world.pin(DEADLINE).await, 1);
    world.b.start();
    world.until("b", RouterStatus::Applied).await;
    everywhere(&world.pin(DEADLINE).await, 2);

    // Another one in its place.
    world.b.kill9();
    let port = world.b.grpc.parse::<SocketAddr>().unwrap().port();
    let port = ReservedPort::exactly(port).unwrap();
    let mut other = Server::on("grey-router", router("other", &world.redis.url()), port);
    world.until("other", RouterStatus::Applied).await;
    world.until("b", RouterStatus::Gone).await;
    everywhere(&world.pin(DEADLINE).await, 2);

    other.stop().await;
    everywhere(&world.pin(DEADLINE).await, 1);
    world.until("other", RouterStatus::Left).await;
}
