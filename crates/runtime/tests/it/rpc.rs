//! A gRPC service to call: the health service's methods with behaviour of our own.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
};

use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tonic::{
    Request, Response, Status,
    codegen::BoxStream,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

use crate::DEADLINE;

/// The gate for a server that takes hyper's services.
pub(crate) type OnHyper = TowerToHyperService<HealthServer<Gate>>;

/// Answers at once, except that a call for the service `slow` waits until released.
#[derive(Clone)]
pub(crate) struct Gate {
    /// The threads that calls ran on.
    pub(crate) threads: Arc<Mutex<BTreeSet<String>>>,
    /// One permit per slow call that has arrived.
    pub(crate) entered: Arc<Semaphore>,
    /// One permit lets one slow call go on.
    pub(crate) release: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let closed = || Arc::new(Semaphore::new(0));
        Self { threads: Arc::default(), entered: closed(), release: closed() }
    }

    pub(crate) fn service(&self) -> HealthServer<Self> {
        HealthServer::new(self.clone())
    }

    /// The same on each thread of a server, for each of its clients.
    pub(crate) fn on_threads(&self) -> impl Fn(usize) -> Box<dyn Fn(SocketAddr) -> OnHyper> + use<> {
        let gate = self.clone();
        move |_| {
            let gate = gate.clone();
            Box::new(move |_| gate.on_hyper())
        }
    }

    /// The same for a server that takes hyper's services.
    pub(crate) fn on_hyper(&self) -> OnHyper {
        TowerToHyperService::new(self.service())
    }
}

#[tonic::async_trait]
impl Health for Gate {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.threads.lock().unwrap().insert(thread::current().name().unwrap_or_default().to_owned());
        if request.get_ref().service == "slow" {
            self.entered.add_permits(1);
            self.release.acquire().await.map_err(|_| Status::aborted("gate removed"))?.forget();
        }
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}

/// A new connection of its own.
pub(crate) async fn connect(addr: SocketAddr) -> Result<HealthClient<Channel>, tonic::transport::Error> {
    let endpoint =
        Endpoint::from_shared(format!("http://{addr}"))?.timeout(DEADLINE).connect_timeout(DEADLINE);
    Ok(HealthClient::new(endpoint.connect().await?))
}

pub(crate) fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}
