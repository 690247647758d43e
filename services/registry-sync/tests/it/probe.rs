//! Real sockets, probed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use grey_registry_sync::probe::{Mode, Options, Prober, Verdict};
use grey_runtime::{Faults, Validate as _};
use grey_testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Far above what even a busy machine needs for an answer.
const PATIENT: Duration = Duration::from_secs(30);
/// Where no answer comes.
const IMPATIENT: Duration = Duration::from_millis(200);

fn options(mode: Mode, timeout: Duration) -> Options {
    Options { mode, timeout, version_header: Some("x-version".to_owned()), ..Options::default() }
}

fn tcp(timeout: Duration) -> Prober {
    Prober::new(&options(Mode::Tcp, timeout))
}

fn http(timeout: Duration) -> Prober {
    Prober::new(&options(Mode::Http, timeout))
}

fn alive(version: Option<&str>) -> Verdict {
    Verdict::Alive { version: version.map(str::to_owned) }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A port on which nothing listens, and that nobody else can take meanwhile.
fn closed() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap()
}

/// Gives every request the same answer.
async fn answering(answer: &str) -> String {
    let (listener, address) = listen().await;
    let answer = answer.replace('\n', "\r\n");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            // The prober may leave before it has read everything.
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    address
}

#[tokio::test]
async fn who_accepts_a_connection_is_alive() {
    let (_listener, address) = listen().await;
    assert_eq!(tcp(PATIENT).probe(&address).await, alive(None));
    let port = address.rsplit_once(':').unwrap().1;
    assert_eq!(tcp(PATIENT).probe(&format!("localhost:{port}")).await, alive(None));
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let (_socket, address) = closed();
    assert_eq!(tcp(PATIENT).probe(&address).await, Verdict::Refused);
    assert_eq!(http(PATIENT).probe(&address).await, Verdict::Refused);
}

#[tokio::test]
async fn silence_is_no_verdict() {
    // No connection leads to a broadcast address.
    assert_eq!(tcp(PATIENT).probe("255.255.255.255:80").await, Verdict::Unknown);
    assert_eq!(tcp(PATIENT).probe("no-such-host.invalid:80").await, Verdict::Unknown);
    assert_eq!(tcp(PATIENT).probe("no port").await, Verdict::Unknown);

    // It accepts, but says nothing.
    let (_listener, address) = listen().await;
    assert_eq!(http(IMPATIENT).probe(&address).await, Verdict::Unknown);
    assert_eq!(tcp(PATIENT).probe(&address).await, alive(None));
}

#[tokio::test]
async fn a_full_backlog_is_no_verdict() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = timeout(IMPATIENT, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 64, "the backlog has an end");
    }
    assert_eq!(tcp(IMPATIENT).probe(&address.to_string()).await, Verdict::Unknown);
}

#[tokio::test]
async fn a_good_answer_tells_the_version() {
    let good = answering("HTTP/1.1 200 OK\nX-Version:  v2.1 \nContent-Length: 2\n\nok").await;
    assert_eq!(http(PATIENT).probe(&good).await, alive(Some("v2.1")));
    let nameless = Options { version_header: None, ..options(Mode::Http, PATIENT) };
    assert_eq!(Prober::new(&nameless).probe(&good).await, alive(None));
    let silent = answering("HTTP/1.1 204 No Content\n\n").await;
    assert_eq!(http(PATIENT).probe(&silent).await, alive(None));
    let endless = answering(&format!("HTTP/1.1 200 OK\nX-Version: {}\n\n", "9".repeat(65))).await;
    assert_eq!(http(PATIENT).probe(&endless).await, alive(None));
}

#[tokio::test]
async fn errors_are_no_verdict() {
    for answer in [
        "HTTP/1.1 404 Not Found\nX-Version: v2.1\nContent-Length: 0\n\n",
        "HTTP/1.1 503 Service Unavailable\nContent-Length: 0\n\n",
        "SSH-2.0-OpenSSH_9.2\n",
        "HTTP/1.1 200 OK\n",
        "",
    ] {
        let address = answering(answer).await;
        assert_eq!(http(PATIENT).probe(&address).await, Verdict::Unknown, "{answer}");
    }
    let long = answering(&format!("HTTP/1.1 200 OK\nX-Long: {}\n\n", "x".repeat(1024 * 1024))).await;
    assert_eq!(http(PATIENT).probe(&long).await, Verdict::Unknown);
}

