//! Puts the parts together.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use grey_core::ids::Name;
use grey_edge::{Ports, Serving};
use grey_runtime::{Health, Shutdown, Telemetry};
use grey_state::State;
use grey_sync::{Desk, Gauges, Lead, Leadership, grpc, rest};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Limits};
use crate::control::Control;
use crate::metrics::Metrics;
use crate::source::Source;
use crate::sync::Engine;
use crate::webhook::Webhook;

/// The service's name, which is also its lease's.
const SERVICE: &str = "tenant-sync";

/// A replica: listening, not yet serving.
pub struct App {
    drain_grace: Duration,
    limits: Limits,
    telemetry: Telemetry,
    health: Health,
    ports: Ports,
    desk: Desk,
    leadership: Leadership,
    lead: Lead,
    engine: Engine,
}

impl App {
    /// Opens the ports. Tenant API and control plane are reached when the replica leads; the caller brings the shared
    /// state.
    ///
    /// # Errors
    /// A port is taken, certificates cannot be read, the ports would be open to everyone, or the tenant API or the
    /// control plane cannot be used as configured.
    pub async fn bind(config: Config, state: State, telemetry: Telemetry) -> anyhow::Result<Self> {
        let source = Source::new(&config.source, &config.mapping)?;
        let control = Control::new(&config.control, &config.apply);
        let control = control.context("set up calls of the control plane")?;
        let replica = config.replica_name();
        let desk = Desk::new(&state, SERVICE, replica.clone());
        let metrics = Metrics::new(telemetry.meter());
        let webhook = Webhook::new(&config.webhook, &desk, &metrics)?;
        let ports = Ports::bind(&config.grpc, &config.http, &config.access, config.tls.as_ref()).await?;
        let ports = ports.with_open(webhook.routes());
        let lease = Name::new(SERVICE).context("name the lease")?;
        let (leadership, lead) = Leadership::new(&state, lease, replica, config.lease.ttl);
        let engine = Engine {
            source,
            control,
            rules: config.rules(),
            options: config.sync,
            desk: desk.clone(),
            lead: lead.clone(),
            gauges: Gauges::new(telemetry.meter()),
            metrics,
        };
        let (drain_grace, limits) = (config.drain_grace, config.limits);
        let health = Health::new();
        Ok(Self { drain_grace, limits, telemetry, health, ports, desk, leadership, lead, engine })
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

    /// Serves until `shutdown` begins and requests in flight have ended, or the grace is over.
    ///
    /// # Errors
    /// The contracts cannot be offered for reflection.
    pub async fn serve(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let grace = self.drain_grace;
        let serving = Serving {
            grpc: grpc(&self.desk, self.limits.max_request_bytes),
            rest: rest(&self.desk),
            health: self.health.clone(),
            telemetry: self.telemetry,
            deadline: self.limits.request_timeout,
            grace,
        };
        // The lead is given up only once nothing is done by it any more.
        let led = CancellationToken::new();
        shutdown.spawn("leadership", self.leadership.run(led.clone()));
        let (engine, stop) = (self.engine, shutdown.token());
        shutdown.spawn("sync", async move {
            engine.run(stop).await;
            led.cancel();
        });
        shutdown.spawn("health", tell(self.health, self.lead, shutdown.token()));
        let served = Box::pin(self.ports.serve(serving, shutdown)).await;
        shutdown.wait(grace).await;
        served
    }
}

/// Every replica can answer; who leads is told besides.
async fn tell(health: Health, mut lead: Lead, stop: CancellationToken) {
    health.set_detail("lead", "standing by");
    health.set_ready(true);
    loop {
        tokio::select! {
            token = lead.changed() => {
                health.set_detail("lead", if token.is_some() { "leading" } else { "standing by" });
            }
            () = stop.cancelled() => return,
        }
    }
}
