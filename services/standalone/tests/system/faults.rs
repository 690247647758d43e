//! Every fault in turn: each kind of key in Redis damaged, each process killed and frozen, and a failover that loses what
//! was acknowledged. Meanwhile pins change and calls go on without pause. After each fault every router ends in the log's
//! table, and no answer that is wrong for its revision is marked fresh.
//!
//! Each kind of key is damaged in one way, the next kind in the next one; with `GREY_FAULTS=all` in every way, which takes
//! some minutes.

use crate::damage::{Damage, Keys, documented};
use crate::fleet::Fleet;
use crate::load::{Load, SERVICES, TENANTS, tenant};
use crate::model::{self, Answer};
use crate::operator::{Operator, check_acknowledged};
use crate::server::{DEADLINE, Server, settings, stage};
use crate::truth::Truth;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{Balancing, ObserveSchemaRequest, ObservedSchema, Policy, PutPolicyRequest, Scope};
use grey_proto::router::IdentifyRequest;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_testkit::eventually;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Connections to each router, and the pause between calls of one.
const CONNECTIONS: usize = 3;
const PAUSE: Duration = Duration::from_millis(10);

/// Requests to leaders are taken within moments.
const PASSING: &str = "grey:requests:*";

/// The router that is started anew after each damage.
const FRESH: usize = 2;

fn router_settings() -> Vec<(String, String)> {
    settings([
        ("HEARTBEAT__INTERVAL", "200ms"),
        ("HEARTBEAT__TTL", "1500ms"),
        ("FEED__WAIT", "100ms"),
        ("FEED__STALE_AFTER", "1500ms"),
    ])
}

/// How long it took until everyone was right, and, of that, those that had not been started anew.
struct Took {
    everyone: Duration,
    running: Duration,
    fault: String,
}

/// Everything that runs.
struct Trial {
    fleet: Fleet,
    operator: Operator,
    loads: Vec<Load>,
    truth: Truth,
    /// How long each fault took to be over.
    took: Vec<Took>,
}

impl Trial {
    async fn start() -> Self {
        let mut fleet = Fleet::with(&router_settings()).await;
        enrich(&fleet).await;
        let urls = format!("[\"{}\"]", fleet.redis.url());
        let own = settings([("ROUTER__ID", "fresh"), ("REDIS__URLS", &urls)]);
        fleet.routers.push(Server::new("grey-router", [own, router_settings()].concat()));
        fleet.routers[FRESH].until_ready().await;
        // One that says goodbye, which stays in Redis.
        let former = settings([("ROUTER__ID", "former"), ("REDIS__URLS", &urls)]);
        let mut former = Server::new("grey-router", former);
        former.until_ready().await;
        former.stop().await;
        let loads =
            fleet.routers.iter().map(|router| Load::start(&router.grpc, CONNECTIONS, PAUSE)).collect();
        let truth = Truth::new(fleet.control.channel());
        let operator = Operator::start(fleet.control.channel());
        let mut trial = Self { fleet, operator, loads, truth, took: Vec::new() };
        trial.settles("the start", Instant::now()).await;
        // What there is to compare with: how long it takes to start a router, and to ask everyone.
        let since = Instant::now();
        trial.renew();
        trial.settles("no fault", since).await;
        trial
    }

    /// Waits until commands are taken, and every router is in the table that has them.
    async fn settles(&mut self, fault: &str, since: Instant) {
        self.operator.until_more(3).await;
        let mut head = None;
        let truth = &mut self.truth;
        eventually(DEADLINE, "the log is read", async || {
            head = truth.head().await;
            head.is_some()
        })
        .await;
        let head = head.unwrap();
        let mut running = Duration::ZERO;
        for (index, router) in self.fleet.routers.iter().enumerate() {
            if index == FRESH {
                running = since.elapsed();
            }
            let channel = router.channel();
            let what = format!("{fault}: the router at {} serves the log's table", router.grpc);
            let truth = &mut self.truth;
            eventually(DEADLINE, &what, async || truth.is_served_by(&channel, head).await).await;
        }
        let heartbeats = &self.fleet.state.heartbeats;
        let truth = &mut self.truth;
        eventually(DEADLINE, &format!("{fault}: every router tells of the log's table"), async || {
            let Ok(live) = heartbeats.live().await else { return false };
            if truth.head().await.is_none() {
                return false;
            }
            ["a", "b", "fresh"]
                .iter()
                .all(|id| live.iter().any(|beat| beat.router == *id && truth.is_told_by(beat, head)))
        })
        .await;
        let everyone = since.elapsed();
        eprintln!(
            "{:>6} ms, {:>6} ms with the fresh router: {fault}",
            running.as_millis(),
            everyone.as_millis()
        );
        self.took.push(Took { everyone, running, fault: fault.to_owned() });
    }

