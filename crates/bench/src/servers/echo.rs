//! The bare echoes: decode a Route request, answer with a message of a decision's shape and size.

use super::only_route::{OnlyRoute, Route};
use super::{announce, loopback};
use crate::world;
use anyhow::Result;
use grey_proto::router::router_service_server::RouterServiceServer;
use grey_proto::router::{DecisionReason, Instance, RouteRequest, RouteResponse};
use grey_runtime::server::{Options, PerCore, PerCoreHandle};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Answers every call with the same decision, built anew as a real one is.
struct Echo {
    answer: RouteResponse,
}

impl Echo {
    fn new() -> Result<Self> {
        let instance = world::instance(7, 1, 2)?;
        let text =
            |name: Option<grey_core::ids::Name>| name.map_or_else(String::new, |name| name.to_string());
        let answer = RouteResponse {
            version: instance.version.to_string(),
            instance: Some(Instance {
                id: instance.id.to_string(),
                address: instance.address.to_string(),
                region: text(instance.region),
                zone: text(instance.zone),
                metadata: instance.metadata,
                ..Instance::default()
            }),
            reason: DecisionReason::Pin.into(),
            revision: world::position().revision.0,
            epoch: world::position().epoch.0,
            ..RouteResponse::default()
        };
        Ok(Self { answer })
    }
}

impl Route for Echo {
    async fn route(&self, _: RouteRequest) -> Result<RouteResponse, Status> {
        Ok(self.answer.clone())
    }
}

/// The echo on the data plane's server, one thread.
pub(super) async fn tuned() -> Result<()> {
    let serving = start_tuned(CancellationToken::new())?;
    announce(serving.local_addr());
    serving.wait().await;
    Ok(())
}

/// Starts the tuned echo, until `stop`.
pub(super) fn start_tuned(stop: CancellationToken) -> Result<PerCoreHandle> {
    let service = TowerToHyperService::new(RouterServiceServer::new(OnlyRoute(Echo::new()?)));
    let serve_all = move |_| {
        let service = service.clone();
        move |_| service.clone()
    };
    Ok(PerCore::bind(loopback(), 1)?.serve(Options::default(), serve_all, stop)?)
}

/// The echo on the server of tonic's first example; the runtime and the allocator are the program's.
pub(super) async fn usual() -> Result<()> {
    let service = RouterServiceServer::new(OnlyRoute(Echo::new()?));
    let incoming = TcpIncoming::bind(loopback())?.with_nodelay(Some(true));
    announce(incoming.local_addr()?);
    Ok(Server::builder().add_service(service).serve_with_incoming(incoming).await?)
}
