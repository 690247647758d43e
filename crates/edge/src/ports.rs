//! The two ports of a service, and what is served on each besides the service itself.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use grey_proto::DESCRIPTORS;
use grey_runtime::access::{self, Access, Failures};
use grey_runtime::server::http::{Limits, Server};
use grey_runtime::{Health, Shutdown, Telemetry, admin, tls};
use serde::{Deserialize, Serialize};
use tonic::service::Routes;

use crate::{Edge, Gate};

/// Bytes of one message to the services that everyone may ask.
const OPEN_BYTES: usize = 4 << 10;

/// A port, as an operator sets it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What its clients may take.
    #[serde(default)]
    pub limits: Limits,
}

/// Both ports of a service: listening, not yet serving.
pub struct Ports {
    grpc: Server,
    http: Server,
    open: Router,
    tls: Option<tls::Acceptor>,
    access: access::Options,
}

/// What is served, and how.
pub struct Serving {
    /// The services of the gRPC port; health and reflection are added.
    pub grpc: Routes,
    /// The routes of the HTTP port; health and metrics are added.
    pub rest: Router,
    /// Whether the service can serve.
    pub health: Health,
    /// Where metrics come from.
    pub telemetry: Telemetry,
    /// How long a request may take.
    pub deadline: Duration,
    /// How long requests in flight may go on once the drain has begun.
    pub grace: Duration,
}

impl Ports {
    /// Opens both ports. `access` decides who may use them, `tls` encrypts them.
    ///
    /// # Errors
    /// A port is taken, certificates cannot be read, or the ports would be open to everyone.
    pub async fn bind(
        grpc: &Port,
        http: &Port,
        access: &access::Options,
        tls: Option<&tls::ServerOptions>,
    ) -> anyhow::Result<Self> {
        let acceptor = tls.map(|options| tls::Acceptor::load(options, tls::Alpn::H2AndHttp1)).transpose();
        let acceptor = acceptor.context("load TLS files")?;
        for port in [grpc, http] {
            access::check_bind(port.listen, access, acceptor.is_some())?;
        }
        let bind = async |port: &Port| {
            let server = Server::bind(port.listen).await;
            let server = server.with_context(|| format!("listen on {}", port.listen))?;
            anyhow::Ok(server.with_limits(port.limits.clone()).with_access(access))
        };
        let (grpc, http) = (bind(grpc).await?, bind(http).await?);
        Ok(Self { grpc, http, open: Router::new(), tls: acceptor, access: access.clone() })
    }

    /// Serves `routes` on the HTTP port to everyone: what they are sent must prove by itself who sent it, such as by a
    /// signature. They are none of those of [`Serving::rest`], and have its deadline.
    #[must_use]
    pub fn with_open(mut self, routes: Router) -> Self {
        self.open = routes;
        self
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

    /// Serves until `shutdown` begins and requests in flight have ended, or the grace is over.
    ///
    /// # Errors
    /// The contracts cannot be offered for reflection.
    pub async fn serve(self, serving: Serving, shutdown: &Shutdown) -> anyhow::Result<()> {
        let (grpc_addr, http_addr) = (self.grpc_addr(), self.http_addr());
        let draining = shutdown.token();
        let health = serving.health.with_draining(draining.clone());
        let edge = |addr, port| {
            let gate = Gate::new(Access::new(&self.access, addr), &self.access);
            let failures = Failures::new(serving.telemetry.meter(), port);
            Edge::new(gate, failures, serving.deadline)
        };
        let (grpc_edge, http_edge) = (edge(grpc_addr, "grpc"), edge(http_addr, "http"));
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .build_v1()
            .context("offer the contracts for reflection")?;
        // Nobody known need have sent what these read.
        let health_checks = health.grpc(shutdown).max_decoding_message_size(OPEN_BYTES);
        let reflection = reflection.max_decoding_message_size(OPEN_BYTES);
        let services = serving.grpc.add_service(health_checks).add_service(reflection);
        let grpc_routes = grpc_edge.around_grpc(services.into_axum_router());
        let rest_routes = http_edge.around_rest(serving.rest);
        let open_routes = http_edge.around_open(self.open);
        let http_routes: Router =
            admin::routes(health, serving.telemetry).merge(open_routes).fallback_service(rest_routes);
        tracing::info!(grpc.address = %grpc_addr, http.address = %http_addr, "serving");
        let grpc = self.grpc.serve(grpc_routes, self.tls.clone(), draining.clone(), serving.grace);
        let http = self.http.serve(http_routes, self.tls, draining, serving.grace);
        let (grpc, http) = tokio::join!(grpc, http);
        if !(grpc && http) {
            tracing::warn!("requests outlived the grace of the drain");
        }
        Ok(())
    }
}
