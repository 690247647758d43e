//! Puts the parts together.

use std::net::SocketAddr;

use anyhow::Context;
use grey_core::ids::Name;
use grey_edge::{Ports, Serving};
use grey_runtime::{Health, Shutdown, Telemetry};
use grey_state::State;
use grey_state::instances::WRITER;
use grey_sync::{Desk, Gauges, Leadership, REQUEST_TIMEOUT};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Source};
use crate::metrics::Metrics;
use crate::mirror::{self, Mirror};
use crate::probe::{self, Prober};
use crate::registry::Registry;
use crate::sync::{Parts, Sync};

/// Names the service where replicas meet.
const SERVICE: &str = "registry-sync";

/// A registry mirror: listening, not yet mirroring.
pub struct App {
    config: Config,
    telemetry: Telemetry,
    health: Health,
    ports: Ports,
    leadership: Leadership,
    desk: Desk,
    sync: Sync,
}

impl App {
    /// Opens the ports. The caller brings the shared state.
    ///
    /// # Errors
    /// A port is taken, certificates cannot be read, or the ports would be open to everyone.
    pub async fn bind(config: Config, state: State, telemetry: Telemetry) -> anyhow::Result<Self> {
        let registries = config.sources.iter().map(Source::open).collect();
        Self::bind_with(config, registries, state, telemetry).await
    }

    /// The same with registries that the caller brings, one for each of the configured sources.
    ///
    /// # Errors
    /// As [`App::bind`].
    pub async fn bind_with(
        config: Config,
        registries: Vec<Box<dyn Registry>>,
        state: State,
        telemetry: Telemetry,
    ) -> anyhow::Result<Self> {
        let ports = Ports::bind(&config.grpc, &config.http, &config.access, config.tls.as_ref()).await?;
        let replica = config.replica_name();
        let lease = Name::new(WRITER).context("name the lease")?;
        let (leadership, lead) = Leadership::new(&state, lease, replica.clone(), config.sync.lease);
        let desk = Desk::new(&state, SERVICE, replica);
        let health = Health::new();
        let sync = Sync::new(Parts {
            mirror: Mirror::new(mirror_options(&config)?),
            registries,
            state,
            lead,
            desk: desk.clone(),
            prober: Prober::new(&config.probe),
            pace: config.sync.clone(),
            metrics: Metrics::new(telemetry.meter()),
            gauges: Gauges::new(telemetry.meter()),
            health: health.clone(),
        });
        Ok(Self { config, telemetry, health, ports, leadership, desk, sync })
    }

    /// Where gRPC is served.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.ports.grpc_addr()
    }

    /// Where HTTP is served.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.ports.http_addr()
    }

    /// Mirrors and serves until `shutdown` begins and requests in flight have ended.
    ///
    /// # Errors
    /// The contracts cannot be offered for reflection.
    pub async fn serve(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let grace = self.config.drain_grace;
        let serving = Serving {
            grpc: grey_sync::grpc(&self.desk, self.config.max_request_bytes),
            rest: grey_sync::rest(&self.desk),
            health: self.health,
            telemetry: self.telemetry,
            deadline: REQUEST_TIMEOUT,
            grace,
        };
        // The lead is given up only after the last write under it has ended.
        let campaign = CancellationToken::new();
        let (sync, mirroring) = (self.sync, shutdown.token());
        let over = campaign.clone();
        shutdown.spawn("mirror", async move {
            let _over = over.drop_guard();
            sync.run(mirroring).await;
        });
        shutdown.spawn("leadership", self.leadership.run(campaign));
        let served = Box::pin(self.ports.serve(serving, shutdown)).await;
        shutdown.wait(grace).await;
        served
    }
}

fn mirror_options(config: &Config) -> anyhow::Result<mirror::Options> {
    let sources = config.sources.iter().map(Source::mirrored).collect::<anyhow::Result<_>>();
    let probes = config.probe.mode != probe::Mode::None;
    let tells_version = config.probe.mode == probe::Mode::Http && config.probe.version_header.is_some();
    Ok(mirror::Options {
        sources: sources.context("name the sources")?,
        naming: config.instances.clone(),
        guard: config.hold.clone(),
        probe_interval: probes.then_some(config.probe.interval),
        probe_tells_version: tells_version,
    })
}
