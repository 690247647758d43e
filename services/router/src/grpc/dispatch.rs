//! Which service a request is for.
//!
//! Decisions go to the generated server by one comparison of their path, without a router of HTTP paths in
//! between, which would cost each of them more than deciding does.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt;
use grey_proto::router::router_service_server::RouterServiceServer;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use tokio_util::sync::CancellationToken;
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
///
/// It is cloned for each call, so what threads share (the token's clone takes a lock) is behind a pointer that
/// only this thread counts.
pub(crate) struct Dispatch<H, R>(Arc<Services<H, R>>);

struct Services<H, R> {
    /// For messages with one call.
    calls: RouterServiceServer<Service>,
    /// For messages with many.
    batches: RouterServiceServer<Service>,
    health: HealthServer<H>,
    reflection: ServerReflectionServer<R>,
    draining: CancellationToken,
}

impl<H: Health, R: ServerReflection> Dispatch<H, R> {
    pub(crate) fn new(
        service: Service,
        limits: &Limits,
        health: HealthServer<H>,
        reflection: ServerReflectionServer<R>,
        draining: CancellationToken,
    ) -> Self {
        let service = Arc::new(service);
        let server =
            |bytes| RouterServiceServer::from_arc(Arc::clone(&service)).max_decoding_message_size(bytes);
        let (calls, batches) = (server(limits.call_bytes), server(limits.batch_bytes));
        Self(Arc::new(Services { calls, batches, health, reflection, draining }))
    }
}

impl<H, R> Clone for Dispatch<H, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
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
        let services = &*self.0;
        let path = request.uri().path();
        match path.strip_prefix(ROUTER) {
            Some("Route" | "Explain") => services.calls.clone().call(request),
            Some(_) => services.batches.clone().call(request),
            None if path.starts_with(HEALTH) => {
                until_drain(services.health.clone().call(request), services.draining.clone())
            }
            None if path.starts_with(REFLECTION) => {
                until_drain(services.reflection.clone().call(request), services.draining.clone())
            }
            None => {
                let status = Status::unimplemented("no such service on this port");
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

/// Ends answers that would otherwise go on for ever (watched health) once the drain begins.
fn until_drain(
    answer: BoxFuture<Response<Body>, Infallible>,
    draining: CancellationToken,
) -> BoxFuture<Response<Body>, Infallible> {
    Box::pin(async move {
        let answer = answer.await?;
        if answer.body().is_end_stream() {
            return Ok(answer);
        }
        Ok(answer.map(|body| {
            let frames = BodyStream::new(body).take_until(draining.cancelled_owned());
            // After an answer's own trailers nothing is read any more.
            let mut trailers = HeaderMap::new();
            let trailers = super::draining().add_header(&mut trailers).map(|()| Frame::trailers(trailers));
            Body::new(StreamBody::new(frames.chain(futures::stream::iter([trailers]))))
        }))
    })
}
