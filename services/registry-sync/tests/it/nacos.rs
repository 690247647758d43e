//! A real Nacos server, followed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use futures::stream::{self, TryStreamExt as _};
use grey_registry_sync::registry::nacos::{Nacos as Source, Options};
use grey_registry_sync::registry::{Registered, Registry};
use grey_runtime::Secret;
use grey_runtime::tls::{Acceptor, Alpn, ClientOptions, ServerOptions};
use grey_testkit::{Authority, Nacos, eventually};
use nacos_sdk::api::naming::ServiceInstance;

use crate::following::{Following, Seen};
use crate::nacos_fleet::{Fleet, instance, instances, options, register_persistent, switch};
use crate::nacos_gate::Gate;
use crate::registry_conformance::{Upstream, conforms};

const SERVICES: usize = 100;
const INSTANCES: usize = 20;

/// A look at everything only at the start and when asked for: what is seen was pushed.
const NEVER: Duration = Duration::from_secs(3600);

fn name(number: usize) -> String {
    format!("service-{number:03}")
}

fn source(options: Options) -> Box<dyn Registry> {
    Box::new(Source::new(options))
}

async fn register_fleet(fleet: &Fleet, version: &str) -> Result<()> {
    let services = stream::iter((0..SERVICES).map(Ok::<_, anyhow::Error>));
    services
        .try_for_each_concurrent(8, |number| async move {
            fleet.register_all(&name(number), instances(INSTANCES, version)).await
        })
        .await
}

