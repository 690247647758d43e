//! Faults of a real Nacos and of its mirror under load: no call fails, and nobody comes back from the dead.

use crate::hosts::{Host, List, Truth};
use crate::load::{Load, TENANTS, tenant};
use crate::model::Answer;
use crate::server::{DEADLINE, Server, settings, stage};
use crate::watched::Watched;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::change::Change;
use grey_proto::control::failover::Rule;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::{
    ApplyChangeSetRequest, Failover, Pin, Policy, ProposedChange, PutPolicyRequest, PutServiceRequest,
    PutVersionRequest, Service, ServiceVersion, Tenant,
};
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::router::{RouteRequest, RouteResponse};
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_proto::sync::{AcceptRequest, GetStatusRequest, HeldChange, HoldReason, SourceState, SyncStatus};
use grey_testkit::{Nacos, Redis, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Tenants of even numbers are on the first version, the others are pinned to the second one.
const PLAIN: [&str; 5] = ["accounts", "catalog", "invoices", "orders", "search"];
const VERSIONS: [&str; 2] = ["v1.0", "v2.0"];
/// All of its instances are relabelled at once in the end.
const FLIPPED: &str = "billing";
const FLIPPED_TO: &str = "v1.5";
const SERVICES: [&str; 6] = ["accounts", "catalog", "invoices", "orders", "search", FLIPPED];

/// Hosts, each with an instance of every version; the last ones die.
const HOSTS: usize = 8;
const MORTAL: usize = 3;

/// Connections to each router, and the pause between calls of one: 2,500 calls a second over both.
const CONNECTIONS: usize = 25;
const PAUSE: Duration = Duration::from_millis(20);
/// Calls that a fault goes on for.
const WHILE: u64 = 4_000;
/// Calls in all, at least.
const CALLS: u64 = 40_000;

struct World {
    nacos: Nacos,
    control: Server,
    routers: Vec<Server>,
    mirrors: Vec<Server>,
    hosts: Vec<Host>,
    truth: Truth,
    watched: Vec<Watched>,
    loads: Vec<Load>,
    /// From now on the relabelled service may be answered with its new version.
    accepted: Arc<AtomicBool>,
    _redis: Redis,
    _store: TempDir,
}

impl World {
    async fn start() -> Self {
        grey_runtime::tls::install_provider();
        let (redis, nacos) = (Redis::start().await.unwrap(), Nacos::start().await.unwrap());
        let store = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}/control.db", store.path().display());
        let urls = format!("[\"{}\"]", redis.url());
        let source = format!(
            "[{{ name = \"dc-1\", kind = \"nacos\", servers = [\"{}\"], discover = \"500ms\", \
             call_timeout = \"1s\", retry = \"1s\" }}]",
            nacos.addr()
        );
        let mirror = |name: &str| {
            let settings = settings([
                ("REPLICA", name),
                ("SOURCES", &source),
                ("SYNC__LEASE", "2s"),
                ("PROBE__INTERVAL", "200ms"),
                ("REDIS__URLS", &urls),
            ]);
            Server::new("grey-registry-sync", settings)
        };
        let router =
            |id: &str| Server::new("grey-router", settings([("ROUTER__ID", id), ("REDIS__URLS", &urls)]));
        let control = settings([("DATABASE__URL", &database), ("REDIS__URLS", &urls)]);
        let mut world = Self {
            control: Server::new("grey-control-plane", control),
            routers: vec![router("a"), router("b")],
            mirrors: vec![mirror("0"), mirror("1")],
            hosts: Vec::new(),
            truth: Truth::default(),
            watched: Vec::new(),
            loads: Vec::new(),
            accepted: Arc::default(),
            nacos,
            _redis: redis,
            _store: store,
        };
        world.control.until_ready().await;
        world.declare().await;
        let mut pools: Vec<(&str, &str)> =
            PLAIN.iter().flat_map(|service| VERSIONS.map(|version| (*service, version))).collect();
        pools.push((FLIPPED, VERSIONS[0]));
        for _ in 0..HOSTS {
            world.hosts.push(Host::start(&world.nacos, &pools, &world.truth).await);
        }
        for router in &world.routers {
            router.until_ready().await;
            world.watched.push(Watched::start(&router.grpc, &world.truth).await);
        }
        world.until_applied("every instance is routed to").await;
        for (router, watched) in world.routers.iter().zip(&world.watched) {
            let (watched, truth, accepted) =
                (watched.clone(), world.truth.clone(), Arc::clone(&world.accepted));
            let judge = move |call: &RouteRequest, answer: &RouteResponse, asked: Instant| {
                judge(&truth, &watched, accepted.load(SeqCst), call, answer, asked)
            };
            world.loads.push(Load::judged(&router.grpc, CONNECTIONS, PAUSE, &SERVICES, judge));
        }
        world
    }

    async fn declare(&self) {
        let mut catalog = CatalogServiceClient::new(self.control.channel());
        for service in SERVICES {
            let (id, default_version) = (service.to_owned(), VERSIONS[0].to_owned());
            let declared = Some(Service { id, default_version, revision: 0 });
            catalog.put_service(PutServiceRequest { service: declared, write: None }).await.unwrap();
            let (service, version) =
                (service.to_owned(), if service == FLIPPED { FLIPPED_TO } else { VERSIONS[1] });
            let version =
                ServiceVersion { service, version: version.to_owned(), ..ServiceVersion::default() };
            catalog
                .put_version(PutVersionRequest { version: Some(version), ..Default::default() })
                .await
                .unwrap();
        }
        let policy = Policy {
            service: FLIPPED.to_owned(),
            failover: Some(Failover { rule: Some(Rule::ToNearest(true)) }),
            ..Policy::default()
        };

        catalog.put_policy(PutPolicyRequest { policy: Some(policy), ..Default::default() }).await.unwrap();
        let tenants = (0..TENANTS).map(|i| Change::TenantPut(Tenant { id: tenant(i), ..Tenant::default() }));
        let pinned = |i| {
            let (tenant, version) = (tenant(i), VERSIONS[1].to_owned());
            let pin = move |service: &str| Pin {
                tenant: tenant.clone(),
                service: service.to_owned(),
                version: version.clone(),
                ..Pin::default()
            };
            PLAIN.map(pin).map(Change::PinPut)
        };
        let pins = (0..TENANTS).filter(|i| expected(&tenant(*i)) == VERSIONS[1]).flat_map(pinned);
        let changes = tenants.chain(pins).map(|change| ProposedChange {
            change: Some(grey_proto::control::Change { change: Some(change) }),
            expected_revision: None,
        });
        let set = ApplyChangeSetRequest { changes: changes.collect(), write: None };
        PinServiceClient::new(self.control.channel()).apply_change_set(set).await.unwrap();
    }

    /// Both routers route to exactly what runs.
    async fn until_applied(&self, what: &str) {
        eventually(DEADLINE * 2, what, async || {
            let alive = self.truth.alive();
            self.watched.iter().all(|watched| watched.lists() == alive)
        })
        .await;
    }

    fn calls(&self) -> u64 {
        self.loads.iter().map(Load::calls).sum()
    }

    /// Goes on for `more` calls.
    async fn until_called(&self, more: u64) {
        let enough = self.calls() + more;
        eventually(DEADLINE, "calls are answered", async || self.calls() >= enough).await;
    }

    /// What the leading mirror tells, if it `fits`; any of the replicas that live may be asked.
    async fn status_where(&self, what: &str, fits: impl Fn(&SyncStatus) -> bool) -> SyncStatus {
        let mut found = None;
        eventually(DEADLINE, what, async || {
            for mirror in self.mirrors.iter().filter(|mirror| mirror.runs()) {
                let mut asked = SyncServiceClient::new(mirror.channel());
                let Ok(answer) = asked.get_status(GetStatusRequest {}).await else { continue };
                let status = answer.into_inner().status.unwrap();
                if !status.leader.is_empty() && fits(&status) {
                    found = Some(status);
                    return true;
                }
            }
            false
        })
        .await;
        found.unwrap()
    }

    async fn until_source(&self, state: SourceState) {
        let told = |status: &SyncStatus| status.sources[0].state() == state;
        self.status_where("the mirror tells how Nacos is", told).await;
    }

    /// The source is read again, and nothing is in doubt any more.
    async fn until_settled(&self) {
        let told =
            |status: &SyncStatus| status.sources[0].state() == SourceState::Ok && status.held_total == 0;
        self.status_where("nothing is held any more", told).await;
        self.until_applied("exactly what runs is routed to again").await;
    }

    /// The promise.
    fn check(&self, after: &str) {
        for (load, watched) in self.loads.iter().zip(&self.watched) {
            assert_eq!(load.failures(), Vec::<String>::new(), "after {after}");
            assert_eq!(watched.faults(), Vec::<String>::new(), "after {after}");
        }
    }
}

