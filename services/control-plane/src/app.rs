//! Puts the parts together.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use grey_database_url::Guard;
use grey_edge::{Ports, Serving};
use grey_runtime::{Health, Shutdown, Telemetry};
use grey_state::State;
use grey_state::follower::{self, Follower};
use grey_state::publisher::Publisher;
use grey_vault::Vault;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Kind, Lane, LaneOptions, Lanes};
use crate::command::{Commands, Writer};
use crate::config::Config;
use crate::database::Database;
use crate::fleet::{Fleet, Prober, Watch};
use crate::metrics::Metrics;
use crate::migrator::Migrator;
use crate::pulse::{Overdue, Pulse};
use crate::registered::Registrar;
use crate::{grpc, rest};

/// A control plane: connected, migrated and listening, not yet serving.
pub struct App {
    config: Config,
    state: State,
    telemetry: Telemetry,
    health: Health,
    database: Database,
    lanes: Lanes,
    writer: Writer,
    commands: Commands,
    vault: Option<Vault>,
    migrator: Option<Migrator>,
    publisher: Publisher,
    follower: Follower,
    pulse: Pulse,
    fleet: Arc<Fleet>,
    ports: Ports,
}

impl App {
    /// Connects to the database, brings its schema up to date and opens the ports. The caller brings the shared state.
    ///
    /// # Errors
    /// The database is away, a port is taken, certificates cannot be read, the ports would be open to everyone, or the
    /// schema migrator cannot be called as configured.
    pub async fn bind(config: Config, state: State, telemetry: Telemetry) -> anyhow::Result<Self> {
        let vault = (!config.vault.is_empty()).then(|| Vault::new(&config.vault)).transpose()?;
        let migrator = Migrator::new(&config.migrator).context("set up calls of the schema migrator")?;
        let ports = Ports::bind(&config.grpc, &config.http, &config.access, config.tls.as_ref()).await?;
        let database = Box::pin(Database::open(&config.database)).await?;
        let lane = async |kind: Kind, options: &LaneOptions| {
            Box::pin(Lane::open(kind, &database, &config.database, options)).await
        };
        let lanes = Lanes {
            explanations: lane(Kind::Past, &config.history).await?,
            events: lane(Kind::Past, &config.history).await?,
            lists: lane(Kind::Lists, &config.lists).await?,
        };
        let position = database.head().await?;
        tracing::info!(log.revision = position.revision.0, log.epoch = position.epoch.0, "database is ready");
        let log = Arc::new(database.clone());
        let options = config.publisher.options(&config.replica_name());
        let (publisher, handle) = Publisher::new(state.clone(), log, options);
        let metrics = Metrics::new(telemetry.meter());
        let options = config.commands.clone();
        let (follower, tables) =
            Follower::new(state.clone(), follower::Options { history: 1, ..Default::default() });
        let heartbeats = Arc::clone(&state.heartbeats);
        let (writer, commands) =
            Writer::new(database.clone(), position, tables, options, handle.clone(), heartbeats, metrics);
        let health = Health::new();
        let fleet = Arc::new(Fleet::new(database.clone(), Arc::clone(&state.heartbeats)));
        let prober = Prober::new(config.routers.clone());
        let watch = Watch::new(Arc::clone(&fleet), prober, health.clone(), telemetry.meter());
        let overdue = Overdue::new(database.clone(), commands.clone());
        let pulse = Pulse::new(database.clone(), handle, health.clone(), telemetry.meter(), watch, overdue);
        Ok(Self {
            config,
            state,
            telemetry,
            health,
            database,
            lanes,
            writer,
            commands,
            vault,
            migrator,
            publisher,
            follower,
            pulse,
            fleet,
            ports,
        })
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

    /// Serves until `shutdown` begins and requests in flight have ended.
    ///
    /// # Errors
    /// The contracts cannot be offered for reflection.
    pub async fn serve(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let (grace, limits) = (self.config.drain_grace, self.config.limits.clone());
        // The driver's URL holds credentials, of which the guard keeps none.
        let guard = Guard::new(self.config.tenant_databases.clone(), [self.config.database.url.expose()]);
        let registrar = Registrar { vault: self.vault.map(Arc::new), guard };
        let api = Api::new(
            self.database,
            self.lanes,
            self.commands,
            self.state,
            self.fleet,
            registrar,
            self.migrator,
            limits.max_watchers,
            shutdown.token(),
        );
        let serving = Serving {
            grpc: grpc::routes(&api, limits.max_request_bytes),
            rest: rest::routes(&api, limits.max_request_bytes),
            health: self.health,
            telemetry: self.telemetry,
            deadline: limits.request_timeout,
            grace,
        };
        drop(api);

        // Commands in flight need their writer, and their events their publisher, until the last request has ended.
        let background = CancellationToken::new();
        shutdown.spawn("command writer", self.writer.run(background.clone()));
        shutdown.spawn("publisher", self.publisher.run(background.clone()));
        shutdown.spawn("follower", self.follower.run(background.clone()));
        shutdown.spawn("pulse", self.pulse.run(background.clone()));
        let served = Box::pin(self.ports.serve(serving, shutdown)).await;
        background.cancel();
        shutdown.wait(grace).await;
        served
    }
}
