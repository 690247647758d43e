//! The two that must answer alike: the dispatch of a connection, and the generated server by itself.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use grey_proto::router::router_service_server::RouterServiceServer;
use grey_proto::status::from_status;
use grey_runtime::access::{self, Access, Failures, Token, TokenHash};
use grey_runtime::config::{Source, load};
use grey_runtime::server;
use grey_state::State;
use grey_state::follower::{self, Follower};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::service::Service as _;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;
use tonic::{Code, Status};
use tonic_health::pb::health_server::Health;
use tonic_reflection::server::v1::ServerReflection;

use super::case::{Case, Played};
use super::table::table;
use crate::config::{self, Config};
use crate::decider::Decider;
use crate::grpc::answer::AnswerBody;
use crate::grpc::dispatch::Dispatch;
use crate::grpc::{Bounds, Caller, Reports, Service, Services};
use crate::limits::Limits;
use crate::metrics::Counts;
use crate::shared::Shared;
use crate::watch::Hub;

/// Bytes of requests that all connections may hold.
pub(super) const BUDGET: usize = 1 << 20;
const DETAILS: &str = "grpc-status-details-bin";
/// Far longer than any answer takes.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) struct Pair {
    dispatch: Box<dyn Fn(Request<Played>) -> crate::grpc::fast::Answering<Played>>,
    generated: RouterServiceServer<Service>,
    caller: Caller,
    /// Of the dispatch and of the generated server.
    counts: [Arc<Counts>; 2],
}

/// An answer, as it goes to the connection.
#[derive(Debug)]
pub(super) struct Told {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    /// The facts in the failure's details, if they have no order.
    facts: Option<String>,
    data: Vec<u8>,
    pub(super) trailers: Option<Vec<(String, Vec<u8>)>>,
    pub(super) was_fast: bool,
}

impl PartialEq for Told {
    /// All but how it was made.
    fn eq(&self, other: &Self) -> bool {
        let all = |told: &Self| {
            let Self { status, headers, facts, data, trailers, was_fast: _ } = told;
            (*status, headers.clone(), facts.clone(), data.clone(), trailers.clone())
        };
        all(self) == all(other)
    }
}

impl Told {
    pub(super) fn code(&self) -> Option<Code> {
        let all = self.headers.iter().chain(self.trailers.iter().flatten());
        all.filter(|(name, _)| name == "grpc-status").map(|(_, code)| Code::from_bytes(code)).next()
    }
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(adjust: impl FnOnce(&mut Limits)) -> Self {
        let (shared, watch) = shared(adjust);
        let counts = [Arc::<Counts>::default(), Arc::default()];
        let service = |counts: &Arc<Counts>| Service {
            decider: Arc::new(Decider::new(Arc::clone(&shared), Arc::clone(counts), 0)),
            watchers: Hub::new(Arc::clone(&shared), &watch).1,
            draining: CancellationToken::new(),
        };
        let generated = RouterServiceServer::new(service(&counts[1]));
        let generated = generated.max_decoding_message_size(shared.limits.call_bytes);
        let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, "Bearer tester".parse().unwrap())]);
        let caller = Caller(Arc::new(shared.access.authenticate(&headers).unwrap().clone()));
        let dispatch = dispatch(service(&counts[0]));
        Self { dispatch: Box::new(move |request| dispatch.call(request)), generated, caller, counts }
    }

    /// What the dispatch answers, and what the generated server does.
    pub(super) async fn answers(&mut self, case: &Case) -> (Told, Told) {
        let (fast, _) = self.ask_as("Route", Some("Bearer tester"), case).await;
        let mut request = request("Route", case, case.body().0);
        request.extensions_mut().insert(self.caller.clone());
        let told = told(self.generated.call(request).await).await;
        (fast, told)
    }

    /// What the dispatch answers, and whether it read anything of the body.
    pub(super) async fn ask_as(
        &self,
        method: &str,
        authorization: Option<&str>,
        case: &Case,
    ) -> (Told, bool) {
        let (request, read) = request_as(method, authorization, case);
        let answer = tokio::time::timeout(DEADLINE, (self.dispatch)(request)).await.expect("in time");
        let was_fast = answer.as_ref().is_ok_and(|answer| matches!(answer.body(), AnswerBody::Decision(_)));
        let told = told(answer).await;
        (Told { was_fast, ..told }, read.load(Relaxed))
    }

    /// Answers a request that is there as a whole; how many frames the answer has.
    pub(super) fn frames_at_once(&self, request: Request<Played>) -> usize {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut answering = (self.dispatch)(request);
        let Poll::Ready(Ok(answer)) = Pin::new(&mut answering).poll(cx) else { return 0 };
        let mut body = answer.into_body();
        let mut frames = 0;
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(cx) {
            drop(frame);
            frames += 1;
        }
        frames
    }

    /// Both counted the same.
    pub(super) fn check_counts(&self) {
        let [fast, generated] = &self.counts;
        assert_eq!(format!("{fast:?}"), format!("{generated:?}"));
    }
}