/// The version that a tenant is to be answered with, of every service but the relabelled one.
fn expected(tenant: &str) -> &'static str {
    let number: usize = tenant.rsplit('-').next().unwrap().parse().unwrap();
    VERSIONS[number % VERSIONS.len()]
}

/// Whether an answer names the right version, and an instance of it that was not known to be gone.
fn judge(
    truth: &Truth,
    watched: &Watched,
    accepted: bool,
    call: &RouteRequest,
    answer: &RouteResponse,
    asked: Instant,
) -> Result<(), String> {
    let id = answer.instance.as_ref().map_or("", |instance| instance.id.as_str());
    let objection = |why: &str| Err(format!("{} of {} got {id}: {why}", call.service, call.tenant));
    let Some(instance) = truth.get(id) else { return objection("no such instance") };
    if instance.service != call.service {
        return objection("an instance of another service");
    }
    let is_right = match call.service.as_str() {
        FLIPPED => answer.version == VERSIONS[0] || accepted && answer.version == FLIPPED_TO,
        _ => answer.version == expected(&call.tenant) && answer.version == instance.version,
    };
    if !is_right {
        return objection(&format!("version {}", answer.version));
    }
    if !instance.alive && watched.gone_since(id).is_some_and(|gone| gone < asked) {
        return objection("it is gone, and the router knew");
    }
    Ok(())
}

