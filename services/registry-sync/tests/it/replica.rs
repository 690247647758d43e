//! A registry mirror in this process, and a registry that says what a test wants.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_proto::sync::{AcceptRequest, GetStatusRequest, HandledRequest, SyncStatus, TriggerRequest};
use grey_registry_sync::registry::nacos;
use grey_registry_sync::registry::{Listing, Registered, Registry, Sighting};
use grey_registry_sync::{App, Config, DEFAULTS, Kind, Source};
use grey_runtime::config::{Source as Layers, load};
use grey_runtime::{Shutdown, Telemetry, telemetry};
use grey_state::instances::Loaded;
use grey_state::{State, redis};
use grey_testkit::eventually;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::following::SOON;

/// What the registry says now: everything, or why it cannot be read.
type Reading = Result<Vec<Listing>, String>;

/// A registry that says what it is told to say, to as many as follow it.
#[derive(Clone)]
pub(crate) struct Script(watch::Sender<Reading>);

impl Script {
    /// One that lists `instances` of payment.
    pub(crate) fn payment(instances: &[Registered]) -> Self {
        let script = Self(watch::Sender::new(Ok(Vec::new())));
        script.say(instances);
        script
    }

    /// From now on these are all instances of payment, and there is nothing else.
    pub(crate) fn say(&self, instances: &[Registered]) {
        self.list(vec![Listing { service: "payment".to_owned(), instances: instances.to_vec() }]);
    }

    pub(crate) fn list(&self, listings: Vec<Listing>) {
        drop(self.0.send_replace(Ok(listings)));
    }

    pub(crate) fn fail(&self, why: &str) {
        drop(self.0.send_replace(Err(why.to_owned())));
    }
}

#[async_trait]
impl Registry for Script {
    async fn follow(&self, sightings: mpsc::Sender<Sighting>, again: Arc<Notify>, token: CancellationToken) {
        let mut words = self.0.subscribe();
        loop {
            let sighting = match words.borrow_and_update().clone() {
                Ok(listings) => Sighting::All(listings),
                Err(why) => Sighting::Failed(why),
            };
            if sightings.send(sighting).await.is_err() {
                return;
            }
            tokio::select! {
                () = again.notified() => {}
                _ = words.changed() => {}
                () = token.cancelled() => return,
            }
        }
    }
}

/// An instance at an address that leads nowhere.
pub(crate) fn on(id: &str, version: &str) -> Registered {
    Registered {
        id: id.to_owned(),
        address: format!("{id}.invalid:80"),
        version: Some(version.to_owned()).filter(|version| !version.is_empty()),
        weight: 100,
        enabled: true,
        healthy: true,
        ..Registered::default()
    }
}

/// `count` instances of v1.
pub(crate) fn many(count: usize) -> Vec<Registered> {
    (0..count).map(|n| on(&format!("i{n:02}"), "1")).collect()
}

pub(crate) async fn connect(url: String) -> State {
    let options = redis::Options {
        urls: vec![url],
        response_timeout_ms: 1_000,
        connect_timeout_ms: 1_000,
        ..redis::Options::default()
    };
    State::redis(&options).await.unwrap()
}

/// The defaults on free ports, with one source, `dc-1`, and little waiting.
pub(crate) fn config(name: &str) -> Config {
    let source = r#"GREY__SOURCES=[{ name = "dc-1", kind = "nacos", servers = ["127.0.0.1:8848"] }]"#;
    let (key, value) = source.split_once('=').unwrap();
    let env = vec![(key.to_owned(), value.to_owned())];
    let mut config: Config = load(Layers { defaults: DEFAULTS, file: None, env }).unwrap();
    config.replica = name.to_owned();
    config.grpc.listen = "127.0.0.1:0".parse().unwrap();
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.sync.lease = Duration::from_secs(2);
    config.probe.interval = Duration::from_millis(100);
    config
}

/// A further source called `name`.
pub(crate) fn source(name: &str) -> Source {
    Source::new(name, Kind::Nacos(Box::new(nacos::Options::new(vec!["127.0.0.1:8848".to_owned()]))))
}

