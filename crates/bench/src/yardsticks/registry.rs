//! From a registration at a Nacos server to a router that uses it.

use super::route::{redis_options, router_settings};
use crate::programs::{self, Program, Service};
use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use crate::world::{self, World};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use grey_proto::router::RouteRequest;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_state::State;
use grey_testkit::{Nacos, Redis};
use nacos_sdk::api::naming::{
    NamingChangeEvent, NamingEventListener, NamingService, NamingServiceBuilder, ServiceInstance,
};
use nacos_sdk::api::props::ClientProps;
use serde_json::{Map, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// What is pinned: tenant `t` to version `(t + s) % 4` of service `s`. Only the last tenant's versions have their instances
/// from the start, so that every service is known and followed; each change registers another tenant's instance.
const FLEET: World = World { tenants: 4, services: 100, versions: 4, instances: 1 };
/// The tenant whose versions have instances from the start.
const FIRST: usize = FLEET.tenants - 1;
/// Changes before anything counts.
const WARM_UP: usize = 20;
/// Changes at once, each of another service: most of the time is spent waiting for the server to push.
const AT_ONCE: usize = 4;
/// Time between two questions to the router.
const LOOK: Duration = Duration::from_millis(1);
/// How long a server's processor time is counted, and how many changes there are meanwhile.
const LOAD: (Duration, usize) = (Duration::from_secs(30), 300);
/// Longest wait for one change to take effect.
const EFFECT: Duration = Duration::from_secs(60);

/// How many instances there were, and when that was told.
type Told = Vec<(usize, Instant)>;

/// A bare subscriber of the same client library: what it was told, by service.
#[derive(Clone, Default)]
struct Subscriber(Arc<Mutex<HashMap<String, Told>>>);

impl NamingEventListener for Subscriber {
    fn event(&self, event: Arc<NamingChangeEvent>) {
        let count = event.instances.as_ref().map_or(0, Vec::len);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(event.service_name.clone()).or_default().push((count, Instant::now()));
    }
}

impl Subscriber {
    /// When it first saw `count` instances of `service`.
    fn saw(&self, service: &str, count: usize) -> Option<Instant> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let events = seen.get(service)?;
        events.iter().find(|(instances, _)| *instances >= count).map(|(_, at)| *at)
    }
}

/// The mirror and a router on real servers, and who registers instances.
struct Stage {
    registrations: NamingService,
    subscriber: Subscriber,
    routes: RouterServiceClient<Channel>,
    _subscription: NamingService,
    _services: [Service; 2],
    _servers: (Redis, Nacos),
}

impl Stage {
    async fn start() -> Result<Self> {
        let (redis, nacos) = (Redis::start().await?, Nacos::start().await?);
        FLEET.publish_records(&State::redis(&redis_options(&redis.url())).await?).await?;
        let registrations = naming(nacos.addr()).await?;
        for service in 0..FLEET.services {
            register(&registrations, FIRST, service).await?;
        }
        let settings = router_settings(&redis.url());
        let router = Service::start(Program::Router, &settings)?;
        let mirror = start_mirror(&redis, &nacos).await?;
        router.ready().await?;

        let subscriber = Subscriber::default();
        let subscription = subscribe(&nacos, &subscriber).await?;
        let endpoint = Endpoint::from_shared(format!("http://{}", router.grpc))?.tcp_nodelay(true);
        let routes = RouterServiceClient::new(endpoint.connect().await.context("connect to the router")?);
        let (_services, _servers) = ([router, mirror], (redis, nacos));
        let stage =
            Self { registrations, subscriber, routes, _subscription: subscription, _services, _servers };
        // The mirror follows every service once it has told of the last one.
        let last = FLEET.services - 1;
        stage.effect(FIRST, last, &FLEET.pinned(FIRST, last)).await?;
        Ok(stage)
    }