#[tokio::test]
async fn hundred_services_are_one_account_and_their_changes_are_seen() -> Result<()> {
    let server = Nacos::start().await?;
    let fleet = Fleet::connect(server.addr(), "").await?;
    register_fleet(&fleet, "v1.0.0").await?;
    let mut options = options(server.addr());
    options.page = 30;
    let following = Following::start(source(options));
    following.until("everything is told", |seen| seen.alls > 0).await;
    {
        let seen = following.seen();
        assert_eq!(seen.first_was_all, Some(true));
        assert_eq!((seen.services.len(), seen.count()), (SERVICES, SERVICES * INSTANCES));
        assert!((0..SERVICES).all(|number| seen.versions(&name(number)) == ["v1.0.0"]));
    }

    register_fleet(&fleet, "v2.0.0").await?;
    following
        .until("every service has its new version", |seen| {
            (0..SERVICES).all(|number| seen.versions(&name(number)) == ["v2.0.0"])
        })
        .await;
    assert_eq!(following.seen().count(), SERVICES * INSTANCES);

    let leave =
        stream::iter((0..SERVICES / 2).map(Ok::<_, anyhow::Error>)).try_for_each_concurrent(8, |number| {
            let rest = instances(INSTANCES, "v2.0.0").split_off(5);
            let fleet = &fleet;
            async move { fleet.register_all(&name(number), rest).await }
        });
    leave.await?;
    following.until("instances left", |seen| seen.count() == SERVICES * INSTANCES - SERVICES / 2 * 5).await;
    let seen = following.end().await;
    assert_eq!(seen.failures, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn pushes_alone_tell_changes() -> Result<()> {
    let server = Nacos::start().await?;
    let fleet = Fleet::connect(server.addr(), "").await?;
    fleet.register("payment", instance(1, "v1.0.0")).await?;
    let mut options = options(server.addr());
    options.reconcile = NEVER;
    let following = Following::start(source(options));
    following.until("the service is told", |seen| seen.versions("payment") == ["v1.0.0"]).await;
    // The library itself reads every service once a minute, which must not be what is seen.
    let pushed = async |what: &str, condition: fn(&Seen) -> bool| {
        eventually(Duration::from_secs(25), what, async || condition(&following.seen())).await;
    };
    fleet.register("payment", instance(1, "v1.1.0")).await?;
    pushed("the version changed", |seen| seen.versions("payment") == ["v1.1.0"]).await;
    fleet.deregister("payment", instance(1, "v1.1.0")).await?;
    pushed("the last instance left", |seen| seen.ids("payment").is_empty()).await;
    fleet.register("payment", instance(2, "v1.2.0")).await?;
    pushed("another came", |seen| seen.ids("payment") == ["10.0.0.3:8080"]).await;
    assert_eq!(following.end().await.alls, 1);
    Ok(())
}

#[tokio::test]
async fn an_instance_that_is_switched_off_is_told_as_that_and_not_as_gone() -> Result<()> {
    let server = Nacos::start().await?;
    let fleet = Fleet::connect(server.addr(), "").await?;
    fleet.register("payment", instance(1, "v1.0.0")).await?;
    let following = Following::start(source(options(server.addr())));
    following.until("the service is told", |seen| seen.count() == 1).await;
    let is_on = |seen: &Seen| seen.services.get("payment").map(|listed| listed.iter().all(|one| one.enabled));
    switch(server.addr(), "payment", instance(1, "v1.0.0"), false).await?;
    following.until("it is off", |seen| is_on(seen) == Some(false)).await;
    following.refresh().await;
    assert_eq!(is_on(&following.seen()), Some(false), "it stays so");
    switch(server.addr(), "payment", instance(1, "v1.0.0"), true).await?;
    following.until("it is on again", |seen| is_on(seen) == Some(true)).await;
    let seen = following.end().await;
    assert_eq!((seen.smallest, seen.failures), (Some(1), Vec::new()), "it was never missing");
    Ok(())
}

#[tokio::test]
async fn a_service_that_is_too_large_to_be_read_stops_no_other() -> Result<()> {
    const CLIENTS: usize = 4;
    let server = Nacos::start().await?;
    let mut large = Vec::new();
    for client in 0..CLIENTS {
        let fleet = Fleet::connect(server.addr(), "").await?;
        let mut some = instances(900 * (client + 1), "v1.0.0").split_off(900 * client);
        for one in &mut some {
            one.metadata.insert("large".to_owned(), "x".repeat(1200));
        }
        fleet.register_all("large", some).await?;
        large.push(fleet);
    }
    let fleet = Fleet::connect(server.addr(), "").await?;
    fleet.register("payment", instance(1, "v1.0.0")).await?;
    let following = Following::start(source(options(server.addr())));
    following.until("the other is told", |seen| seen.alls > 0 && seen.ids("payment").len() == 1).await;
    assert!(following.seen().unread.contains_key("large"));
    fleet.register("payment", instance(2, "v1.0.0")).await?;
    following.until("its changes too", |seen| seen.ids("payment").len() == 2).await;
    // Once it is small enough, it is read again.
    for fleet in &large[1..] {
        fleet.register_all("large", Vec::new()).await?;
    }
    following.refresh().await;
    let seen = following.end().await;
    assert_eq!((seen.ids("large").len(), seen.failures), (900, Vec::new()));
    Ok(())
}

#[tokio::test]
async fn connections_are_encrypted_where_that_is_asked_for() -> Result<()> {
    let (authority, other) = (Authority::new()?, Authority::new()?);
    let server = Nacos::builder().auth("grey", "secret99").start().await?;
    let files = tempfile::tempdir()?;
    let (cert_file, key_file) = authority.issue(&["nacos.test"])?.save(files.path())?;
    let acceptor =
        Acceptor::load(&ServerOptions { cert_file, key_file, client_ca_file: None }, Alpn::H2AndHttp1)?;
    let gate = Gate::encrypted(&server, acceptor).await?;
    let fleet = Fleet::log_in(server.addr(), "grey", "secret99").await?;
    fleet.register("payment", instance(1, "v1.0.0")).await?;
    let with = |authority: &Authority| {
        let mut options = options(gate.addr());
        options.username = "grey".to_owned();
        options.password = Secret::new("secret99");
        let domain = Some("nacos.test".to_owned());
        options.tls =
            Some(ClientOptions { ca_file: authority.file(), cert_file: None, key_file: None, domain });
        options
    };
    let distrusting = Following::start(source(with(&other)));
    let following = Following::start(source(with(&authority)));
    following.until("the service is told", |seen| seen.ids("payment").len() == 1).await;
    fleet.register("payment", instance(2, "v1.0.0")).await?;
    following.until("its changes too", |seen| seen.ids("payment").len() == 2).await;
    following.end().await;
    distrusting.until("it fails", |seen| !seen.failures.is_empty()).await;
    assert_eq!(distrusting.end().await.alls, 0);
    Ok(())
}

#[tokio::test]
async fn services_come_and_go_without_a_restart() -> Result<()> {
    // A server forgets services without instances after a while, and then lists them no more.
    let server = Nacos::start().await?;
    let fleet = Fleet::connect(server.addr(), "").await?;
    let mut options = options(server.addr());
    options.reconcile = NEVER;
    let following = Following::start(source(options));
    following.until("nothing is told", |seen| seen.alls == 1 && seen.services.is_empty()).await;
    fleet.register("payment", instance(1, "v1.0.0")).await?;
    following.until("the new service is told", |seen| seen.ids("payment") == ["10.0.0.2:8080"]).await;
    fleet.register("order", instance(2, "v1.0.0")).await?;
    following.until("another one too", |seen| seen.services.len() == 2).await;
    fleet.deregister("payment", instance(1, "v1.0.0")).await?;
    following.until("the empty one has no instance", |seen| seen.services.len() == 1).await;
    fleet.register("payment", instance(3, "v2.0.0")).await?;
    following.until("it is back", |seen| seen.versions("payment") == ["v2.0.0"]).await;
    assert_eq!(following.end().await.failures, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn connections_that_stay_dead_are_replaced() -> Result<()> {
    let server = Nacos::start().await?;
    let gate = Gate::open(&server).await?;
    let mut options = options(gate.addr());
    options.renew = Duration::from_secs(1);
    options.retry = Duration::from_secs(1);
    options.call_timeout = Duration::from_secs(1);
    let following = Following::start(source(options));
    following.until("everything is told", |seen| seen.alls > 0).await;
    gate.shut();
    // By then the library has found its connection dead and waits, for minutes, for an answer over the next one.
    following.until("it failed often", |seen| seen.failures.len() >= 12).await;
    let alls = following.seen().alls;
    gate.reopen();
    following.until("everything is told again", |seen| seen.alls > alls).await;
    let fleet = Fleet::connect(server.addr(), "").await?;
    fleet.register("payment", instance(1, "v1.0.0")).await?;
    following.until("a new service is told", |seen| seen.ids("payment").len() == 1).await;
    fleet.register("payment", instance(1, "v1.1.0")).await?;
    following.until("a change is told", |seen| seen.versions("payment") == ["v1.1.0"]).await;
    following.end().await;
    Ok(())
}

#[tokio::test]
async fn frozen_server_is_a_failure_until_it_goes_on() -> Result<()> {
    let server = Nacos::start().await?;
    let fleet = Fleet::connect(server.addr(), "").await?;
    fleet.register_all("payment", instances(5, "v1.0.0")).await?;
    let following = Following::start(source(options(server.addr())));
    following.until("the service is told", |seen| seen.ids("payment").len() == 5).await;
    server.pause()?;
    following.until("silence is told as a failure", |seen| !seen.failures.is_empty()).await;
    let seen = following.seen().clone();
    assert!(seen.failures.iter().all(|cause| cause.contains("no answer")), "{:?}", seen.failures);
    assert_eq!((seen.ids("payment").len(), seen.smallest), (5, Some(5)));
    server.resume()?;
    following.until("everything is told again", |now| now.alls > seen.alls).await;
    fleet.register_all("payment", instances(5, "v2.0.0")).await?;
    following.until("changes are followed", |seen| seen.versions("payment") == ["v2.0.0"]).await;
    server.pause()?;
    // It ends although the server does not answer.
    following.end().await;
    Ok(())
}

#[tokio::test]
async fn server_that_is_not_there_yet_is_a_failure_until_it_is() -> Result<()> {
    let server = Nacos::start().await?;
    server.kill9()?;
    let following = Following::start(source(options(server.addr())));
    following.until("the failure is told", |seen| seen.failures.len() >= 2).await;
    assert_eq!(following.seen().alls, 0);
    server.restart().await?;
    following.until("everything is told", |seen| seen.alls > 0).await;
    following.end().await;
    Ok(())
}

#[tokio::test]
async fn right_password_is_let_in_and_stays_so_when_the_server_forgets() -> Result<()> {
    let server = Nacos::builder().auth("grey", "secret99").start().await?;
    let fleet = Fleet::log_in(server.addr(), "grey", "secret99").await?;
    fleet.register("payment", instance(1, "v1.0.0")).await?;
    let mut options = options(server.addr());
    options.username = "grey".to_owned();
    options.password = Secret::new("secret99");
    let following = Following::start(source(options));
    following.until("the service is told", |seen| seen.ids("payment").len() == 1).await;
    // The server forgets every token that it gave.
    server.restart_empty().await?;
    let alls = following.seen().alls;
    following.until("everything is told again", |seen| seen.alls > alls).await;
    let fleet = Fleet::log_in(server.addr(), "grey", "secret99").await?;
    fleet.register("order", instance(2, "v1.0.0")).await?;
    following.until("a new service is told", |seen| seen.ids("order").len() == 1).await;
    following.end().await;
    Ok(())
}

#[tokio::test]
async fn wrong_password_is_a_failure_that_says_so() -> Result<()> {
    let server = Nacos::builder().auth("grey", "secret99").start().await?;
    for (username, password, words) in [("grey", "wrong99", "log in: "), ("", "", ": denied: ")] {
        let mut options = options(server.addr());
        options.username = username.to_owned();
        options.password = Secret::new(password);
        let following = Following::start(source(options));
        following.until("the refusal is told twice", |seen| seen.failures.len() >= 2).await;
        let seen = following.end().await;
        assert_eq!(seen.alls, 0);
        assert!(seen.failures.iter().all(|cause| cause.contains(words)), "{:?}", seen.failures);
        assert!(!seen.failures.iter().any(|cause| cause.contains("wrong99")), "{:?}", seen.failures);
    }
    Ok(())
}

#[tokio::test]
async fn groups_and_namespaces_are_one_source() -> Result<()> {
    let server = Nacos::start().await?;
    let (public, blue) =
        tokio::try_join!(Fleet::connect(server.addr(), ""), Fleet::connect(server.addr(), "blue"))?;
    public.register_in("DEFAULT_GROUP", "payment", instance(1, "v1.0.0")).await?;
    public.register_in("retail", "payment", instance(2, "v1.0.0")).await?;
    blue.register_in("DEFAULT_GROUP", "payment", instance(1, "v9.0.0")).await?;
    blue.register_in("retail", "order", instance(3, "v1.0.0")).await?;
    public.register_in("unknown", "secret", instance(4, "v1.0.0")).await?;
    let mut options = options(server.addr());
    options.namespaces = vec![String::new(), "blue".to_owned()];
    options.groups = vec!["DEFAULT_GROUP".to_owned(), "retail".to_owned()];
    let following = Following::start(source(options));
    following.until("everything is told", |seen| seen.alls > 0).await;
    {
        let seen = following.seen();
        assert_eq!(seen.services.keys().collect::<Vec<_>>(), ["order", "payment"]);
        assert_eq!(seen.ids("payment"), ["10.0.0.2:8080", "10.0.0.3:8080"]);
        // The same address is in two namespaces: the first one counts.
        assert_eq!(seen.versions("payment"), ["v1.0.0"]);
    }
    blue.register_in("retail", "payment", instance(5, "v1.0.0")).await?;
    following.until("an instance came elsewhere", |seen| seen.ids("payment").len() == 3).await;
    following.end().await;
    Ok(())
}

#[tokio::test]
async fn two_clusters_are_two_sources() -> Result<()> {
    let (one, two) = tokio::try_join!(Nacos::start(), Nacos::start())?;
    let first = Fleet::connect(one.addr(), "").await?;
    let second = Fleet::connect(two.addr(), "").await?;
    first.register("payment", instance(1, "v1.0.0")).await?;
    second.register("payment", instance(2, "v2.0.0")).await?;
    let first = Following::start(source(options(one.addr())));
    let second = Following::start(source(options(two.addr())));
    first.until("the first is told", |seen| seen.versions("payment") == ["v1.0.0"]).await;
    second.until("the second is told", |seen| seen.versions("payment") == ["v2.0.0"]).await;
    one.kill9()?;
    first.until("the first fails", |seen| !seen.failures.is_empty()).await;
    second.refresh().await;
    assert_eq!(second.end().await.failures, [""; 0]);
    first.end().await;
    Ok(())
}

#[tokio::test]
async fn what_nacos_says_of_an_instance_is_carried_along() -> Result<()> {
    let server = Nacos::start().await?;
    let fleet = Fleet::connect(server.addr(), "").await?;
    let cluster_name = Some("zone-b".to_owned());
    let listed = ServiceInstance { weight: 2.5, cluster_name, ..instance(1, "v1.0.0") };
    fleet.register("payment", listed).await?;
    register_persistent(server.addr(), "ledger", instance(2, "v1.0.0")).await?;
    let following = Following::start(source(options(server.addr())));
    following.until("both are told", |seen| seen.count() == 2).await;
    let seen = following.end().await;
    let told = seen.services.get("payment").unwrap().first().unwrap().clone();
    assert_eq!((told.weight, told.zone.as_deref()), (250, Some("zone-b")));
    assert!(told.enabled && told.healthy && told.ephemeral);
    assert_eq!(told.metadata.get("version").unwrap(), "v1.0.0");
    assert!(!seen.services.get("ledger").unwrap().first().unwrap().ephemeral);
    Ok(())
}

/// A server and clients that register there, each with at most one instance of a service: what one client registers
/// several instances with is not forgotten by the library when they are deregistered, and comes back with the server.
struct Registering {
    server: Nacos,
    clients: Vec<Fleet>,
    /// By service and client.
    registered: BTreeMap<(String, usize), ServiceInstance>,
}

impl Registering {
    async fn start() -> Result<Self> {
        let server = Nacos::start().await?;
        let clients =
            vec![Fleet::connect(server.addr(), "").await?, Fleet::connect(server.addr(), "").await?];
        Ok(Self { server, clients, registered: BTreeMap::new() })
    }

    async fn try_put(&mut self, service: &str, mut wanted: Vec<ServiceInstance>) -> Result<()> {
        for (number, client) in self.clients.iter().enumerate() {
            let key = (service.to_owned(), number);
            let known = self.registered.remove(&key);
            let kept = wanted.iter().position(|instance| {
                known.as_ref().is_some_and(|known| known.ip_and_port() == instance.ip_and_port())
            });
            if let (Some(known), None) = (known, kept) {
                client.deregister(service, known).await?;
            }
            if let Some(instance) = kept.or((!wanted.is_empty()).then_some(0)).map(|at| wanted.remove(at)) {
                client.register(service, instance.clone()).await?;
                self.registered.insert(key, instance);
            }
        }
        anyhow::ensure!(wanted.is_empty(), "there are not enough clients for {wanted:?}");
        Ok(())
    }
}

#[async_trait]
impl Upstream for Registering {
    fn registry(&self) -> Box<dyn Registry> {
        source(options(self.server.addr()))
    }

    async fn put(&mut self, service: &str, instances: &[Registered]) {
        let instances = instances.iter().map(|instance| {
            let (ip, port) = instance.address.rsplit_once(':').unwrap();
            ServiceInstance {
                ip: ip.to_owned(),
                port: port.parse().unwrap(),
                weight: f64::from(instance.weight) / 100.0,
                metadata: instance.metadata.clone().into_iter().collect(),
                ..ServiceInstance::default()
            }
        });
        self.try_put(service, instances.collect()).await.unwrap();
    }

    async fn remove_service(&mut self, service: &str) {
        self.try_put(service, Vec::new()).await.unwrap();
    }

    async fn break_it(&mut self) {
        self.server.kill9().unwrap();
    }

    async fn mend_it(&mut self) {
        // It comes back without anything; what was registered registers again by itself.
        self.server.restart().await.unwrap();
    }
}

#[tokio::test]
async fn nacos_is_a_registry_like_any_other() -> Result<()> {
    conforms(Registering::start().await?).await;
    Ok(())
}
