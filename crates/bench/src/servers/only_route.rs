//! A router service of which only Route answers.

use grey_proto::router::router_service_server::RouterService;
use grey_proto::router::{
    ExplainRequest, ExplainResponse, IdentifyRequest, IdentifyResponse, ReportRequest, ReportResponse,
    RouteBatchRequest, RouteBatchResponse, RouteRequest, RouteResponse, RouteStreamRequest,
    RouteStreamResponse, WatchRequest, WatchResponse,
};
use std::future::Future;
use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming};

/// Answers Route.
pub(super) trait Route: Send + Sync + 'static {
    fn route(&self, request: RouteRequest) -> impl Future<Output = Result<RouteResponse, Status>> + Send;
}

/// Answers nothing but Route.
pub(super) struct OnlyRoute<R>(pub(super) R);

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this server is here to be measured against"))
}

#[tonic::async_trait]
impl<R: Route> RouterService for OnlyRoute<R> {
    async fn route(&self, request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        self.0.route(request.into_inner()).await.map(Response::new)
    }

    async fn route_batch(
        &self,
        _: Request<RouteBatchRequest>,
    ) -> Result<Response<RouteBatchResponse>, Status> {
        absent()
    }

    type RouteStreamStream = Empty<Result<RouteStreamResponse, Status>>;

    async fn route_stream(
        &self,
        _: Request<Streaming<RouteStreamRequest>>,
    ) -> Result<Response<Self::RouteStreamStream>, Status> {
        absent()
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        absent()
    }

    type WatchStream = Empty<Result<WatchResponse, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        absent()
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        absent()
    }

    async fn identify(&self, _: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        absent()
    }
}