    /// When the router first sends a tenant to the version that it is pinned to.
    async fn effect(&self, tenant: usize, service: usize, version: &str) -> Result<Instant> {
        let call = RouteRequest {
            tenant: World::tenant(tenant),
            service: World::service(service),
            ..RouteRequest::default()
        };
        let end = Instant::now() + EFFECT;
        let mut routes = self.routes.clone();
        loop {
            match routes.route(call.clone()).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    ensure!(answer.version == version, "{} is answered, not {version}", answer.version);
                    return Ok(Instant::now());
                }
                // No instance yet.
                Err(status) if status.code() == Code::Unavailable => {}
                Err(status) => return Err(status).context("route a call"),
            }
            ensure!(Instant::now() < end, "no effect within {EFFECT:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Registers the first instance of the version that a tenant is pinned to; how long until the router uses it, and
    /// until the bare subscriber was told.
    async fn change(&self, tenant: usize, service: usize) -> Result<(Duration, Duration)> {
        let version = FLEET.pinned(tenant, service);
        let begin = Instant::now();
        register(&self.registrations, tenant, service).await?;
        let effect = self.effect(tenant, service, &version).await? - begin;
        let name = World::service(service);
        let end = Instant::now() + EFFECT;
        loop {
            if let Some(told) = self.subscriber.saw(&name, tenant + 2) {
                return Ok((effect, told - begin));
            }
            ensure!(Instant::now() < end, "the bare subscriber was told nothing within {EFFECT:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn start_mirror(redis: &Redis, nacos: &Nacos) -> Result<Service> {
    let settings = [
        ("GREY__REDIS__URLS", format!("['{}']", redis.url())),
        ("GREY__SOURCES", format!("[{{name='bench',kind='nacos',servers=['{}']}}]", nacos.addr())),
        ("GREY__TELEMETRY__LOG_FILTER", "warn".to_owned()),
    ];
    let mirror = Service::start(Program::RegistrySync, &settings)?;
    mirror.ready().await?;
    Ok(mirror)
}

/// A subscription to every service, which ends when it is dropped.
async fn subscribe(nacos: &Nacos, subscriber: &Subscriber) -> Result<NamingService> {
    let subscription = naming(nacos.addr()).await?;
    for service in 0..FLEET.services {
        let listener = Arc::new(subscriber.clone());
        subscription.subscribe(World::service(service), None, Vec::new(), listener).await?;
    }
    Ok(subscription)
}

/// Processor time of a Nacos server, in ticks, while instances are registered and one client follows them: the mirror, or
/// a bare subscriber.
async fn nacos_ticks(mirrored: bool) -> Result<f64> {
    let (redis, nacos) = (Redis::start().await?, Nacos::start().await?);
    let registrations = naming(nacos.addr()).await?;
    for service in 0..FLEET.services {
        register(&registrations, FIRST, service).await?;
    }
    let (_mirror, _subscription) = match mirrored {
        true => (Some(start_mirror(&redis, &nacos).await?), None),
        false => (None, Some(subscribe(&nacos, &Subscriber::default()).await?)),
    };
    // What a start costs is not what following costs.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = ticks(&nacos)?;
    let mut beat = tokio::time::interval(LOAD.0 / u32::try_from(LOAD.1)?);
    for change in 0..LOAD.1 {
        beat.tick().await;
        register(&registrations, change / FLEET.services, change % FLEET.services).await?;
    }
    // The last ones are pushed a second later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(ticks(&nacos)? - before)
}

/// Processor time that the server has taken, in the ticks of the kernel.
fn ticks(nacos: &Nacos) -> Result<f64> {
    let pid = nacos.id().context("find the server's process")?;
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read the server's statistics")?;
    let (_, fields) = stat.rsplit_once(')').context("read the server's statistics")?;
    // The 14th and 15th field, of which two are before the parenthesis.
    let times = fields.split_ascii_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<f64>().context("read the server's processor time")).sum()
}

/// A client of its own connection.
async fn naming(server: SocketAddr) -> Result<NamingService> {
    let props = ClientProps::new().server_addr(server.to_string()).env_first(false);
    NamingServiceBuilder::new(props).build().await.context("connect to nacos")
}

/// Registers the instance of the version that tenant number `tenant` would be pinned to.
async fn register(naming: &NamingService, tenant: usize, service: usize) -> Result<()> {
    let number = (tenant + service) % FLEET.versions;
    let instance = ServiceInstance {
        ip: format!("10.{service}.{number}.1"),
        port: 8080,
        metadata: HashMap::from([("version".to_owned(), world::version(number))]),
        ..ServiceInstance::default()
    };
    naming.register_instance(World::service(service), None, instance).await.context("register an instance")
}

pub(super) async fn to_router() -> Result<Measurement> {
    programs::build(&[Program::Router, Program::RegistrySync])?;
    let stage = Stage::start().await?;
    let (mut effects, mut tellings) = (Vec::new(), Vec::new());
    let places: Vec<_> = (0..FIRST).flat_map(|t| (0..FLEET.services).map(move |s| (t, s))).collect();
    for (round, places) in places.chunks(AT_ONCE).enumerate() {
        let changes = places.iter().map(|(tenant, service)| stage.change(*tenant, *service));
        for (effect, telling) in try_join_all(changes).await? {
            if round * AT_ONCE >= WARM_UP {
                effects.push(effect.as_secs_f64() * 1e3);
                tellings.push(telling.as_secs_f64() * 1e3);
            }
        }
    }
    drop(stage);
    let (bare, mirrored) = (nacos_ticks(false).await?, nacos_ticks(true).await?);
    let changes = effects.len();
    let (effects, tellings) = (Figures::new(effects), Figures::new(tellings));
    let ratio = effects.median() / tellings.median();
    say(&format!(
        "registry_to_router: {:.0} ms (p99 {:.0}) over {changes} changes; a bare subscriber was told in {:.0} ms (p99 {:.0})",
        effects.median(),
        effects.quantile(0.99),
        tellings.median(),
        tellings.quantile(0.99),
    ));
    say(&format!("nacos took {mirrored:.0} ticks with the mirror, {bare:.0} with a bare subscriber"));
    let more = Map::from_iter([
        ("changes".to_owned(), json!(changes)),
        ("p50_ms".to_owned(), rounded(effects.median())),
        ("p99_ms".to_owned(), rounded(effects.quantile(0.99))),
        ("against_ms".to_owned(), rounded(tellings.median())),
        ("against_p99_ms".to_owned(), rounded(tellings.quantile(0.99))),
        ("nacos_cpu_ratio".to_owned(), rounded(mirrored / bare.max(1.0))),
    ]);
    Ok(Measurement {
        name: "registry_to_router",
        value: effects.median(),
        unit: "ms",
        ratio,
        against: "the server's push to a bare subscriber",
        more,
    })
}
