//! What callers must not do, on every RPC: it is refused with its reason, and the router goes on.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use grey_core::error::Reason;
use grey_proto::router::{
    CallOutcome, ExplainRequest, ReportRequest, RouteBatchRequest, RouteRequest, RouteStreamRequest,
    WatchRequest, route_outcome::Outcome,
};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::world::{Router, World, call, eventually, told, within};

/// Calls that are refused before anything is decided, with the field that is to blame.
fn refused_calls() -> Vec<(&'static str, RouteRequest)> {
    let entries = |count: usize, bytes: usize| -> BTreeMap<String, String> {
        (0..count).map(|i| (format!("k{i:04}"), "x".repeat(bytes))).collect()
    };
    let good = call("acme", "payment");
    vec![
        ("tenant", call("", "payment")),
        ("service", call("acme", "")),
        ("tenant", call(&"x".repeat(64), "payment")),
        ("service", call("acme", &"x".repeat(64))),
        ("tenant", call("ACME!", "payment")),
        ("tenant", call("acme\0", "payment")),
        ("service", call("acme", "../payment")),
        ("metadata", RouteRequest { metadata: entries(65, 1), ..good.clone() }),
        ("metadata", RouteRequest { metadata: entries(2, 5_000), ..good.clone() }),
        ("user", RouteRequest { user: "x".repeat(257), ..good.clone() }),
        ("request_key", RouteRequest { request_key: "x".repeat(257), ..good.clone() }),
        ("region", RouteRequest { region: "x".repeat(64), ..good.clone() }),
        ("zone", RouteRequest { zone: "x".repeat(64), ..good.clone() }),
        ("override_version", RouteRequest { override_version: "1".repeat(65), ..good }),
    ]
}

async fn started() -> Router {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.limits.batch_bytes = 1 << 20).await;
    router.follows(&world).await;
    router
}

async fn stop_alive(router: Router) {
    assert_eq!(router.version("acme", "payment").await, "v1.0", "alive afterwards");
    router.stop().await;
}

#[tokio::test]
async fn malformed_call_is_refused_naming_its_field() {
    let router = started().await;
    let mut client = router.client.clone();
    for (field, request) in refused_calls() {
        let error = told(client.route(request.clone()).await);
        assert_eq!((error.reason, error.get("field")), (Reason::InvalidArgument, Some(field)), "{request:?}");
        // An id that only looks wrong shows as the outcome that is explained.
        match client.explain(ExplainRequest { call: Some(request), revision: 0 }).await {
            Err(status) => assert_eq!(told(Err::<(), _>(status)).reason, Reason::InvalidArgument, "{field}"),
            Ok(explained) => {
                let outcome = explained.into_inner().explanation.unwrap().outcome.unwrap().outcome.unwrap();
                assert!(
                    matches!(outcome, Outcome::Error(error) if error.reason == "INVALID_ARGUMENT"),
                    "{field}"
                );
            }
        }
    }
    stop_alive(router).await;
}

#[tokio::test]
async fn malformed_call_of_a_batch_or_stream_spoils_only_itself() {
    let router = started().await;
    let mut client = router.client.clone();
    let mut calls: Vec<RouteRequest> = refused_calls().into_iter().map(|(_, call)| call).collect();
    let bad = calls.len();
    calls.push(call("acme", "payment"));
    let check = |outcomes: Vec<grey_proto::router::RouteOutcome>| {
        assert_eq!(outcomes.len(), bad + 1);
        for (i, outcome) in outcomes.into_iter().enumerate() {
            match outcome.outcome.unwrap() {
                Outcome::Error(error) => {
                    assert_eq!((i < bad, error.reason.as_str()), (true, "INVALID_ARGUMENT"));
                }
                Outcome::Decision(decision) => assert_eq!((i, decision.version.as_str()), (bad, "v1.0")),
            }
        }
    };
    let batch = client.route_batch(RouteBatchRequest { calls: calls.clone() }).await.unwrap();
    check(batch.into_inner().outcomes);
    let messages = futures::stream::iter([RouteStreamRequest { id: 1, calls }]);
    let mut answers = client.route_stream(messages).await.unwrap().into_inner();
    check(within(answers.message()).await.unwrap().unwrap().outcomes);
    stop_alive(router).await;
}