/// Relabels all instances of one service, which is held until someone accepts it.
async fn flip(world: &mut World) {
    for host in &mut world.hosts[..HOSTS - MORTAL] {
        host.relabel(FLIPPED, FLIPPED_TO).await;
    }
    let all = world.truth.alive()[FLIPPED].len();
    let flipped = |watched: &Watched| {
        watched.lists()[FLIPPED].values().filter(|version| *version == FLIPPED_TO).count()
    };
    let held = |status: &SyncStatus| -> Option<HeldChange> {
        let mut held = status.held.iter();
        held.find(|held| held.subject == format!("{FLIPPED}@dc-1")).cloned()
    };
    // A few may change freely; all the others are in question.
    let asked_about_the_rest = |status: &SyncStatus| {
        let free = world.watched.iter().map(flipped);
        let question = held(status).map_or(0, |held| usize::try_from(held.affected).unwrap());
        question > 0 && free.into_iter().all(|free| free + question == all)
    };
    let status = world.status_where("the change of all versions is held", asked_about_the_rest).await;
    let change = held(&status).unwrap();
    assert_eq!(change.reason(), HoldReason::VersionFlip);
    assert!(change.affected * 2 > change.total, "{change:?}");
    world.until_called(WHILE).await;
    world.check("a change of all versions that is held");

    world.accepted.store(true, SeqCst);
    let mirror = world.mirrors.iter().find(|mirror| mirror.runs()).unwrap();
    let accept = AcceptRequest { change: change.id, wait: Some(DEADLINE.into()) };
    let answer = SyncServiceClient::new(mirror.channel()).accept(accept).await.unwrap();
    assert_eq!(answer.into_inner().handled.unwrap().error, "");
    world.until_applied("the accepted versions are routed to").await;
    for router in &world.routers {
        let (tenant, service) = (tenant(0), FLIPPED.to_owned());
        let call = RouteRequest { tenant, service, ..RouteRequest::default() };
        let answer = RouterServiceClient::new(router.channel()).route(call).await.unwrap().into_inner();
        assert_eq!((answer.version.as_str(), answer.wanted_version.as_str()), (FLIPPED_TO, VERSIONS[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registry_faults_under_load_fail_no_call_and_bring_nobody_back_from_the_dead() {
    let _stage = stage().await;
    let mut world = World::start().await;
    world.until_called(WHILE).await;
    world.check("the start");

    eprintln!("a host dies");
    world.hosts[HOSTS - 1].die().await;
    world.until_applied("a host that died is forgotten").await;
    world.check("a host's death");

    eprintln!("kill -9 of Nacos; a host dies while it is gone");
    world.nacos.kill9().unwrap();
    world.hosts[HOSTS - 2].die().await;
    world.until_source(SourceState::Failing).await;
    let before: Vec<BTreeMap<String, List>> = world.watched.iter().map(Watched::lists).collect();
    world.until_called(WHILE).await;
    let lists: Vec<_> = world.watched.iter().map(Watched::lists).collect();
    assert_eq!(lists, before, "nobody leaves while Nacos is gone");
    world.check("the death of Nacos");

    eprintln!("Nacos comes back empty, and is filled again by those that live");
    let living = &world.hosts[..HOSTS - 2];
    for host in living {
        host.cut_off().await;
    }
    world.nacos.restart_empty().await.unwrap();
    let empty = |status: &SyncStatus| {
        let dropped = status.held.iter().filter(|held| held.reason() == HoldReason::InstanceDrop);
        status.sources[0].state() == SourceState::Ok && dropped.count() == SERVICES.len()
    };
    world.status_where("the loss of everything is held", empty).await;
    world.until_applied("only those that died are forgotten").await;
    world.until_called(WHILE).await;
    world.check("an empty list");
    for host in living {
        host.rejoin().await;
    }
    world.until_settled().await;
    world.check("the return of Nacos");

    eprintln!("Nacos does not answer for a while");
    world.nacos.pause().unwrap();
    world.until_source(SourceState::Failing).await;
    world.until_called(WHILE).await;
    world.nacos.resume().unwrap();
    world.until_settled().await;
    world.check("a silence of Nacos");

    eprintln!("kill -9 of the leading mirror; a host dies under the next one");
    let leader = world.status_where("a mirror leads", |_| true).await.leader;
    let at: usize = leader.parse().unwrap();
    world.mirrors[at].kill9();
    world.hosts[HOSTS - 3].die().await;
    let other = |status: &SyncStatus| status.leader != leader;
    world.status_where("the other mirror leads", other).await;
    world.until_settled().await;
    world.check("a mirror's death");
    world.mirrors[at].start();

    eprintln!("all instances of a service are relabelled at once");
    flip(&mut world).await;
    eventually(DEADLINE * 2, "enough calls are made", async || world.calls() >= CALLS).await;
    world.check("everything");

    let missed: u64 = world.watched.iter().map(Watched::missed).sum();
    let (mut named, mut calls, mut rate): (BTreeSet<String>, u64, f64) = Default::default();
    for load in std::mem::take(&mut world.loads) {
        calls += load.calls();
        let (answers, per_second) = load.finish().await;
        named.extend(answers.into_iter().map(|answer: Answer| answer.instance));
        rate += per_second;
    }
    let dead = world.truth.dead();
    assert_eq!(dead.len(), MORTAL * (PLAIN.len() * VERSIONS.len() + 1));
    for id in &dead {
        assert!(named.contains(id), "{id} was never called while it lived");
        assert!(
            world.watched.iter().all(|watched| watched.gone_since(id).is_some()),
            "{id} was never let go"
        );
    }
    eprintln!(
        "{calls} calls, {rate:.0} a second, of {} instances; one that runs was left out {missed} times",
        named.len()
    );
}
