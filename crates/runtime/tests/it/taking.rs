//! Clients that ask, and take too little of the answers, at both servers.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use grey_runtime::server::{Options, PerCore, http::Limits};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    DEADLINE, any_port, eventually,
    http::start,
    rpc::{Gate, ask, connect},
    within,
};

/// What of an answer clients take before they stop.
const SOME: usize = 100_000;

/// Before whoever was turned away comes back.
const POLL: Duration = Duration::from_millis(5);

/// A client of HTTP/2, which answers pings whatever else it does.
struct Client {
    addr: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// `window` is what a server may send of an answer that is not read.
    async fn connect(addr: SocketAddr, window: u32) -> Self {
        let stream = TokioIo::new(TcpStream::connect(addr).await.unwrap());
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (sender, connection) = within(builder.handshake(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { addr, sender }
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        let request = Request::get(format!("http://{}{path}", self.addr)).body(Full::default()).unwrap();
        within(self.sender.send_request(request)).await.unwrap()
    }

    /// Calls a method of gRPC with an empty message.
    async fn call(&mut self, method: &str) -> Response<Incoming> {
        let request = Request::post(format!("http://{}{method}", self.addr))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::from(vec![0_u8; 5]))
            .unwrap();
        within(self.sender.send_request(request)).await.unwrap()
    }
}

/// Reads on until at least so much of the answer has come.
async fn read(answer: &mut Response<Incoming>, enough: usize) -> usize {
    let mut come = 0;
    while come < enough
        && let Some(frame) = within(answer.body_mut().frame()).await
    {
        come += frame.unwrap().into_data().unwrap().len();
    }
    come
}

/// Answers that never end, and how many there are.
#[derive(Clone, Default)]
struct Endless(Arc<AtomicUsize>);

struct Counted(Arc<AtomicUsize>);

impl Endless {
    fn body(&self) -> Body {
        self.0.fetch_add(1, Relaxed);
        let counted = Counted(Arc::clone(&self.0));
        Body::from_stream(futures::stream::unfold(counted, |counted| async move {
            Some((Ok::<_, Infallible>(Bytes::from_static(&[0; 16_384])), counted))
        }))
    }

    async fn all_end(&self) {
        eventually("they are ended", || self.0.load(Relaxed) == 0).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[tokio::test]
async fn clients_without_a_window_make_room_for_health() {
    let router = Router::new().route("/page", get(async || "page")).route("/health", get(async || "well"));
    let limits = Limits { max_connections: 4, write_timeout: DEADLINE * 10, ..Limits::default() };
    let server = start(router, limits, Duration::ZERO).await;
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(server.addr, 0).await;
        let answer = client.get("/page").await;
        assert_eq!(answer.status(), 200, "it was asked and answered");
        deaf.push((client, answer));
    }
    let url = format!("http://{}/health", server.addr);
    within(async {
        while reqwest::get(&url).await.is_err() {
            sleep(POLL).await;
        }
    })
    .await;
    drop(deaf);
    server.draining.cancel();
    within(server.serving).await.unwrap();
}

#[tokio::test]
async fn clients_without_a_window_make_room_for_calls() {
    let (gate, draining) = (Gate::new(), CancellationToken::new());
    let options = Options { max_connections: 4, write_timeout: DEADLINE * 10, ..Options::default() };
    let server = PerCore::bind(any_port(), 2).unwrap();
    let handle = server.serve(options, gate.on_threads(), draining.clone()).unwrap();
    let addr = handle.local_addr();
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(addr, 0).await;
        let answer = client.call("/grpc.health.v1.Health/Check").await;
        assert_eq!(answer.status(), 200, "it was asked and answered");
        deaf.push((client, answer));
    }
    let served = async || match connect(addr).await {
        Ok(mut client) => client.check(ask("")).await.is_ok(),
        Err(_) => false,
    };
    within(async {
        while !served().await {
            sleep(POLL).await;
        }
    })
    .await;
    drop(deaf);
    draining.cancel();
    within(handle.wait()).await;
}

#[tokio::test]
async fn clients_that_take_some_of_an_answer_and_stop_are_ended() {
    let endless = Endless::default();
    let answers = endless.clone();
    let router = Router::new().route("/", get(move || std::future::ready(answers.body())));
    let limits = Limits { write_timeout: Duration::from_secs(1), ..Limits::default() };
    let server = start(router, limits, DEADLINE).await;

    let mut over_http1 = TcpStream::connect(server.addr).await.unwrap();
    over_http1.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    within(over_http1.read_exact(&mut vec![0; SOME])).await.unwrap();
    endless.all_end().await;

    let mut over_http2 = Client::connect(server.addr, 65_535).await;
    let mut answer = over_http2.get("/").await;
    assert!(read(&mut answer, SOME).await >= SOME);
    endless.all_end().await;

    // Nobody had to be waited for.
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
    drop((over_http1, over_http2, answer));
}

#[tokio::test]
async fn callers_that_take_some_of_an_answer_and_stop_are_ended() {
    let (endless, draining) = (Endless::default(), CancellationToken::new());
    let answers = endless.clone();
    let make_thread = move |_| {
        let answers = answers.clone();
        move |_| {
            let answers = answers.clone();
            service_fn(move |_: Request<Incoming>| {
                let answer = Response::new(answers.body());
                async move { Ok::<_, Infallible>(answer) }
            })
        }
    };
    let options = Options { write_timeout: Duration::from_secs(1), ..Options::default() };
    let server = PerCore::bind(any_port(), 1).unwrap();
    let handle = server.serve(options, make_thread, draining.clone()).unwrap();
    let mut client = Client::connect(handle.local_addr(), 65_535).await;
    let mut answer = client.call("/endless").await;
    assert!(read(&mut answer, SOME).await >= SOME);
    // What it asks besides does not help it.
    let unread = client.call("/endless").await;
    endless.all_end().await;
    eventually("the connection is gone", || handle.connections() == 0).await;
    drop((client, answer, unread));
    draining.cancel();
    assert!(within(handle.wait()).await);
}

#[tokio::test]
async fn who_reads_slowly_and_steadily_is_sent_all_of_an_answer() {
    let (bytes, step) = (2 << 20, 32 << 10);
    let router = Router::new().route("/", get(move || std::future::ready(vec![0_u8; bytes])));
    let limits = Limits { write_timeout: Duration::from_secs(2), ..Limits::default() };
    let server = start(router, limits, DEADLINE).await;
    let mut client = Client::connect(server.addr, 65_535).await;
    let mut answer = client.get("/").await;
    let mut come = 0;
    while come < bytes {
        let read = read(&mut answer, step).await;
        assert!(read > 0, "it ended after {come}");
        come += read;
        // All in all longer than the time for writing, and far faster than what it asks for.
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(come, bytes);
    drop((client, answer));
    server.draining.cancel();
    assert!(within(server.serving).await.unwrap());
}
