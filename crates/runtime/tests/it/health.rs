//! Health and metrics over real sockets.

use std::time::Duration;

use grey_runtime::{Health, Shutdown, admin, server::http::Server};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{DEADLINE, any_port, telemetry::first_start, within};

async fn get(url: &str) -> (u16, String) {
    grey_runtime::tls::install_provider();
    let response = within(reqwest::get(url)).await.unwrap();
    (response.status().as_u16(), within(response.text()).await.unwrap())
}

#[tokio::test]
async fn readiness_follows_the_handle_and_liveness_does_not() {
    let (shutdown, health) = (Shutdown::new(), Health::new());
    let server = Server::bind(any_port()).await.unwrap();
    let base = format!("http://{}", server.local_addr());
    let draining = CancellationToken::new();
    let told = health.clone().with_draining(draining.clone());
    let routes = admin::routes(told, first_start().telemetry.clone());
    let token = shutdown.token();
    shutdown.spawn("admin", async move {
        server.serve(routes, None, token, DEADLINE).await;
    });

    assert_eq!(get(&format!("{base}/health/live")).await, (200, "alive\n".to_owned()));
    let ready = format!("{base}/health/ready");
    assert_eq!(get(&ready).await, (503, r#"{"ready":false,"reason":"starting"}"#.to_owned()));
    health.set_ready(true);
    assert_eq!(get(&ready).await, (200, r#"{"ready":true}"#.to_owned()));
    health.set_detail("snapshot", "stale for 12s");
    assert_eq!(
        get(&ready).await,
        (200, r#"{"ready":true,"details":{"snapshot":"stale for 12s"}}"#.to_owned())
    );
    health.clear_detail("snapshot");
    health.set_not_ready("store is away");
    assert_eq!(get(&ready).await, (503, r#"{"ready":false,"reason":"store is away"}"#.to_owned()));
    assert!(!health.is_ready());
    health.set_ready(true);
    draining.cancel();
    assert_eq!(get(&ready).await, (503, r#"{"ready":false,"reason":"draining"}"#.to_owned()));
    assert_eq!(get(&format!("{base}/health/live")).await.0, 200);

    shutdown.begin();
    assert!(shutdown.wait(DEADLINE).await);
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_text() {
    let telemetry = first_start().telemetry.clone();
    let server = Server::bind(any_port()).await.unwrap();
    let url = format!("http://{}/metrics", server.local_addr());
    let draining = CancellationToken::new();
    let serving = tokio::spawn(server.serve(
        admin::routes(Health::new(), telemetry.clone()),
        None,
        draining.clone(),
        DEADLINE,
    ));
    telemetry.meter().u64_counter("decisions").build().add(3, &[]);
    let response = within(reqwest_get(&url)).await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
    let text = within(response.text()).await.unwrap();
    assert!(text.contains("decisions_total 3"), "{text}");
    draining.cancel();
    assert!(within(serving).await.unwrap());
}

async fn reqwest_get(url: &str) -> reqwest::Response {
    grey_runtime::tls::install_provider();
    reqwest::get(url).await.unwrap()
}

#[tokio::test]
async fn grpc_health_follows_the_handle_and_ends_with_the_drain() {
    let (shutdown, health) = (Shutdown::new(), Health::new());
    let routes = tonic::service::Routes::new(health.grpc(&shutdown)).into_axum_router();
    let server = Server::bind(any_port()).await.unwrap();
    let endpoint =
        Endpoint::from_shared(format!("http://{}", server.local_addr())).unwrap().timeout(DEADLINE);
    let closing = CancellationToken::new();
    let serving = tokio::spawn(server.serve(routes, None, closing.clone(), Duration::from_secs(1)));
    let mut client = HealthClient::new(within(endpoint.connect()).await.unwrap());
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let mut next = async || within(watch.message()).await.unwrap().unwrap().status();

    // The first answer may be from before the handle was first read.
    while next().await != ServingStatus::NotServing {}
    health.set_ready(true);
    assert_eq!(next().await, ServingStatus::Serving);
    health.set_not_ready("store is away");
    assert_eq!(next().await, ServingStatus::NotServing);
    health.set_ready(true);
    assert_eq!(next().await, ServingStatus::Serving);
    shutdown.begin();
    assert_eq!(next().await, ServingStatus::NotServing);
    assert!(shutdown.wait(DEADLINE).await);
    drop((client, watch));
    closing.cancel();
    assert!(within(serving).await.unwrap());
}
