//! Route, without what a general server does around a call.
//!
//! A call whose body is one plain message, and which has nothing to wait for, is decided from the bytes that arrived and
//! answered with bytes. Every other call goes to the generated server, as if it had come there first, so there is one
//! implementation of everything that is not a plain call, and one of the decision.

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use grey_core::error::Reason;
use grey_proto::decision;
use grey_proto::route_call::{Entries, RouteCall};
use grey_proto::router::router_service_server::RouterServiceServer;
use grey_proto::status::ApiError;
use grey_runtime::access::Principal;
use grey_runtime::server::{Budget, Requests, Share, UnderWay};
use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::Body;
use tonic::Status;
use tonic::codegen::{BoxFuture, Service as _};

use super::answer::{self, AnswerBody, decided};
use super::request::{Fault, RequestBody};
use super::{Caller, Service};
use crate::decider::Decider;
use crate::limits::Limits;

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The methods of the router's service, for one thread.
pub(crate) struct Methods {
    decider: Arc<Decider>,
    /// For messages with one call.
    calls: RouterServiceServer<Service>,
    /// For messages with many.
    batches: RouterServiceServer<Service>,
    call_bytes: usize,
    body_deadline: Duration,
}

/// What calls of one connection have in common.
pub(crate) struct Connection {
    pub(crate) methods: Arc<Methods>,
    /// Bytes of requests that may be held.
    pub(crate) budget: Budget,
    /// Calls under way, of all connections.
    pub(crate) requests: Requests,
    /// Calls of Route whose message is waited for, those of the thread: counted for all threads, they would cost each call.
    pub(crate) arriving: Requests,
}

/// What of a method matters before it is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Method {
    /// Route.
    Route,
    /// Another one whose message has one call.
    Call,
    /// One whose messages have many.
    Batch,
    /// Likewise, and its caller sends as many messages as it likes, for as long as it likes.
    Stream,
}

/// An answer on its way.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and a box would be one for each call"
)]
pub(crate) enum Answering<B> {
    /// It is there.
    Ready(Response<AnswerBody>),
    /// A call of Route whose message arrives.
    Arriving(Arriving<B>),
    /// Tonic makes it; the request's bytes count until then, and the call until the last of it was handed to the connection,
    /// unless it need not.
    Served(BoxFuture<Response<tonic::body::Body>, Infallible>, Share, Option<UnderWay>),
    /// Nobody known asked; telling so may take a while.
    Refused(Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>),
    /// It was given.
    Given,
}

/// A call of Route whose message arrives.
pub(crate) struct Arriving<B> {
    connection: Arc<Connection>,
    caller: Caller,
    request: Request<RequestBody<B>>,
    /// None while nothing of it is waited for.
    under_way: Option<UnderWay>,
}

impl Methods {
    pub(crate) fn new(service: Service, limits: &Limits) -> Self {
        let decider = Arc::clone(&service.decider);
        let service = Arc::new(service);
        let server =
            |bytes| RouterServiceServer::from_arc(Arc::clone(&service)).max_decoding_message_size(bytes);
        let (calls, batches) = (server(limits.call_bytes), server(limits.batch_bytes));
        let (call_bytes, body_deadline) = (limits.call_bytes, limits.body_deadline);
        Self { decider, calls, batches, call_bytes, body_deadline }
    }
}

impl Connection {
    /// Answers a call of `method`, whose caller is known.
    pub(crate) fn answer<B>(
        self: &Arc<Self>,
        method: Method,
        who: Arc<Principal>,
        request: Request<B>,
    ) -> Answering<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Fault>,
    {
        let caller = Caller(who);
        let methods = &self.methods;
        let deadline = (method != Method::Stream).then_some(methods.body_deadline);
        let request = request.map(|body| RequestBody::new(body, deadline));
        match method {
            Method::Route if is_plain(request.headers()) => {
                let connection = Arc::clone(self);
                Answering::Arriving(Arriving { connection, caller, request, under_way: None })
            }
            Method::Route | Method::Call => self.served(&methods.calls, caller, request),
            Method::Batch | Method::Stream => self.served(&methods.batches, caller, request),
        }
    }

    /// The answer of the generated server.
    fn served<B>(
        &self,
        server: &RouterServiceServer<Service>,
        caller: Caller,
        mut request: Request<RequestBody<B>>,
    ) -> Answering<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Fault>,
    {
        let under_way = match self.requests.begin() {
            Ok(under_way) => Some(under_way),
            Err(many) => return Answering::Ready(no_room(&many)),
        };
        request.extensions_mut().insert(caller);
        let share = request.body_mut().share(&self.budget);
        Answering::Served(server.clone().call(request), share, under_way)
    }
}

impl Method {
    /// The method of that name; there need not be one.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "Route" => Self::Route,
            "Explain" => Self::Call,
            "RouteStream" => Self::Stream,
            _ => Self::Batch,
        }
    }
}

/// The answer to a call that there is no room for now.
#[cold]
pub(crate) fn no_room(why: &dyn std::error::Error) -> Response<AnswerBody> {
    Status::from(ApiError::new(Reason::RateLimited, why.to_string())).into_http()
}

/// Whether the headers say that messages are not compressed.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_none_or(|encoding| encoding == "identity")
}

impl<B> Future for Answering<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Fault>,
{
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Self::Arriving(arriving) = &mut *self {
            let Connection { methods, budget, arriving: all, .. } = &*arriving.connection;
            if arriving.request.body_mut().poll_read(cx, methods.call_bytes, budget).is_pending() {
                if arriving.under_way.is_none() {
                    match all.begin() {
                        Ok(under_way) => arriving.under_way = Some(under_way),
                        Err(many) => {
                            *self = Self::Given;
                            return Poll::Ready(Ok(no_room(&many)));
                        }
                    }
                }
                return Poll::Pending;
            }
            if let Some(answer) = arriving.decided() {
                *self = Self::Given;
                return Poll::Ready(Ok(answer));
            }
            if let Self::Arriving(unusual) = mem::replace(&mut *self, Self::Given) {
                let Arriving { connection, caller, request, .. } = unusual;
                *self = connection.served(&connection.methods.calls, caller, request);
            }
        }
        if let Self::Served(answer, share, under_way) = &mut *self {
            let answer = ready!(answer.as_mut().poll(cx));
            share.answered();
            let under_way = under_way.take();
            return Poll::Ready(answer.map(|answer| answer::served(answer, under_way)));
        }
        if let Self::Refused(answer) = &mut *self {
            return answer.as_mut().poll(cx).map(Ok);
        }
        match mem::replace(&mut *self, Self::Given) {
            Self::Ready(answer) => Poll::Ready(Ok(answer)),
            // Nobody asks again for an answer that was given.
            Self::Given | Self::Arriving(_) | Self::Served(..) | Self::Refused(_) => Poll::Pending,
        }
    }
}

impl<B> Arriving<B> {
    /// The answer to a plain call that has nothing to wait for.
    fn decided(&self) -> Option<Response<AnswerBody>> {
        let methods = &self.connection.methods;
        let message = self.request.body().message(methods.call_bytes)?;
        let mut entries = Entries::default();
        let call = RouteCall::decode(message, &mut entries)?;
        let Caller(who) = &self.caller;
        Some(match methods.decider.route_at_once(&call, &who.role, decision::frame)? {
            Ok(frame) => decided(frame),
            Err(why) => Status::from(why).into_http(),
        })
    }
}
