//! Puts the parts together.

use crate::config::Config;
use crate::control::Control;
use crate::files::Folder;
use crate::jobs::{Database, FollowUp, Queue, Worker};
use crate::metrics::Metrics;
use crate::prepare::Grounds;
use crate::service::{Api, Settings};
use anyhow::Context;
use axum::Router;
use grey_database_url::Guard;
use grey_edge::{Ports, Serving};
use grey_runtime::{Health, Shutdown, Telemetry};
use grey_vault::Vault;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

/// A replica: connected, migrated and listening, not yet serving.
pub struct App {
    config: Config,
    telemetry: Telemetry,
    queue: Queue,
    grounds: Grounds,
    ports: Ports,
}

impl App {
    /// Connects to the migrator's database, brings its schema up to date and opens the ports.
    ///
    /// # Errors
    /// The database is away, a port is taken, certificates cannot be read, the ports would be open to everyone, or the
    /// control plane or the master keys cannot be used as configured.
    pub async fn bind(config: Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        let control = Control::new(&config.control).context("set up calls of the control plane")?;
        let vault = if config.vault.is_empty() {
            None
        } else {
            Some(Vault::new(&config.vault).context("read the master keys")?)
        };
        let ports = Ports::bind(&config.grpc, &config.http, &config.access, config.tls.as_ref()).await?;
        let database = Box::pin(Database::open(&config.database)).await?;
        let folder =
            Folder::new(&config.migrations.folder).with_placeholders(config.migrations.placeholders.clone());
        let tooling = config.tooling();
        let options = config.migrations.options();
        let guard = Guard::new(config.tenant_databases.clone(), [config.database.url.expose()]);
        let grounds = Grounds::new(control, vault, folder, config.tenants, options, tooling, guard)
            .with_sites(config.provisioning.clone());
        Ok(Self { config, telemetry, queue: Queue::new(database), grounds, ports })
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

    /// Serves and runs upgrades until `shutdown` begins, then lets both end: requests within the grace, upgrades within
    /// the grace and the time for taking back what they did.
    ///
    /// # Errors
    /// The contracts cannot be offered for reflection.
    pub async fn serve(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self { config, telemetry, queue, grounds, ports } = self;
        let (grace, jobs) = (config.drain_grace, config.jobs.clone());
        let metrics = Metrics::new(telemetry.meter());
        let settings = Settings {
            backups: grounds.tooling().backups.is_some(),
            fleet_concurrency: config.limits.fleet_concurrency,
            max_timeout: jobs.max_timeout,
            poll: jobs.poll,
            max_watchers: jobs.max_watchers,
        };
        let api = Api::new(queue.clone(), grounds.clone(), settings, shutdown.token());
        let health = Health::new();
        health.set_ready(true);
        let serving = Serving {
            grpc: api.routes(config.limits.max_request_bytes),
            rest: Router::new(),
            health,
            telemetry,
            deadline: config.limits.request_timeout,
            grace,
        };
        drop(api);
        // What came of the last upgrades is told once they have ended.
        let told = CancellationToken::new();
        let control = grounds.control().clone();
        let follow_up =
            FollowUp::new(queue.clone(), control, metrics.clone(), config.follow_up.pause, jobs.retention);
        shutdown.spawn("follow up", follow_up.run(told.clone()));
        let patience = grace + jobs.undo_timeout + grace;
        let worker = Worker::new(config.replica_name(), queue, grounds, jobs, metrics, grace);
        let stop = shutdown.token();
        shutdown.spawn("worker", async move {
            worker.run(stop).await;
            told.cancel();
        });
        let served = Box::pin(ports.serve(serving, shutdown)).await;
        shutdown.wait(patience).await;
        served
    }
}
