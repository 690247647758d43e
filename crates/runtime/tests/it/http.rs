//! The server for HTTP/1.1 and HTTP/2 on one port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::ConnectInfo, routing::get};
use futures::StreamExt;
use grey_runtime::server::http::{Limits, Server};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    DEADLINE, any_port, eventually,
    rpc::{Gate, ask, connect},
    within,
};

pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) draining: CancellationToken,
    pub(crate) serving: JoinHandle<bool>,
}

pub(crate) async fn start(router: Router, limits: Limits, grace: Duration) -> Running {
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
    for sent in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: x\r\n"] {
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
async fn idle_connections_make_room_before_busy_ones() {
    let read = async |_: Bytes| ();
    let busy = Router::new().route("/busy", get(std::future::pending::<()>).post(read));
    let server = start(busy, Limits { max_connections: 2, ..Limits::default() }, Duration::ZERO).await;
    let mut byte = [0];
    let mut busy = TcpStream::connect(server.addr).await.unwrap();
    busy.write_all(b"GET /busy HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // Each of those that say nothing more makes room for the next one, which is answered.
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    silent.write_all(b"P").await.unwrap();
    for _ in 0..3 {
        let mut next = TcpStream::connect(server.addr).await.unwrap();
        next.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(within(next.read(&mut byte)).await.unwrap(), 1, "it is answered");
        assert!(matches!(within(silent.read(&mut byte)).await, Ok(0) | Err(_)), "it made room");
        while next.try_read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
        silent = next;
    }
    // Nor does a request stay whose body does not come.
    let mut next = TcpStream::connect(server.addr).await.unwrap();
    next.write_all(b"POST /busy HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{").await.unwrap();
    assert!(matches!(within(silent.read(&mut byte)).await, Ok(0) | Err(_)), "it made room");
    silent = next;
    let mut also_busy = TcpStream::connect(server.addr).await.unwrap();
    also_busy.write_all(b"GET /busy HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(matches!(within(silent.read(&mut byte)).await, Ok(0) | Err(_)), "it made room");
    let is_ended = |stream: &TcpStream| {
        let read = stream.try_read(&mut [0]);
        !read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert!(!is_ended(&busy) && !is_ended(&also_busy));
    // Only those are left, of which one makes room once it has done nothing for a while.
    let served = async {
        loop {
            let mut late = TcpStream::connect(server.addr).await.unwrap();
            let is_sent = late.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok();
            if is_sent && matches!(late.read(&mut byte).await, Ok(1)) {
                break;
            }
        }
    };
    within(served).await;
    eventually("one of them is ended", || is_ended(&busy) != is_ended(&also_busy)).await;
    drop((busy, also_busy));
    server.draining.cancel();
    within(server.serving).await.unwrap();
}

#[tokio::test]
async fn body_that_never_ends_is_refused() {
    let router = Router::new().route("/", axum::routing::post(async |_: Bytes| "read"));
    let limits = Limits { body_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start(router, limits, DEADLINE).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}

/// Answers a body once a permit of the second semaphore lets it, and tells of it by the first.
fn held_route() -> (Router, Arc<Semaphore>, Arc<Semaphore>) {
    let (entered, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (enter, go_on) = (Arc::clone(&entered), Arc::clone(&release));
    let handler = move |body: Bytes| async move {
        enter.add_permits(1);
        go_on.acquire().await.unwrap().forget();
        body.len().to_string()
    };
    (Router::new().route("/", axum::routing::post(handler)), entered, release)
}

fn small_budget() -> Limits {
    Limits { body_budget_bytes: 4_000, ..Limits::default() }
}

#[tokio::test]
async fn bodies_that_are_not_answered_are_bounded_together() {
    let (router, entered, release) = held_route();
    let server = start(router, small_budget(), DEADLINE).await;
    let post = |bytes: usize| {
        let request = reqwest::Client::new().post(format!("http://{}/", server.addr)).body("x".repeat(bytes));
        tokio::spawn(async move { within(request.send()).await.unwrap() })
    };
    let held = [(); 4].map(|()| post(900));
    within(entered.acquire_many(4)).await.unwrap().forget();
    let refused = within(post(900)).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (429, &b"1"[..]));
    let body: serde_json::Value = serde_json::from_slice(&refused.bytes().await.unwrap()).unwrap();
    assert_eq!((&body["error"]["reason"], &body["error"]["code"]), (&"RATE_LIMITED".into(), &429.into()));
    let fits = post(300);
    within(entered.acquire()).await.unwrap().forget();
    release.add_permits(6);
    for answer in held {
        assert_eq!(within(answer).await.unwrap().text().await.unwrap(), "900");
    }
    assert_eq!(within(fits).await.unwrap().text().await.unwrap(), "300");
    assert_eq!(within(post(900)).await.unwrap().status(), 200, "what was answered is not held");
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}

#[tokio::test]
async fn half_a_body_keeps_no_other_out() {
    let (router, entered, release) = held_route();
    let read = Arc::new(Semaphore::new(0));
    let reading = Arc::clone(&read);
    let half = move |body: axum::body::Body| {
        let reading = Arc::clone(&reading);
        async move {
            let mut frames = body.into_data_stream();
            while let Some(Ok(frame)) = frames.next().await {
                reading.add_permits(frame.len());
            }
        }
    };
    let router = router.route("/half", axum::routing::post(half));
    let server = start(router, small_budget(), DEADLINE).await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let head = "POST /half HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
        stream.write_all((head.to_owned() + &"x".repeat(900)).as_bytes()).await.unwrap();
        within(read.acquire_many(900)).await.unwrap().forget();
        stalled.push(stream);
    }
    let request = reqwest::Client::new().post(format!("http://{}/", server.addr)).body("x".repeat(900));
    let honest = tokio::spawn(async move { within(request.send()).await.unwrap().status() });
    within(entered.acquire()).await.unwrap().forget();
    release.add_permits(1);
    assert_eq!(within(honest).await.unwrap(), 200);
    let mut answer = [0; 12];
    within(stalled[0].read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, *b"HTTP/1.1 429");
    let mut others = stalled.iter().skip(1).map(|stream| stream.try_read(&mut [0]));
    assert!(others.all(|read| read.is_err()), "no more than must be is taken from others");
    drop(stalled);
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}

#[tokio::test]
async fn requests_under_way_are_bounded_and_health_is_not_one_of_them() {
    let (router, entered, release) = slow_route();
    let router = router.route("/", get(async || "quick")).route("/health/live", get(async || "alive"));
    let gate = Gate::new();
    let router = tonic::service::Routes::new(gate.service()).into_axum_router().merge(router);
    let server = start(router, Limits { max_requests: 1, ..Limits::default() }, DEADLINE).await;
    let client = reqwest::Client::new();
    let ask = |path: &str| client.get(format!("http://{}{path}", server.addr));
    let slow = tokio::spawn(ask("/slow").send());
    within(entered.acquire()).await.unwrap().forget();

    let refused = within(ask("/").send()).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    let body: serde_json::Value = serde_json::from_slice(&refused.bytes().await.unwrap()).unwrap();
    assert_eq!((&body["error"]["reason"], &body["error"]["code"]), (&"UNAVAILABLE".into(), &503.into()));
    let refused = within(ask("/").header("content-type", "application/grpc").send()).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["grpc-status"].as_bytes()), (200, &b"8"[..]));
    assert_eq!(within(ask("/health/live").send()).await.unwrap().status(), 200);
    let mut health = within(connect(server.addr)).await.unwrap();
    assert!(health.check(crate::rpc::ask("")).await.is_ok());

    release.add_permits(1);
    assert_eq!(within(slow).await.unwrap().unwrap().text().await.unwrap(), "done");
    within(async { while ask("/").send().await.unwrap().status() != 200 {} }).await;
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}

#[tokio::test]
async fn health_answers_while_no_byte_of_the_budget_is_left() {
    let (router, entered, release) = held_route();
    let gate = Gate::new();
    let router = tonic::service::Routes::new(gate.service()).into_axum_router().merge(router);
    let server = start(router, small_budget(), DEADLINE).await;
    let held = [(); 4].map(|()| {
        let request = reqwest::Client::new().post(format!("http://{}/", server.addr)).body("x".repeat(1_000));
        tokio::spawn(async move { within(request.send()).await.unwrap().status() })
    });
    within(entered.acquire_many(4)).await.unwrap().forget();
    let mut health = within(connect(server.addr)).await.unwrap();
    assert!(health.check(crate::rpc::ask("")).await.is_ok());
    release.add_permits(4);
    for answer in held {
        assert_eq!(within(answer).await.unwrap(), 200);
    }
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}

#[tokio::test]
async fn a_connection_goes_on_after_a_body_that_was_too_much() {
    let router = Router::new().route("/", axum::routing::post(async |_: Bytes| "read"));
    let server = start(router, small_budget(), DEADLINE).await;
    let stream = TokioIo::new(TcpStream::connect(server.addr).await.unwrap());
    let (mut client, connection) = within(http2::handshake(TokioExecutor::new(), stream)).await.unwrap();
    tokio::spawn(connection);
    let url = format!("http://{}/", server.addr);
    let post =
        |bytes: usize| http::Request::post(&url).body(Full::new(Bytes::from(vec![b'x'; bytes]))).unwrap();
    // Together far more than the connection's window.
    for _ in 0..20 {
        assert_eq!(within(client.send_request(post(10_000))).await.unwrap().status(), 429);
        assert_eq!(within(client.send_request(post(900))).await.unwrap().status(), 200);
    }
    drop(client);
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}

#[tokio::test]
async fn pages_of_others_are_refused_where_no_token_is_needed() {
    grey_runtime::tls::install_provider();
    let access = grey_runtime::access::Options::default();
    let server = Server::bind(any_port()).await.unwrap().with_access(&access);
    let (addr, draining) = (server.local_addr(), CancellationToken::new());
    let router = Router::new().route("/", get(async || "secret"));
    let serving = tokio::spawn(server.serve(router, None, draining.clone(), DEADLINE));
    let ask = async |host: &str, more: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    let two = format!("origin: http://{addr}\r\norigin: http://evil.example\r\n");
    for (host, more, answered) in [
        (addr.to_string(), "", true),
        (format!("localhost:{}", addr.port()), "", true),
        (addr.to_string(), "origin: http://evil.example\r\n", false),
        (addr.to_string(), two.as_str(), false),
        (format!("evil.example:{}", addr.port()), "", false),
    ] {
        let answer = ask(&host, more).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200"), answered, "{host} {more}: {answer}");
        assert_eq!(answer.contains("secret"), answered, "{host} {more}: {answer}");
    }
    let answer = ask("evil.example", "content-type: application/grpc\r\n").await;
    assert!(answer.contains("grpc-status: 7") && !answer.contains("secret"), "{answer}");
    draining.cancel();
    assert!(within(serving).await.unwrap());
}

#[tokio::test]
async fn client_that_takes_nothing_is_cut_off() {
    let large = Router::new().route("/", get(async || vec![0_u8; 64 << 20]));
    let limits = Limits { write_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = start(large, limits, DEADLINE).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // The drain waits for its request to end, which it does although nothing of the answer is read.
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
    drop(stream);
}
