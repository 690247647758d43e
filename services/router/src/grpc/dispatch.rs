//! Which service a request is for, and whether its caller is known.
//!
//! Requests are told apart by comparing their path, without a router of HTTP paths in between, which would cost a decision
//! more than deciding does. Credentials are checked before a byte of a body is read.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use grey_core::error::Reason;
use grey_proto::status::ApiError;
use grey_runtime::access::{self, Failures, LastCaller, Principal};
use grey_runtime::server::{self, Budget, LastHost, Pages, Requests};
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
use super::fast::{Answering, Connection, Method, Methods, no_room};
use super::request::{Fault, RequestBody};
use crate::shared::{Shared, unauthenticated};

const ROUTER: &str = "/grey.router.v1.RouterService/";
const HEALTH: &str = "/grpc.health.v1.Health/";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/";

/// All gRPC services of one connection.
pub(crate) struct Dispatch<H, R> {
    services: Arc<Services<H, R>>,
    connection: Arc<Connection>,
    client: IpAddr,
    last_caller: RefCell<LastCaller>,
    last_host: RefCell<LastHost>,
}

/// What the connections of a thread have in common.
pub(crate) struct Services<H, R> {
    shared: Arc<Shared>,
    methods: Arc<Methods>,
    health: HealthServer<H>,
    reflection: ServerReflectionServer<R>,
    bounds: Bounds,
    /// Calls of Route whose message is waited for.
    arriving: Requests,
    draining: CancellationToken,
}

/// What bounds the callers of all threads together.
#[derive(Clone)]
pub(crate) struct Bounds {
    /// Bytes of requests that may be held.
    budget: Budget,
    /// Those of checks of health, and of what else nobody known need have sent, watched health and reflection: they keep
    /// nobody out, nor others them.
    health: Budget,
    open: Budget,
    /// Calls under way.
    requests: Requests,
    failures: Failures,
    /// None where callers need a token.
    pages: Option<Pages>,
}

impl Bounds {
    pub(crate) fn new(options: &server::Options, failures: Failures, pages: Option<Pages>) -> Self {
        let (health, open) = (Budget::open(), Budget::open());
        let requests = Requests::new(options.max_requests);
        let budget = Budget::new(options.body_budget_bytes);
        Self { budget, health, open, requests, failures, pages }
    }
}

/// Bytes of one message to the services that everyone may ask.
const OPEN_BYTES: usize = 4 << 10;

/// What a path leads to.
enum Target {
    Router(Method),
    /// A check of health, which is always answered.
    Check,
    /// Health that is watched.
    Health,
    Reflection,
    Nothing,
}

impl Target {
    fn of(path: &str) -> Self {
        match path.strip_prefix(ROUTER) {
            Some(method) => Self::Router(Method::of(method)),
            None if path == CHECK => Self::Check,
            None if path.starts_with(HEALTH) => Self::Health,
            None if path.starts_with(REFLECTION) => Self::Reflection,
            None => Self::Nothing,
        }
    }
}

impl<H: Health, R: ServerReflection> Services<H, R> {
    pub(crate) fn new(
        service: Service,
        health: HealthServer<H>,
        reflection: ServerReflectionServer<R>,
        bounds: Bounds,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let shared = Arc::clone(&service.decider.shared);
        let methods = Arc::new(Methods::new(service, &shared.limits));
        let health = health.max_decoding_message_size(OPEN_BYTES);
        let reflection = reflection.max_decoding_message_size(OPEN_BYTES);
        let arriving = bounds.requests.of_thread();
        Arc::new(Self { shared, methods, health, reflection, bounds, arriving, draining })
    }

    /// The services for a new connection of `client`, which has served nobody yet.
    pub(crate) fn connect(self: &Arc<Self>, client: IpAddr) -> Dispatch<H, R> {
        let (methods, budget) = (Arc::clone(&self.methods), self.bounds.budget.part());
        let (requests, arriving) = (self.bounds.requests.clone(), self.arriving.clone());
        let connection = Arc::new(Connection { methods, budget, requests, arriving });
        let services = Arc::clone(self);
        Dispatch {
            services,
            connection,
            client,
            last_caller: RefCell::default(),
            last_host: RefCell::default(),
        }
    }
}

impl<H: Health, R: ServerReflection> Dispatch<H, R> {
    fn caller(&self, headers: &HeaderMap) -> Result<Arc<Principal>, access::Error> {
        let shared = &self.services.shared;
        let mut last = self.last_caller.borrow_mut();
        last.authenticate(&shared.access, headers, || shared.now())
    }

    /// Why a request is not answered that a page of others may have made a browser send.
    fn check_page<B>(&self, request: &Request<B>) -> Result<(), Status> {
        let Some(pages) = self.services.bounds.pages else { return Ok(()) };
        let refused = self.last_host.borrow_mut().check(pages, request.uri(), request.headers());
        refused
            .map_err(|why| ApiError::new(Reason::Denied, why.to_string()).with("field", why.field()).into())
    }

    /// Refuses a call; nothing of it is read.
    #[cold]
    fn refused<B>(&self, why: access::Error) -> Answering<B> {
        let told = unauthenticated(self.services.bounds.failures.clone(), why, self.client);
        Answering::Refused(Box::pin(async move { Status::from(told.await).into_http() }))
    }

    /// Answers a request that nobody known need have sent.
    fn open<B>(
        &self,
        request: Request<B>,
        deadline: Option<Duration>,
        bounds: (&Budget, Option<&Requests>),
        serve: impl FnOnce(Request<RequestBody<B>>) -> BoxFuture<Response<Body>, Infallible>,
    ) -> Answering<B> {
        let (budget, requests) = bounds;
        let mut request = request.map(|body| RequestBody::new(body, deadline));
        let share = request.body_mut().share(budget);
        if let Err(over) = share.count_open() {
            return Answering::Ready(no_room(&over));
        }
        let under_way = match requests.map(Requests::begin).transpose() {
            Ok(under_way) => under_way,
            Err(many) => return Answering::Ready(no_room(&many)),
        };
        let answer = until_drain(serve(request), self.services.draining.clone());
        Answering::Served(answer, share, under_way)
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
        let shared = &services.shared;
        if let Err(refused) = self.check_page(&request) {
            return Answering::Ready(refused.into_http());
        }
        let bounds = &services.bounds;
        let deadline = Some(shared.limits.body_deadline);
        match Target::of(request.uri().path()) {
            Target::Router(method) => match self.caller(request.headers()) {
                Ok(who) => self.connection.answer(method, who, request),
                Err(why) => self.refused(why),
            },
            Target::Check => self.open(request, deadline, (&bounds.health, None), |request| {
                services.health.clone().call(request)
            }),
            Target::Health => {
                self.open(request, deadline, (&bounds.open, Some(&bounds.requests)), |request| {
                    services.health.clone().call(request)
                })
            }
            // Its caller may go on asking.
            Target::Reflection => {
                self.open(request, None, (&bounds.open, Some(&bounds.requests)), |request| {
                    services.reflection.clone().call(request)
                })
            }
            Target::Nothing => {
                let status = Status::unimplemented("no such service on this port");
                Answering::Ready(status.into_http())
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
