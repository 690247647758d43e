//! Binding and serving: the parts of a router and the order of their life.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context;
use grey_runtime::access::{self, Failures};
use grey_runtime::server::{Pages, PerCore, http::Server};
use grey_runtime::tls::{Acceptor, Alpn};
use grey_runtime::{Health, Shutdown, Telemetry, admin};
use grey_state::State;
use grey_state::follower::{self, Follower, Tables};

use crate::config::Config;
use crate::decider::Decider;
use crate::grpc::{Bounds, Reports, Service, Services};
use crate::heartbeat::Heartbeat;
use crate::holds::{self, Holds};
use crate::metrics::{self, Counts};
use crate::shared::Shared;
use crate::snapshot::{self, Keeper};
use crate::watch::Hub;
use crate::{http, pulse};

/// A router that listens and does not serve yet.
pub struct App {
    config: Config,
    telemetry: Telemetry,
    grpc: PerCore,
    http: Server,
    follower: Follower,
    shared: Arc<Shared>,
}

impl App {
    /// Opens both ports and reads the snapshot file.
    ///
    /// # Errors
    /// A port that is taken or must not be served as configured; certificates that cannot be read.
    pub async fn bind(mut config: Config, state: State, telemetry: Telemetry) -> anyhow::Result<Self> {
        config.router.id = config.router_id();
        for addr in [config.grpc.listen, config.http.listen] {
            access::check_bind(addr, &config.access, config.tls.is_some())?;
        }
        let (addr, threads) = (config.grpc.listen, config.grpc.threads);
        let grpc = PerCore::bind(addr, threads).with_context(|| format!("listen for gRPC on {addr}"))?;
        let addr = config.http.listen;
        let http = Server::bind(addr).await.with_context(|| format!("listen for HTTP on {addr}"))?;
        let http = http.with_limits(config.http.limits.clone()).with_access(&config.access);

        let options = follower::Options {
            history: config.feed.history,
            batch: config.feed.batch,
            wait: config.feed.wait,
            stale_after: config.feed.stale_after,
            ..follower::Options::default()
        };
        let (mut follower, tables) = Follower::new(state.clone(), options);
        let mut restored = false;
        if let Some(file) = config.snapshot.file.clone() {
            let load = move || snapshot::load(&file).map(|table| holds::restore(&file, table));
            let loaded = tokio::task::spawn_blocking(load).await;
            if let Some(table) = loaded.context("read the snapshot file")? {
                follower = follower.with_table(table);
                restored = true;
            }
        }
        // Callers are the same on both ports, so the more exposed one decides about anonymous ones.
        let exposed = [config.grpc.listen, config.http.listen];
        let exposed = exposed.into_iter().find(|a| !a.ip().is_loopback()).unwrap_or(config.grpc.listen);
        let access = access::Access::new(&config.access, exposed);
        let reports = Reports::new(&config.report, &config.access);
        let (limits, identity) = (config.limits.clone(), config.router.clone());
        let shared = Arc::new(Shared::new(tables, state, access, reports, limits, identity));
        shared.announced.store(restored, Relaxed);
        Ok(Self { config, telemetry, grpc, http, follower, shared })
    }

    /// Where gRPC is served.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.local_addr()
    }

    /// Where HTTP is served.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// The router's tables.
    #[must_use]
    pub fn tables(&self) -> Tables {
        self.shared.tables.clone()
    }

    /// Serves until `shutdown` begins and calls in flight have ended.
    ///
    /// # Errors
    /// A thread cannot be started, or certificates cannot be read; `shutdown` has then begun.
    pub async fn serve(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        self.run(shutdown).await.inspect_err(|_| shutdown.begin())
    }

    async fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self { config, telemetry, grpc, http, follower, shared } = self;
        let draining = shutdown.token();
        let health = Health::new().with_draining(draining.clone());
        let load = |alpn| config.tls.as_ref().map(|options| Acceptor::load(options, alpn)).transpose();
        let (grpc_tls, http_tls) = (load(Alpn::H2)?, load(Alpn::H2AndHttp1)?);
        let address = match config.router.advertise.as_str() {
            "" => grpc.local_addr().to_string(),
            advertised => advertised.to_owned(),
        };
        tracing::info!(
            router.id = config.router.id,
            server.grpc = %grpc.local_addr(),
            server.http = %http.local_addr(),
            server.threads = grpc.threads(),
            "serving"
        );

        // The last one is HTTP's; it runs on several threads, which share it.
        let counts: Vec<Arc<Counts>> = (0..=grpc.threads()).map(|_| Arc::default()).collect();
        metrics::register(telemetry.meter(), &shared, &counts);
        let (hub, watchers) = Hub::new(Arc::clone(&shared), &config.watch);
        let holds = config.snapshot.file.as_deref().map(Holds::beside);
        let beat = Heartbeat::new(Arc::clone(&shared), address, config.heartbeat.clone(), holds);
        let mut parts = vec![
            shutdown.spawn("follower", follower.run(draining.clone())),
            shutdown.spawn("pulse", pulse::run(Arc::clone(&shared), health.clone(), draining.clone())),
            shutdown.spawn("heartbeat", beat.run(draining.clone())),
            shutdown.spawn("watch", hub.run(draining.clone())),
        ];
        if let Some(file) = config.snapshot.file.clone() {
            let keeper = Keeper::new(Arc::clone(&shared), file, config.snapshot.interval);
            parts.push(shutdown.spawn("snapshot file", keeper.run(draining.clone())));
        }

        let http_counts = counts.last().map(Arc::clone).unwrap_or_default();
        let http_decider = Arc::new(Decider::new(Arc::clone(&shared), http_counts, grpc.threads()));
        let [failures, http_failures] = ["grpc", "http"].map(|port| Failures::new(telemetry.meter(), port));
        let routes =
            http::routes(http_decider, http_failures).merge(admin::routes(health.clone(), telemetry));
        let routes = http::with_fallbacks(routes);

        let grace = config.grpc.server.drain_grace;
        let mut options = config.grpc.server.clone();
        options.tls = grpc_tls;
        let health = health.grpc(shutdown);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(grey_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The contracts describe the control plane as well, which is not served here.
            .with_service_name("grey.router.v1.RouterService")
            .with_service_name("grpc.health.v1.Health")
            .build_v1()
            .context("describe the gRPC services")?;
        let token = draining.clone();
        let pages = Pages::of(&config.access, grpc.local_addr());
        let bounds = Bounds::new(&options, failures, pages);
        let make_thread = move |thread: usize| {
            let counts = counts.get(thread).map(Arc::clone).unwrap_or_default();
            let decider = Arc::new(Decider::new(Arc::clone(&shared), counts, thread));
            let service = Service { decider, watchers: watchers.clone(), draining: token.clone() };
            let (health, reflection) = (health.clone(), reflection.clone());
            let services = Services::new(service, health, reflection, bounds.clone(), token.clone());
            move |client: SocketAddr| services.connect(client.ip())
        };
        let grpc = grpc.serve(options, make_thread, draining.clone()).context("start the gRPC threads")?;
        let (grpc_drained, http_drained) =
            tokio::join!(grpc.wait(), http.serve(routes, http_tls, draining.clone(), grace));
        for part in parts {
            // A part that failed has logged it and begun the drain.
            part.await.ok();
        }
        if !(grpc_drained && http_drained) {
            tracing::warn!("calls outlived the drain's grace and were cut off");
        }
        Ok(())
    }
}