#[tokio::test]
async fn redirects_are_answers_and_are_not_followed() {
    let (elsewhere, target) = listen().await;
    let address =
        answering(&format!("HTTP/1.1 302 Found\nLocation: http://{target}/\nContent-Length: 0\n\n")).await;
    assert_eq!(http(PATIENT).probe(&address).await, alive(None));
    assert!(timeout(IMPATIENT, elsewhere.accept()).await.is_err());
}

#[tokio::test]
async fn an_endless_body_is_not_read() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut sent = 0;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {
            sent += 4096;
        }
        (request, sent)
    });
    assert_eq!(http(PATIENT).probe(&address).await, alive(None));
    let (request, sent) =
        timeout(PATIENT, server).await.expect("the connection ends with the probe").unwrap();
    // What the sockets' buffers hold may have been sent, but no more.
    assert!(sent < 64 * 1024 * 1024, "{sent} bytes");
    let (first, rest) = request.split_once("\r\n").unwrap();
    assert_eq!(first, "GET /health HTTP/1.1");
    assert!(rest.to_ascii_lowercase().contains(&format!("host: {address}\r\n")), "{rest}");
}

#[tokio::test]
async fn only_so_many_are_probed_at_once() {
    let (listener, address) = listen().await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let answers = Arc::new(Semaphore::new(0));
    let (counted, highest, allowed) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&answers));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (counted, highest) = (Arc::clone(&counted), Arc::clone(&highest));
            let allowed = Arc::clone(&allowed);
            tokio::spawn(async move {
                highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                read_request(&mut stream).await;
                drop(allowed.acquire().await);
                counted.fetch_sub(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            });
        }
    });
    let prober = Prober::new(&Options { concurrency: 2, ..options(Mode::Http, PATIENT) });
    let probers: Vec<Prober> = vec![prober; 10];
    let (verdicts, ()) = tokio::join!(join_all(probers.iter().map(|prober| prober.probe(&address))), async {
        let reached = async |count: usize| {
            eventually(PATIENT, "so many are probed", async || now.load(Ordering::SeqCst) >= count).await;
        };
        // Both that are allowed are there, and as long as they have no answer no third one comes.
        reached(2).await;
        assert!(timeout(IMPATIENT, reached(3)).await.is_err());
        answers.add_permits(1);
    });
    assert!(verdicts.iter().all(|verdict| *verdict == alive(None)), "{verdicts:?}");
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn nothing_is_probed_if_so_configured() {
    let (listener, address) = listen().await;
    let prober = Prober::new(&options(Mode::None, PATIENT));
    assert_eq!(prober.probe(&address).await, Verdict::Unknown);
    assert!(timeout(IMPATIENT, listener.accept()).await.is_err());
    let (_socket, address) = closed();
    assert_eq!(prober.probe(&address).await, Verdict::Unknown);
}

#[test]
fn options_have_defaults_and_are_checked() {
    let read = |text: &str| serde_json::from_str::<Options>(text);
    let options = read("{}").unwrap();
    assert_eq!(serde_json::to_value(&options).unwrap(), serde_json::to_value(Options::default()).unwrap());
    assert_eq!((options.mode, options.timeout, options.concurrency), (Mode::Tcp, Duration::from_secs(1), 64));
    assert_eq!((options.path.as_str(), options.interval), ("/health", Duration::from_secs(2)));
    assert_eq!(read(r#"{"mode": "none"}"#).unwrap().mode, Mode::None);
    assert!(read(r#"{"mode": "icmp"}"#).is_err());
    assert!(read(r#"{"retries": 3}"#).is_err());

    let wrong =
        r#"{"path": "health", "timeout": "0s", "interval": "0s", "concurrency": 0, "version_header": "a b"}"#;
    let mut faults = Faults::default();
    options.validate(&mut faults);
    assert!(faults.found().is_empty());
    read(wrong).unwrap().validate(&mut faults);
    let faults: Vec<String> = faults.found().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(faults.join("\n"), @r#"
        path: must be a path such as /health
        timeout: must be longer than nothing
        interval: must be longer than nothing
        concurrency: must be between 1 and 1024
        version_header: must be the name of a header
        version_header: needs mode = "http"
        "#);
}
