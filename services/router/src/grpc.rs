//! The gRPC face of the decisions.

mod answer;
mod dispatch;
mod fast;
mod report;
mod request;
mod stream;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use grey_core::error::Reason;
use grey_proto::decision;
use grey_proto::router::router_service_server::RouterService;
use grey_proto::router::{
    ExplainRequest, ExplainResponse, IdentifyRequest, IdentifyResponse, ReportRequest, ReportResponse,
    RouteBatchRequest, RouteBatchResponse, RouteRequest, RouteResponse, RouteStreamRequest,
    RouteStreamResponse, WatchRequest, WatchResponse,
};
use grey_proto::status::ApiError;
use grey_runtime::access::Principal;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use dispatch::{Bounds, Services};
pub(crate) use report::{Reports, take_outcomes};
pub(crate) use stream::draining;

use crate::decider::Decider;
use crate::watch::{PassedOn, Watchers};

/// Who calls, as it was found out before anything of the call's body was read; in the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Arc<Principal>);

/// One thread's router service. Calls reach it through [`Services`], which knows who makes them.
pub(crate) struct Service {
    pub(crate) decider: Arc<Decider>,
    pub(crate) watchers: Watchers,
    pub(crate) draining: CancellationToken,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn caller<T>(request: &Request<T>) -> Result<&Principal, Status> {
    let caller = request.extensions().get::<Caller>().map(|Caller(who)| who.as_ref());
    caller.ok_or_else(|| ApiError::new(Reason::Unauthenticated, "the caller was not authenticated").into())
}

#[tonic::async_trait]
impl RouterService for Service {
    async fn route(&self, request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let (call, role) = (request.get_ref().into(), &caller(&request)?.role);
        Ok(Response::new(self.decider.route(&call, role, decision::response).await?))
    }

    async fn route_batch(
        &self,
        request: Request<RouteBatchRequest>,
    ) -> Result<Response<RouteBatchResponse>, Status> {
        let role = &caller(&request)?.role;
        let outcomes = self.decider.route_all(&request.get_ref().calls, role).await?;
        Ok(Response::new(RouteBatchResponse { outcomes }))
    }

    type RouteStreamStream = Answers<RouteStreamResponse>;

    async fn route_stream(
        &self,
        request: Request<Streaming<RouteStreamRequest>>,
    ) -> Result<Response<Self::RouteStreamStream>, Status> {
        let role = caller(&request)?.role.clone();
        let calls = request.into_inner();
        let answers = stream::answers(Arc::clone(&self.decider), role, calls, self.draining.clone());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let role = &caller(&request)?.role;
        let explained = self.decider.explain(request.get_ref().clone(), role).await;
        Ok(Response::new(explained?))
    }

    type WatchStream = Answers<WatchResponse>;

    /// The frames are encoded elsewhere and are no messages here: [`answer::served`] makes them the answer's body.
    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        caller(&request)?;
        let frames = PassedOn::new(self.watchers.watch(request.get_ref())?);
        let mut answer: Response<Self::WatchStream> = Response::new(Box::pin(futures::stream::empty()));
        answer.extensions_mut().insert(frames);
        Ok(answer)
    }

    async fn identify(
        &self,
        request: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyResponse>, Status> {
        caller(&request)?;
        Ok(Response::new(self.decider.shared.identify()))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let reporter = self.decider.shared.reports.admit(caller(&request)?)?;
        Ok(Response::new(take_outcomes(&self.decider, reporter, request.get_ref())?))
    }
}

#[cfg(test)]
mod conformance;