    /// A router that starts with what is in Redis then.
    fn renew(&mut self) {
        let router = &mut self.fleet.routers[FRESH];
        router.kill9();
        router.start();
    }

    /// Waits until the routers know that nobody confirms their table.
    async fn until_stale(&self) {
        for router in &self.fleet.routers {
            let router = RouterServiceClient::new(router.channel());
            eventually(DEADLINE, "the router is not current", async || {
                let told = router.clone().identify(IdentifyRequest {}).await;
                told.is_ok_and(|told| !told.into_inner().current)
            })
            .await;
        }
    }
}

/// Whatever makes a kind of key of its own.
async fn enrich(fleet: &Fleet) {
    let mut catalog = CatalogServiceClient::new(fleet.control.channel());
    let balancing = Balancing { scope: Scope::Global.into(), ..Balancing::default() };
    for service in SERVICES {
        let balancing = (service == SERVICES[0]).then(|| balancing.clone());
        let policy = Policy { service: service.to_owned(), balancing, ..Policy::default() };
        catalog.put_policy(PutPolicyRequest { policy: Some(policy), ..Default::default() }).await.unwrap();
    }
    let mut tenants = TenantServiceClient::new(fleet.control.channel());
    for i in 0..TENANTS {
        let schema = ObservedSchema {
            tenant: tenant(i),
            service: SERVICES[i % SERVICES.len()].to_owned(),
            schema: format!("1.{i}"),
            ..ObservedSchema::default()
        };
        let request = ObserveSchemaRequest { schema: Some(schema), write: None };
        tenants.observe_schema(request).await.unwrap();
    }
}

/// Every kind of key, found as it appears.
async fn damage_every_key(trial: &mut Trial) {
    let is_long = std::env::var("GREY_FAULTS").is_ok_and(|which| which == "all");
    let mut keys = Keys::of(&trial.fleet.redis).await;
    keys.keep().await;
    trial.operator.until_more(50).await;
    let mut done: BTreeSet<String> = BTreeSet::new();
    while let Some((kind, _)) = keys.by_kind().await.into_iter().find(|(kind, _)| !done.contains(kind)) {
        let ways = Damage::ALL.into_iter().cycle().skip(done.len()).take(if is_long {
            Damage::ALL.len()
        } else {
            1
        });
        for damage in ways {
            // It may have gone, and it may come back.
            let Some(damaged) = keys.by_kind().await.remove(&kind) else { continue };
            let since = Instant::now();
            keys.inflict(&damaged, damage).await;
            trial.renew();
            trial.settles(&format!("{kind} {damage:?}"), since).await;
        }
        done.insert(kind);
    }
    done.remove(PASSING);
    let mut documented = documented();
    documented.remove(PASSING);
    assert_eq!(done, documented, "kinds of keys that are in Redis, and those that ARCHITECTURE.md lists");
}

