//! The gRPC face of the decisions.

mod dispatch;
mod report;
mod stream;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use grey_proto::router::router_service_server::RouterService;
use grey_proto::router::{
    ExplainRequest, ExplainResponse, IdentifyRequest, IdentifyResponse, ReportRequest, ReportResponse,
    RouteBatchRequest, RouteBatchResponse, RouteRequest, RouteResponse, RouteStreamRequest,
    RouteStreamResponse, WatchRequest, WatchResponse,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use dispatch::Dispatch;
pub(crate) use report::{Reporter, Reports, take_outcomes};
pub(crate) use stream::draining;

use crate::decider::Decider;
use crate::watch::Watchers;

/// One thread's router service.
pub(crate) struct Service {
    pub(crate) decider: Arc<Decider>,
    pub(crate) watchers: Watchers,
    pub(crate) draining: CancellationToken,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn role<T>(&self, request: &Request<T>) -> Result<&str, Status> {
        Ok(self.decider.shared.role(request.metadata().as_ref())?)
    }
}

#[tonic::async_trait]
impl RouterService for Service {
    async fn route(&self, request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let role = self.role(&request)?;
        Ok(Response::new(self.decider.route(request.get_ref(), role).await?))
    }

    async fn route_batch(
        &self,
        request: Request<RouteBatchRequest>,
    ) -> Result<Response<RouteBatchResponse>, Status> {
        let role = self.role(&request)?;
        let outcomes = self.decider.route_all(&request.get_ref().calls, role).await?;
        Ok(Response::new(RouteBatchResponse { outcomes }))
    }

    type RouteStreamStream = Answers<RouteStreamResponse>;

    async fn route_stream(
        &self,
        request: Request<Streaming<RouteStreamRequest>>,
    ) -> Result<Response<Self::RouteStreamStream>, Status> {
        let role = self.role(&request)?.to_owned();
        let calls = request.into_inner();
        let answers = stream::answers(Arc::clone(&self.decider), role, calls, self.draining.clone());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let role = self.role(&request)?;
        let explained = self.decider.explain(request.get_ref().clone(), role).await;
        Ok(Response::new(explained?))
    }

    type WatchStream = Answers<WatchResponse>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.role(&request)?;
        let frames = self.watchers.watch(request.get_ref())?;
        Ok(Response::new(Box::pin(frames)))
    }

    async fn identify(
        &self,
        request: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyResponse>, Status> {
        self.role(&request)?;
        Ok(Response::new(self.decider.shared.identify()))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let reporter = self.decider.shared.reporter(request.metadata().as_ref())?;
        Ok(Response::new(take_outcomes(&self.decider, reporter, request.get_ref())?))
    }
}
