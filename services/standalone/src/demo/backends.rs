//! The instances of the demo: an HTTP server each, which says who it is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use axum::http::HeaderMap;
use axum::{Json, Router};
use grey_registry_sync::registry::{Listing, Registered};
use grey_runtime::server::http::Server;
use serde::{Deserialize, Serialize};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::world;

/// What a backend answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) instance: String,
    /// As the call's header said.
    pub(super) tenant: String,
}

/// The running backends. They end when this is dropped.
pub(super) struct Backends {
    servers: JoinSet<()>,
    by_id: BTreeMap<String, Backend>,
}

struct Backend {
    service: &'static str,
    registered: Registered,
    server: AbortHandle,
}

impl Backends {
    /// Starts every instance of the world on a free port.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let mut backends = Self { servers: JoinSet::new(), by_id: BTreeMap::new() };
        for service in world::SERVICES {
            for version in world::versions_of(service) {
                for (zone, number) in world::zones_of(service, version).iter().zip(1..) {
                    let id = format!("{service}-{version}-{number}");
                    backends.start_one(service, version, &id, zone).await?;
                }
            }
        }
        Ok(backends)
    }

    /// Starts one more instance.
    pub(super) async fn start_one(
        &mut self,
        service: &'static str,
        version: &str,
        id: &str,
        zone: &str,
    ) -> anyhow::Result<()> {
        let server = Server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
        let server = server.with_context(|| format!("listen for {id}"))?;
        let registered = Registered {
            id: id.to_owned(),
            address: server.local_addr().to_string(),
            version: Some(version.to_owned()),
            region: Some(world::REGION.to_owned()),
            zone: Some(zone.to_owned()),
            weight: 100,
            enabled: true,
            healthy: true,
            ephemeral: true,
            metadata: BTreeMap::new(),
        };
        let answer = Answer {
            service: service.to_owned(),
            version: version.to_owned(),
            instance: id.to_owned(),
            tenant: String::new(),
        };
        let routes = Router::new().fallback(move |headers: HeaderMap| {
            let tenant = headers.get("x-tenant").and_then(|tenant| tenant.to_str().ok());
            let answer = Answer { tenant: tenant.unwrap_or_default().to_owned(), ..answer.clone() };
            async { Json(answer) }
        });
        let serve = async move {
            // A backend lives until it is aborted: nothing ever drains it.
            server.serve(routes, None, CancellationToken::new(), Duration::ZERO).await;
        };
        let server = self.servers.spawn(serve);
        self.by_id.insert(id.to_owned(), Backend { service, registered, server });
        Ok(())
    }

    /// Stops an instance at once, in the middle of whatever it does. It stays registered.
    pub(super) fn kill(&mut self, id: &str) {
        if let Some(backend) = self.by_id.remove(id) {
            backend.server.abort();
        }
    }

    /// The running instances, as a registry lists them.
    pub(super) fn listings(&self) -> Vec<Listing> {
        let listing = |service: &str| {
            let running = self.by_id.values().filter(|backend| backend.service == service);
            Listing {
                service: service.to_owned(),
                instances: running.map(|backend| backend.registered.clone()).collect(),
            }
        };
        world::SERVICES.into_iter().map(listing).collect()
    }

    /// How many run.
    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }
}