async fn kill_and_freeze_every_process(trial: &mut Trial) {
    for (index, id) in [(0, "a"), (1, "b")] {
        trial.fleet.routers[index].kill9();
        trial.operator.until_more(20).await;
        let since = Instant::now();
        trial.fleet.routers[index].start();
        trial.settles(&format!("router {id} killed"), since).await;

        trial.fleet.routers[index].freeze();
        trial.operator.until_more(20).await;
        let since = Instant::now();
        trial.fleet.routers[index].thaw();
        trial.settles(&format!("router {id} frozen"), since).await;
    }

    trial.fleet.control.kill9();
    let since = Instant::now();
    trial.fleet.control.start();
    trial.settles("control plane killed", since).await;
    trial.fleet.control.freeze();
    trial.until_stale().await;
    let since = Instant::now();
    trial.fleet.control.thaw();
    trial.settles("control plane frozen", since).await;

    trial.fleet.postgres.kill9().unwrap();
    let postgres = &trial.fleet.postgres;
    eventually(DEADLINE, "PostgreSQL starts again", async || postgres.restart().await.is_ok()).await;
    trial.settles("PostgreSQL killed", Instant::now()).await;
    trial.fleet.postgres.pause().unwrap();
    trial.until_stale().await;
    let since = Instant::now();
    trial.fleet.postgres.resume().unwrap();
    trial.settles("PostgreSQL frozen", since).await;

    trial.fleet.redis.kill9().unwrap();
    trial.until_stale().await;
    trial.fleet.redis.restart_empty().await.unwrap();
    trial.settles("Redis killed", Instant::now()).await;
    trial.fleet.redis.pause().unwrap();
    trial.until_stale().await;
    let since = Instant::now();
    trial.fleet.redis.resume().unwrap();
    trial.settles("Redis frozen", since).await;

    trial.fleet.mirror.kill9();
    trial.relist(1);
    trial.operator.until_more(20).await;
    let since = Instant::now();
    trial.fleet.mirror.start();
    trial.settles("registry mirror killed", since).await;
    trial.fleet.mirror.freeze();
    trial.relist(2);
    trial.operator.until_more(20).await;
    let since = Instant::now();
    trial.fleet.mirror.thaw();
    trial.settles("registry mirror frozen", since).await;
}

impl Trial {
    fn relist(&mut self, first: usize) {
        self.fleet.relist(first);
        self.truth.first_instance = first;
    }
}

/// Redis comes back with what it held some time ago: events and instances that were acknowledged are lost.
async fn lose_what_was_acknowledged(trial: &mut Trial) {
    let dump = trial.fleet.redis.save_dump().await.unwrap();
    trial.operator.until_more(50).await;
    let since = Instant::now();
    trial.relist(3);
    trial.settles("other instances", since).await;
    trial.fleet.redis.kill9().unwrap();
    trial.operator.until_more(20).await;
    trial.fleet.redis.restart_from_dump(&dump).await.unwrap();
    let since = Instant::now();
    trial.renew();
    trial.settles("a failover that lost entries", since).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_every_fault_all_routers_end_in_the_right_table_and_none_calls_a_wrong_one_fresh() {
    let _stage = stage().await;
    let mut trial = Trial::start().await;
    damage_every_key(&mut trial).await;
    kill_and_freeze_every_process(&mut trial).await;
    lose_what_was_acknowledged(&mut trial).await;

    let Trial { fleet, operator, loads, took, .. } = trial;
    let acknowledged = operator.finish().await;
    let mut answers: BTreeSet<Answer> = BTreeSet::new();
    for load in loads {
        answers.extend(load.finish().await.0);
    }
    let events = model::read_log(fleet.control.channel()).await;
    check_acknowledged(&events, &acknowledged);
    let fresh: Vec<&Answer> = answers.iter().filter(|answer| !answer.stale).collect();
    let stale = answers.len() - fresh.len();
    model::check(&events, fresh.iter().copied());
    let revisions: BTreeSet<u64> = fresh.iter().map(|answer| answer.revision).collect();
    let most = |of: fn(&Took) -> Duration| {
        let most = took.iter().max_by_key(|took| of(took)).unwrap();
        format!("{} ms after {}", of(most).as_millis(), most.fault)
    };
    eprintln!(
        "{} faults; at most {}, with the fresh router {}; {} fresh answers at {} of {} revisions, {stale} stale",
        took.len(),
        most(|took| took.running),
        most(|took| took.everyone),
        fresh.len(),
        revisions.len(),
        events.len()
    );
    assert!(revisions.len() > 100 && stale > 0, "too little was asked to prove anything");
}
