//! Which service a request is for.
//!
//! Decisions go to the generated server by one comparison of their path, without a router of HTTP paths in
//! between, which would cost each of them more than deciding does.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use grey_proto::router::router_service_server::RouterServiceServer;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use super::Service;
use crate::limits::Limits;

const ROUTER: &str = "/grey.router.v1.RouterService/";
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/";

/// All gRPC services of one thread.
pub(crate) struct Dispatch<H, R> {
    /// For messages with one call.
    calls: RouterServiceServer<Service>,
    /// For messages with many.
    batches: RouterServiceServer<Service>,
    health: HealthServer<H>,
    reflection: ServerReflectionServer<R>,
}

impl<H: Health, R: ServerReflection> Dispatch<H, R> {
    pub(crate) fn new(
        service: Service,
        limits: &Limits,
        health: HealthServer<H>,
        reflection: ServerReflectionServer<R>,
    ) -> Self {
        let service = Arc::new(service);
        let server =
            |bytes| RouterServiceServer::from_arc(Arc::clone(&service)).max_decoding_message_size(bytes);
        Self { calls: server(limits.call_bytes), batches: server(limits.batch_bytes), health, reflection }
    }
}

impl<H, R> Clone for Dispatch<H, R> {
    fn clone(&self) -> Self {
        Self {
            calls: self.calls.clone(),
            batches: self.batches.clone(),
            health: self.health.clone(),
            reflection: self.reflection.clone(),
        }
    }
}

impl<H: Health, R: ServerReflection> tower::Service<Request<Incoming>> for Dispatch<H, R> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        match path.strip_prefix(ROUTER) {
            Some("Route" | "Explain") => self.calls.call(request),
            Some(_) => self.batches.call(request),
            None if path.starts_with(HEALTH) => self.health.call(request),
            None if path.starts_with(REFLECTION) => self.reflection.call(request),
            None => {
                let status = Status::unimplemented("no such service on this port");
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}