pub(in crate::grpc) fn shared(adjust: impl FnOnce(&mut Limits)) -> (Arc<Shared>, config::Watch) {
    let mut config: Config = load(Source { defaults: crate::DEFAULTS, file: None, env: [] }).unwrap();
    config.limits.call_bytes = 2_048;
    config.limits.min_revision_wait = Duration::ZERO;
    adjust(&mut config.limits);
    let token =
        |name: &str| Token { name: name.to_owned(), role: name.to_owned(), sha256: TokenHash::of(name) };
    config.access =
        access::Options { tokens: vec![token("tester"), token("gateway")], allow_anonymous: None };
    let (follower, tables) = Follower::new(State::memory(), follower::Options::default());
    drop(follower.with_table(table()));
    let access = Access::new(&config.access, config.grpc.listen);
    let reports = Reports::new(&config.report, &config.access);
    let shared = Shared::new(tables, State::memory(), access, reports, config.limits, config.router);
    shared.stale.store(false, Relaxed);
    (Arc::new(shared), config.watch)
}

fn dispatch(service: Service) -> Dispatch<impl Health, impl ServerReflection> {
    let (_, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(grey_proto::DESCRIPTORS)
        .build_v1()
        .unwrap();
    let failures = Failures::new(&opentelemetry::global::meter("test"), "grpc");
    let options = server::Options { body_budget_bytes: BUDGET, ..server::Options::default() };
    let (bounds, draining) = (Bounds::new(&options, failures, None), CancellationToken::new());
    Services::new(service, health, reflection, bounds, draining).connect(Ipv4Addr::LOCALHOST.into())
}

/// A request of the case, and whether anything of its body was read.
pub(super) fn request_as(
    method: &str,
    authorization: Option<&str>,
    case: &Case,
) -> (Request<Played>, Arc<AtomicBool>) {
    let (body, read) = case.body();
    let mut request = request(method, case, body);
    if let Some(authorization) = authorization {
        request.headers_mut().insert(http::header::AUTHORIZATION, authorization.parse().unwrap());
    }
    (request, read)
}

fn request(method: &str, case: &Case, body: Played) -> Request<Played> {
    let mut request = Request::post(format!("http://router/grey.router.v1.RouterService/{method}"));
    for (name, value) in &case.headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

async fn told<B>(answer: Result<Response<B>, Infallible>) -> Told
where
    B: Body<Data = Bytes, Error = Status>,
{
    let Ok(answer) = answer;
    let (head, body) = answer.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().map(|trailers| listed(trailers, false));
    // Facts of a failure travel in a map without an order; one alone has no other.
    let facts = Status::from_header_map(&head.headers).map(|status| from_status(&status));
    let facts = facts.filter(|error| error.metadata.len() > 1);
    Told {
        status: head.status.as_u16(),
        headers: listed(&head.headers, facts.is_some()),
        facts: facts.map(|error| format!("{error:?}")),
        data: collected.to_bytes().to_vec(),
        trailers,
        was_fast: false,
    }
}

fn listed(headers: &HeaderMap, without_details: bool) -> Vec<(String, Vec<u8>)> {
    let kept = headers.iter().filter(|(name, _)| !(without_details && name.as_str() == DETAILS));
    let mut list: Vec<_> =
        kept.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    list.sort();
    list
}
