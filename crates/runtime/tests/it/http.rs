//! The server for HTTP/1.1 and HTTP/2 on one port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, routing::get};
use grey_runtime::server::http::{Limits, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    DEADLINE, any_port,
    rpc::{Gate, ask, connect},
    within,
};

struct Running {
    addr: SocketAddr,
    draining: CancellationToken,
    serving: JoinHandle<bool>,
}

async fn start(router: Router, limits: Limits, grace: Duration) -> Running {
    grey_runtime::tls::install_provider();
    let server = Server::bind(any_port()).await.unwrap().with_limits(limits);
    let (addr, draining) = (server.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(router, None, draining.clone(), grace));
    Running { addr, draining, serving }
}

/// `/slow` reports its arrival and waits for the second semaphore.
fn slow_route() -> (Router, Arc<Semaphore>, Arc<Semaphore>) {
    let (entered, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (enter, go_on) = (Arc::clone(&entered), Arc::clone(&release));
    let handler = move || async move {
        enter.add_permits(1);
        go_on.acquire().await.unwrap().forget();
        "done"
    };
    (Router::new().route("/slow", get(handler)), entered, release)
}

#[tokio::test]
async fn one_port_serves_http1_and_grpc() {
    let gate = Gate::new();
    let router = tonic::service::Routes::new(gate.service())
        .into_axum_router()
        .route("/peer", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string()));
    let server = start(router, Limits::default(), DEADLINE).await;
    let response = within(reqwest::get(format!("http://{}/peer", server.addr))).await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_11);
    assert_eq!(response.text().await.unwrap(), "127.0.0.1");
    let mut client = within(connect(server.addr)).await.unwrap();
    assert!(client.check(ask("")).await.is_ok());
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}

#[tokio::test]
async fn request_in_flight_finishes_while_new_connections_are_refused() {
    let (router, entered, release) = slow_route();
    let server = start(router, Limits::default(), DEADLINE).await;
    let url = format!("http://{}/slow", server.addr);
    let slow = tokio::spawn(async move { reqwest::get(url).await.unwrap().text().await.unwrap() });
    within(entered.acquire()).await.unwrap().forget();
    server.draining.cancel();
    within(async { while TcpStream::connect(server.addr).await.is_ok() {} }).await;
    assert!(!slow.is_finished());
    release.add_permits(1);
    assert_eq!(within(slow).await.unwrap(), "done");
    assert!(within(server.serving).await.unwrap());
}

#[tokio::test]
async fn stuck_request_is_cut_off_after_the_grace() {
    let (router, entered, _release) = slow_route();
    let server = start(router, Limits::default(), Duration::from_millis(50)).await;
    let url = format!("http://{}/slow", server.addr);
    let stuck = tokio::spawn(async move { reqwest::get(url).await });
    within(entered.acquire()).await.unwrap().forget();
    server.draining.cancel();
    assert!(!within(server.serving).await.unwrap());
    assert!(within(stuck).await.unwrap().is_err());
}

#[tokio::test]
async fn headers_that_never_end_are_closed() {
    let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start(Router::new(), limits, DEADLINE).await;
    for sent in ["", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Closed in one way or the other; what counts is that it ends.
        drop(within(stream.read_to_end(&mut answer)).await);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let server = start(Router::new(), Limits { max_connections: 1, ..Limits::default() }, DEADLINE).await;
    let mut first = TcpStream::connect(server.addr).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    assert_eq!(within(first.read(&mut byte)).await.unwrap(), 1);
    let mut second = TcpStream::connect(server.addr).await.unwrap();
    assert!(matches!(within(second.read(&mut byte)).await, Ok(0) | Err(_)));
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}
