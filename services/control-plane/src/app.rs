//! Puts the parts together.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use grey_proto::DESCRIPTORS;
use grey_runtime::access::{self, Access};
use grey_runtime::server::http::Server;
use grey_runtime::{Health, Shutdown, Telemetry, admin, tls};
use grey_state::State;
use grey_state::publisher::Publisher;
use tokio_util::sync::CancellationToken;

use crate::access::Gate;
use crate::api::Api;
use crate::command::{Commands, Writer};
use crate::config::Config;
use crate::database::Database;
use crate::edge::Edge;
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::{grpc, rest};

/// A control plane: connected, migrated and listening, not yet serving.
pub struct App {
    config: Config,
    state: State,
    telemetry: Telemetry,
    health: Health,
    database: Database,
    writer: Writer,
    commands: Commands,
    publisher: Publisher,
    pulse: Pulse,
    tls: Option<tls::Acceptor>,
    grpc: Server,
    http: Server,
}

impl App {
    /// Connects to the database, brings its schema up to date and opens the ports. The caller brings the shared state.
    ///
    /// # Errors
    /// The database is away, a port is taken, certificates cannot be read, or the ports would be open to everyone.
    pub async fn bind(config: Config, state: State, telemetry: Telemetry) -> anyhow::Result<Self> {
        let acceptor = match &config.tls {
            Some(options) => {
                Some(tls::Acceptor::load(options, tls::Alpn::H2AndHttp1).context("load TLS files")?)
            }
            None => None,
        };
        for port in [&config.grpc, &config.http] {
            access::check_bind(port.listen, &config.access, acceptor.is_some())?;
        }
        let database = Database::open(&config.database).await?;
        let position = database.head().await?;
        tracing::info!(log.revision = position.revision.0, log.generation = %position.generation, "database is ready");
        let log = Arc::new(database.clone());
        let options = config.publisher.options(&config.replica_name());
        let (publisher, handle) = Publisher::new(state.clone(), log, options);
        let metrics = Metrics::new(telemetry.meter());
        let options = config.commands.clone();
        let (writer, commands) = Writer::new(database.clone(), position, options, handle.clone(), metrics);
        let health = Health::new();
        let pulse = Pulse::new(database.clone(), handle, health.clone(), telemetry.meter());
        let bind = async |port: &crate::config::Port| {
            let server =
                Server::bind(port.listen).await.with_context(|| format!("listen on {}", port.listen))?;
            anyhow::Ok(server.with_limits(port.limits.clone()))
        };
        let (grpc, http) = (bind(&config.grpc).await?, bind(&config.http).await?);
        Ok(Self {
            config,
            state,
            telemetry,
            health,
            database,
            writer,
            commands,
            publisher,
            pulse,
            tls: acceptor,
            grpc,
            http,
        })
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

    /// Serves until `shutdown` begins and requests in flight have ended.
    ///
    /// # Errors
    /// The contracts cannot be offered for reflection.
    pub async fn serve(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let (grace, draining) = (self.config.drain_grace, shutdown.token());
        let (grpc_addr, http_addr) = (self.grpc_addr(), self.http_addr());
        let health = self.health.with_draining(draining.clone());
        let limits = self.config.limits.clone();
        let api = Api::new(self.database, self.commands, self.state, limits.clone(), draining.clone());
        let edge = |addr| {
            let gate = Gate::new(Access::new(&self.config.access, addr), &self.config.access);
            Edge::new(gate, limits.request_timeout)
        };
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .build_v1()
            .context("offer the contracts for reflection")?;
        let routes = grpc::routes(&api, limits.max_request_bytes)
            .add_service(health.grpc(shutdown))
            .add_service(reflection);
        let grpc_routes = edge(grpc_addr).around_grpc(routes.into_axum_router());
        let rest_routes = edge(http_addr).around_rest(rest::routes(&api, limits.max_request_bytes));
        let http_routes: Router = admin::routes(health, self.telemetry).fallback_service(rest_routes);
        drop(api);

        // Commands in flight need their writer, and their events their publisher, until the last request has ended.
        let background = CancellationToken::new();
        shutdown.spawn("command writer", self.writer.run(background.clone()));
        shutdown.spawn("publisher", self.publisher.run(background.clone()));
        shutdown.spawn("pulse", self.pulse.run(background.clone()));
        tracing::info!(grpc.address = %grpc_addr, http.address = %http_addr, "serving");
        let grpc = self.grpc.serve(grpc_routes, self.tls.clone(), draining.clone(), grace);
        let http = self.http.serve(http_routes, self.tls, draining, grace);
        let (grpc, http) = tokio::join!(grpc, http);
        background.cancel();
        if !(grpc && http) {
            tracing::warn!("requests outlived the grace of the drain");
        }
        shutdown.wait(grace).await;
        Ok(())
    }
}