/// A serving registry mirror.
pub(crate) struct Replica {
    pub(crate) state: State,
    pub(crate) base: String,
    pub(crate) grpc: SyncServiceClient<Channel>,
    shutdown: Shutdown,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Replica {
    pub(crate) async fn start(state: &State, config: Config, scripts: &[&Script]) -> Self {
        let registries =
            scripts.iter().map(|script| Box::new((*script).clone()) as Box<dyn Registry>).collect();
        let bind =
            async |telemetry| App::bind_with(config, registries, state.clone(), telemetry).await.unwrap();
        Self::serving(state, bind).await
    }

    pub(crate) async fn serving(state: &State, bind: impl AsyncFnOnce(Telemetry) -> App) -> Self {
        grey_runtime::tls::install_provider();
        let options = telemetry::Options { log_filter: "error".to_owned(), ..telemetry::Options::default() };
        let telemetry = Telemetry::start("grey-registry-sync", &options).unwrap();
        let app = bind(telemetry).await;
        let endpoint = Endpoint::from_shared(format!("http://{}", app.grpc_addr())).unwrap();
        let grpc = SyncServiceClient::new(endpoint.connect_timeout(SOON).connect_lazy());
        let base = format!("http://{}", app.http_addr());
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let serving = tokio::spawn(async move { app.serve(&inner).await });
        Self { state: state.clone(), base, grpc, shutdown, serving }
    }

    /// One that leads on a shared state of its own.
    pub(crate) async fn alone(config: Config, script: &Script) -> Self {
        Self::start(&State::memory(), config, &[script]).await
    }

    pub(crate) async fn stop(self) {
        let Self { grpc, shutdown, serving, .. } = self;
        drop(grpc);
        shutdown.begin();
        tokio::time::timeout(SOON, serving).await.unwrap().unwrap().unwrap();
    }

    /// What shared state has of payment, as `id version`, those that cannot be routed to in brackets.
    pub(crate) async fn published(&self) -> String {
        published(&self.state).await
    }

    pub(crate) async fn until(&self, published: &str) {
        let what = format!("`{published}` is published");
        eventually(SOON, &what, async || self.published().await == published).await;
    }

    pub(crate) async fn status(&self) -> SyncStatus {
        let status = self.grpc.clone().get_status(GetStatusRequest {}).await.unwrap();
        status.into_inner().status.unwrap()
    }

    /// Waits for a status of a leader that `fits`.
    pub(crate) async fn status_where(&self, what: &str, fits: impl Fn(&SyncStatus) -> bool) -> SyncStatus {
        let mut found = None;
        eventually(SOON, what, async || {
            let status = self.status().await;
            let fits = !status.leader.is_empty() && fits(&status);
            found = Some(status).filter(|_| fits);
            fits
        })
        .await;
        found.unwrap()
    }

    /// Asks for a sync and waits for its end.
    pub(crate) async fn trigger(&self) -> HandledRequest {
        let request = TriggerRequest { wait: Some(SOON.into()) };
        self.grpc.clone().trigger(request).await.unwrap().into_inner().handled.unwrap()
    }

    /// Accepts a held change and waits for its end.
    pub(crate) async fn accept(&self, change: &str) -> HandledRequest {
        let request = AcceptRequest { change: change.to_owned(), wait: Some(SOON.into()) };
        self.grpc.clone().accept(request).await.unwrap().into_inner().handled.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        reqwest::get(format!("{}{path}", self.base)).await.unwrap().text().await.unwrap()
    }
}

pub(crate) async fn published(state: &State) -> String {
    let Ok(Loaded { lists, .. }) = state.instances.load().await else { return "unknown".to_owned() };
    let lists = lists.iter().filter(|list| list.service.as_str() == "payment");
    let instances = lists.flat_map(|list| &list.instances);
    let shown = instances.map(|one| match one.is_routable() {
        true => format!("{} {}", one.id, one.version),
        false => format!("({} {})", one.id, one.version),
    });
    shown.collect::<Vec<_>>().join(", ")
}
