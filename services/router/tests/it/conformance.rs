//! gRPC as it is on the wire: Route's fast answers are those of the generated server, and bodies cannot be left open.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use grey_proto::router::{RouteRequest, RouteStreamRequest};
use grey_runtime::access::{Token, TokenHash};
use http::{HeaderMap, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

use crate::world::{Router, World, call, hold, put_tenant, within};

type Sent = BoxBody<Bytes, std::convert::Infallible>;

/// What came back: headers, data and trailers.
type Answer = (Vec<(String, String)>, Vec<u8>, Vec<(String, String)>);

async fn connect(router: &Router) -> SendRequest<Sent> {
    let stream = TokioIo::new(within(TcpStream::connect(router.grpc)).await.unwrap());
    let (sender, connection) = within(handshake(TokioExecutor::new(), stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: &str, token: Option<&str>, body: Sent) -> Request<Sent> {
    let request = Request::post(format!("http://router/grey.router.v1.RouterService/{method}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    request.body(body).unwrap()
}

fn frames(
    bytes: &[u8],
) -> impl futures::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + use<> {
    futures::stream::iter([Ok(Frame::data(Bytes::copy_from_slice(bytes)))])
}

/// A body that ends.
fn whole(bytes: &[u8]) -> Sent {
    BodyExt::boxed(StreamBody::new(frames(bytes)))
}

/// One that begins and does not go on.
fn unfinished(bytes: &[u8]) -> Sent {
    BodyExt::boxed(StreamBody::new(frames(bytes).chain(futures::stream::pending())))
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let mut list: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    list.sort();
    list
}

async fn ask(connection: &mut SendRequest<Sent>, request: Request<Sent>) -> Answer {
    let (head, body) = within(connection.send_request(request)).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    let collected = within(body.collect()).await.unwrap();
    let trailers = collected.trailers().map(listed).unwrap_or_default();
    (listed(&head.headers), collected.to_bytes().to_vec(), trailers)
}

fn status(answer: &Answer) -> &str {
    let (headers, _, trailers) = answer;
    let mut all = headers.iter().chain(trailers);
    all.find(|(name, _)| name == "grpc-status").map(|(_, code)| code.as_str()).unwrap()
}

#[tokio::test]
async fn fast_answers_are_those_of_the_generated_server() {
    let mut world = World::memory().await.with_payment().await;
    world.publish(vec![put_tenant("held"), hold("held", "payment", "v2.0")]).await;
    // One instance of each version, so that no choice is left.
    world.run("payment", &[("a1", "v1.0"), ("a2", "v2.0")]).await;
    let router = world.start().await;
    router.follows(&world).await;
    let mut connection = connect(&router).await;
    let good = call("acme", "payment");
    let metadata = [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())].into();
    let calls = [
        good.clone(),
        call("beta", "payment"),
        call("held", "payment"),
        call("nobody", "payment"),
        call("acme", "nothing"),
        call("", ""),
        call("ACME!", "payment"),
        RouteRequest { metadata, user: "ann".into(), region: "eu".into(), ..good.clone() },
        RouteRequest { min_revision: 1, ..good.clone() },
        RouteRequest { user: "x".repeat(257), ..good },
    ];
    for call in calls {
        let message = call.encode_to_vec();
        let fast = ask(&mut connection, request("Route", None, whole(&framed(&message)))).await;
        // A field that nobody knows is not for the fast path.
        let unknown = [&message[..], b"\xf8\x07\x01"].concat();
        let told = ask(&mut connection, request("Route", None, whole(&framed(&unknown)))).await;
        assert_eq!(fast, told, "{call:?}");
    }
    router.stop().await;
}

async fn with_token() -> Router {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| {
        c.access.tokens =
            vec![Token { name: "one".into(), role: "gateway".into(), sha256: TokenHash::of("one") }];
        c.limits.body_deadline = Duration::from_millis(100);
    })
    .await;
    router.follows(&world).await;
    router
}

#[tokio::test]
async fn a_caller_without_a_token_is_refused_before_its_body() {
    let router = with_token().await;
    let mut connection = connect(&router).await;
    for method in ["Route", "RouteBatch", "RouteStream", "Explain", "Watch", "Identify", "Report"] {
        for token in [None, Some("two")] {
            let large = ask(&mut connection, request(method, token, whole(&framed(&vec![0; 2 << 20])))).await;
            assert_eq!(status(&large), "16", "{method} with a message beyond its limit");
            let open = ask(&mut connection, request(method, token, unfinished(b""))).await;
            assert_eq!(status(&open), "16", "{method} without a message");
        }
    }
    let good = framed(&call("acme", "payment").encode_to_vec());
    assert_eq!(status(&ask(&mut connection, request("Route", Some("one"), whole(&good))).await), "0");
    router.stop().await;
}

#[tokio::test]
async fn a_body_that_is_left_open_ends_by_its_deadline_and_a_stream_goes_on() {
    let router = with_token().await;
    let mut connection = connect(&router).await;
    let (sender, messages) = futures::channel::mpsc::unbounded();
    let stream = BodyExt::boxed(StreamBody::new(messages));
    let stream = within(connection.send_request(request("RouteStream", Some("one"), stream))).await.unwrap();
    let frame = framed(&call("acme", "payment").encode_to_vec());
    for begun in [&b""[..], &frame[..9], &frame] {
        let answer = ask(&mut connection, request("Route", Some("one"), unfinished(begun))).await;
        assert_eq!(status(&answer), "4", "after {} bytes", begun.len());
    }
    for method in ["RouteBatch", "Explain", "Watch", "Identify", "Report"] {
        let answer = ask(&mut connection, request(method, Some("one"), unfinished(b"\0"))).await;
        assert_eq!(status(&answer), "4", "{method}");
    }
    let message = RouteStreamRequest { id: 7, calls: vec![call("acme", "payment")] }.encode_to_vec();
    sender.unbounded_send(Ok(Frame::data(Bytes::from(framed(&message))))).unwrap();
    drop(sender);
    let answered = within(stream.into_body().collect()).await.unwrap();
    assert_eq!(listed(answered.trailers().unwrap()), [("grpc-status".to_owned(), "0".to_owned())]);
    assert!(!answered.to_bytes().is_empty(), "older than the deadline, and still served");
    router.stop().await;
}
