//! The end of a router.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use grey_core::error::Reason;
use grey_proto::router::watch_response::Frame;
use grey_proto::router::{RouteBatchRequest, WatchRequest};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::world::{DEADLINE, Router, World, call, connect, told, within};

#[tokio::test]
async fn drain_under_load_fails_no_call_that_was_accepted() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let draining = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for number in 0..8 {
        let (mut client, draining) = (connect(router.grpc).await, Arc::clone(&draining));
        callers.push(tokio::spawn(async move {
            let mut answered = 0_u32;
            loop {
                let before = !draining.load(SeqCst);
                let result = if number % 2 == 0 {
                    within(client.route(call("acme", "payment"))).await.map(drop)
                } else {
                    let calls = vec![call("acme", "payment"); 500];
                    within(client.route_batch(RouteBatchRequest { calls })).await.map(drop)
                };
                match result {
                    Ok(()) => answered += 1,
                    Err(status) => return (before, status, answered),
                }
            }
        }));
    }
    // Every caller has calls behind it and one under way.
    let metrics = async || router.get("/metrics").await.1;
    crate::world::eventually("calls flow", async || {
        metrics().await.lines().any(|line| {
            let count = line.strip_prefix("grey_router_decisions_total").and_then(|l| l.rsplit(' ').next());
            count.is_some_and(|count| count.parse::<f64>().unwrap() > 20_000.0)
        })
    })
    .await;
    draining.store(true, SeqCst);
    router.stop().await;
    for caller in callers {
        let (before, status, answered) = within(caller).await.unwrap();
        assert!(!before, "a call from before the drain failed: {status}");
        // What the router did not accept: the client calls a GOAWAY that crosses its call on the way an internal error,
        // and a call that it had not sent yet when the connection closed a cancelled one.
        let refused = status.code() == Code::Unavailable
            || ["NO_ERROR, Remote", "hyper::Error(Canceled"].iter().any(|it| status.to_string().contains(it));
        assert!(refused, "{status}");
        assert!(answered > 0);
    }
}

#[tokio::test]
async fn watchers_are_told_to_go_elsewhere() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let mut frames = within(router.client.clone().watch(WatchRequest::default())).await.unwrap().into_inner();
    while !matches!(within(frames.message()).await.unwrap().unwrap().frame, Some(Frame::End(_))) {}
    router.stop().await;
    let end = loop {
        match within(frames.message()).await {
            Ok(Some(frame)) => assert!(matches!(frame.frame, Some(Frame::Heartbeat(_))), "{frame:?}"),
            end => break end,
        }
    };
    let end = told(end);
    assert_eq!((end.reason, end.message.contains("draining")), (Reason::Unavailable, true));
}

#[tokio::test]
async fn health_and_reflection_are_served_next_to_the_router() {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.grpc.server.drain_grace = DEADLINE * 10).await;
    router.follows(&world).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", router.grpc)).unwrap();
    let channel = within(channel.connect()).await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    let checked = within(health.check(HealthCheckRequest::default())).await.unwrap().into_inner();
    assert_eq!(checked.status, 1, "serving");
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let request = futures::stream::iter([list]);
    let mut answers = within(reflection.server_reflection_info(request)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        within(answers.message()).await.unwrap().unwrap().message_response
    else {
        panic!("a list of services")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"grey.router.v1.RouterService".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("control")), "only what is served here: {names:?}");

    // A health stream that stays open must not hold the drain up until its grace ends.
    let mut watching = within(health.watch(HealthCheckRequest::default())).await.unwrap().into_inner();
    assert_eq!(within(watching.message()).await.unwrap().unwrap().status, 1);
    router.stop().await;
    let last = loop {
        match within(watching.message()).await {
            Ok(Some(_not_serving)) => {}
            last => break last,
        }
    };
    assert_eq!(last.unwrap_err().code(), Code::Unavailable);
}