#[tokio::test]
async fn too_many_calls_are_refused_as_a_whole() {
    let router = started().await;
    let mut client = router.client.clone();
    let calls = vec![call("acme", "payment"); 1_001];
    let error = told(client.route_batch(RouteBatchRequest { calls: calls.clone() }).await);
    assert_eq!((error.reason, error.get("field")), (Reason::InvalidArgument, Some("calls")));
    let messages = futures::stream::iter([RouteStreamRequest { id: 1, calls }]);
    let mut answers = client.route_stream(messages).await.unwrap().into_inner();
    assert_eq!(told(within(answers.message()).await).reason, Reason::InvalidArgument);
    let outcomes = vec![CallOutcome::default(); 1_001];
    assert_eq!(told(client.report(ReportRequest { outcomes }).await).reason, Reason::InvalidArgument);
    let empty = client.route_batch(RouteBatchRequest::default()).await.unwrap().into_inner();
    assert!(empty.outcomes.is_empty());
    stop_alive(router).await;
}

#[tokio::test]
async fn oversized_message_is_refused_on_every_rpc() {
    let router = started().await;
    let mut client = router.client.clone();
    let large = |bytes: usize| RouteRequest { user: "x".repeat(bytes), ..call("acme", "payment") };
    let too_large = |answer: Result<(), Status>| assert_eq!(told(answer).reason, Reason::TooLarge);
    too_large(client.route(large(70_000)).await.map(drop));
    too_large(client.explain(ExplainRequest { call: Some(large(70_000)), revision: 0 }).await.map(drop));
    let calls = vec![large(2 << 20)];
    too_large(client.route_batch(RouteBatchRequest { calls: calls.clone() }).await.map(drop));
    let messages = futures::stream::iter([RouteStreamRequest { id: 1, calls }]);
    let mut answers = client.route_stream(messages).await.unwrap().into_inner();
    too_large(within(answers.message()).await.map(drop));
    let outcome = CallOutcome { tenant: "x".repeat(2 << 20), ..CallOutcome::default() };
    too_large(client.report(ReportRequest { outcomes: vec![outcome] }).await.map(drop));
    let watch = WatchRequest { services: vec!["x".repeat(2 << 20)], ..WatchRequest::default() };
    too_large(client.watch(watch).await.map(drop));
    stop_alive(router).await;
}

#[tokio::test]
async fn requests_beyond_the_budget_are_refused_and_their_connection_goes_on() {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.grpc.server.body_budget_bytes = 400_000).await;
    router.follows(&world).await;
    let mut client = router.client.clone();
    let batch = |bytes: usize| {
        let call = RouteRequest { user: "x".repeat(bytes), ..call("acme", "payment") };
        RouteBatchRequest { calls: vec![call] }
    };
    // Together far more than the connection's window.
    for _ in 0..20 {
        let error = told(within(client.route_batch(batch(110_000))).await);
        assert_eq!(error.reason, Reason::RateLimited);
        let answer = within(client.route_batch(batch(60_000))).await.unwrap();
        assert_eq!(answer.into_inner().outcomes.len(), 1);
    }
    // A stream may send more than that, message by message.
    let message = RouteStreamRequest { id: 1, calls: batch(60_000).calls };
    let messages = futures::stream::iter(vec![message; 20]);
    let mut answers = within(client.route_stream(messages)).await.unwrap().into_inner();
    for _ in 0..20 {
        assert!(within(answers.message()).await.unwrap().is_some());
    }
    let message = RouteStreamRequest { id: 1, calls: batch(110_000).calls };
    let mut answers =
        within(client.route_stream(futures::stream::iter([message]))).await.unwrap().into_inner();
    assert_eq!(told(within(answers.message()).await).reason, Reason::RateLimited);
    stop_alive(router).await;
}

#[tokio::test]
async fn calls_under_way_are_bounded_and_neither_health_nor_what_is_answered_at_once_is_one() {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.grpc.server.max_requests = 2).await;
    router.follows(&world).await;
    let mut client = router.client.clone();
    let mut streams = Vec::new();
    for _ in 0..2 {
        // Without a message, until its end is dropped.
        let (end, ended) = tokio::sync::oneshot::channel::<RouteStreamRequest>();
        let silent = futures::stream::once(ended).filter_map(|message| async move { message.ok() });
        streams.push((end, within(client.route_stream(silent)).await.unwrap()));
    }
    let batch = RouteBatchRequest { calls: vec![call("acme", "payment")] };
    let refused = told(within(client.route_batch(batch.clone())).await);
    assert_eq!(refused.reason, Reason::RateLimited);
    assert_eq!(router.version("acme", "payment").await, "v1.0");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", router.grpc)).unwrap();
    let mut health = HealthClient::new(within(endpoint.connect()).await.unwrap());
    within(health.check(HealthCheckRequest::default())).await.unwrap();
    let watched = within(health.watch(HealthCheckRequest::default())).await.unwrap_err();
    assert_eq!(watched.code(), Code::ResourceExhausted);
    drop(streams);
    eventually("there is room again", async || client.route_batch(batch.clone()).await.is_ok()).await;
    stop_alive(router).await;
}

