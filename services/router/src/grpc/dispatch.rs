//! Which service a request is for, and whether its caller is known.
//!
//! Requests are told apart by comparing their path, without a router of HTTP paths in between, which would cost a decision
//! more than deciding does. Credentials are checked before a byte of a body is read.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use grey_proto::status::ApiError;
use grey_runtime::access::{LastCaller, Principal};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Body as _, Frame};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service as _};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use super::Service;
use super::answer::AnswerBody;
use super::fast::{Answering, Method, Methods};
use super::request::Fault;
use crate::shared::{Shared, unauthenticated};

const ROUTER: &str = "/grey.router.v1.RouterService/";
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/";

/// All gRPC services of one connection.
///
/// A clone is for another connection of the same thread: it has served nobody yet.
pub(crate) struct Dispatch<H, R> {
    services: Arc<Services<H, R>>,
    last_caller: RefCell<LastCaller>,
}

/// What the connections of a thread have in common.
struct Services<H, R> {
    shared: Arc<Shared>,
    methods: Arc<Methods>,
    health: HealthServer<H>,
    reflection: ServerReflectionServer<R>,
    draining: CancellationToken,
}

/// What a path leads to.
enum Target {
    Router(Method),
    Health,
    Reflection,
    Nothing,
}

impl Target {
    fn of(path: &str) -> Self {
        match path.strip_prefix(ROUTER) {
            Some(method) => Self::Router(Method::of(method)),
            None if path.starts_with(HEALTH) => Self::Health,
            None if path.starts_with(REFLECTION) => Self::Reflection,
            None => Self::Nothing,
        }
    }
}

impl<H: Health, R: ServerReflection> Dispatch<H, R> {
    pub(crate) fn new(
        service: Service,
        health: HealthServer<H>,
        reflection: ServerReflectionServer<R>,
        draining: CancellationToken,
    ) -> Self {
        let shared = Arc::clone(&service.decider.shared);
        let methods = Arc::new(Methods::new(service, &shared.limits));
        let services = Arc::new(Services { shared, methods, health, reflection, draining });
        Self { services, last_caller: RefCell::default() }
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Arc<Principal>, ApiError> {
        let shared = &self.services.shared;
        let mut last = self.last_caller.borrow_mut();
        last.authenticate(&shared.access, headers, || shared.now()).map_err(unauthenticated)
    }
}

impl<H, R> Clone for Dispatch<H, R> {
    fn clone(&self) -> Self {
        Self { services: Arc::clone(&self.services), last_caller: RefCell::default() }
    }
}

impl<H, R, B> hyper::service::Service<Request<B>> for Dispatch<H, R>
where
    H: Health,
    R: ServerReflection,
    B: hyper::body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Fault> + Send,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering<B>;

    fn call(&self, request: Request<B>) -> Answering<B> {
        let services = &*self.services;
        let served = match Target::of(request.uri().path()) {
            Target::Router(method) => {
                return match self.caller(request.headers()) {
                    Ok(who) => services.methods.answer(method, who, request),
                    Err(why) => Answering::refused(why),
                };
            }
            Target::Health => services.health.clone().call(request),
            Target::Reflection => services.reflection.clone().call(request),
            Target::Nothing => {
                let status = Status::unimplemented("no such service on this port");
                return Answering::Ready(status.into_http());
            }
        };
        Answering::Served(until_drain(served, services.draining.clone()))
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