#[tokio::test]
async fn malformed_watch_explain_and_report_are_refused() {
    let router = started().await;
    let mut client = router.client.clone();
    let invalid = |answer: Result<(), Status>, field: &str| {
        let error = told(answer);
        assert_eq!((error.reason, error.get("field")), (Reason::InvalidArgument, Some(field)));
    };
    invalid(client.explain(ExplainRequest::default()).await.map(drop), "call");
    let watch = |services: Vec<String>| WatchRequest { services, ..WatchRequest::default() };
    invalid(client.watch(watch(vec!["payment".into(), "No".into()])).await.map(drop), "services[1]");
    invalid(client.watch(watch(vec!["a".into(); 1_001])).await.map(drop), "services");
    let watch = |tenants: Vec<String>| WatchRequest { tenants, ..WatchRequest::default() };
    invalid(client.watch(watch(vec!["acme".into(), "No".into()])).await.map(drop), "tenants[1]");
    invalid(client.watch(watch(vec!["a".into(); 1_001])).await.map(drop), "tenants");
    let watch = |region: &str| WatchRequest { region: region.to_owned(), ..WatchRequest::default() };
    invalid(client.watch(watch("E U")).await.map(drop), "region");
    invalid(client.watch(watch(&"x".repeat(64))).await.map(drop), "region");

    let latency = |seconds, nanos| Some(pbjson_types::Duration { seconds, nanos });
    let outcome = CallOutcome {
        service: "payment".into(),
        version: "v1.0".into(),
        instance: "a1".into(),
        latency: latency(0, 1_000),
        ..CallOutcome::default()
    };
    let mut report =
        async |outcome: CallOutcome| client.report(ReportRequest { outcomes: vec![outcome] }).await.map(drop);
    report(outcome.clone()).await.unwrap();
    invalid(report(CallOutcome { latency: None, ..outcome.clone() }).await, "outcomes[0].latency");
    invalid(report(CallOutcome { latency: latency(-1, 0), ..outcome.clone() }).await, "outcomes[0].latency");
    invalid(report(CallOutcome { latency: latency(0, -1), ..outcome.clone() }).await, "outcomes[0].latency");
    invalid(report(CallOutcome { service: String::new(), ..outcome.clone() }).await, "outcomes[0].service");
    invalid(report(CallOutcome { version: String::new(), ..outcome.clone() }).await, "outcomes[0].version");
    invalid(report(CallOutcome { instance: String::new(), ..outcome.clone() }).await, "outcomes[0].instance");
    report(CallOutcome { latency: latency(i64::MAX, i32::MAX), ..outcome }).await.unwrap();
    stop_alive(router).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_on_every_rpc() {
    let router = started().await;
    for rpc in ["Route", "RouteBatch", "RouteStream", "Explain", "Watch", "Report"] {
        let status = raw(&router, &format!("/grey.router.v1.RouterService/{rpc}"), b"\xff\xff\xff\xff").await;
        assert_eq!(status.unwrap_err().code(), Code::Internal, "{rpc}");
    }
    for path in ["/grey.router.v1.RouterService/Nothing", "/grey.router.v1.Other/Route", "/nothing"] {
        assert_eq!(raw(&router, path, b"").await.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
    stop_alive(router).await;
}

/// Sends `bytes` as the message of a call, and takes the first answer.
async fn raw(router: &Router, path: &str, bytes: &[u8]) -> Result<(), Status> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", router.grpc)).unwrap();
    let mut grpc = tonic::client::Grpc::new(within(endpoint.connect()).await.unwrap());
    grpc.ready().await.unwrap();
    let message = futures::stream::iter([bytes.to_vec()]);
    let answers = within(grpc.streaming(Request::new(message), path.parse().unwrap(), Bytes)).await?;
    within(answers.into_inner().message()).await.map(drop)
}

/// Messages as they are.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        let length = bytes::Buf::remaining(buffer);
        bytes::Buf::advance(buffer, length);
        Ok(Some(()))
    }
}
