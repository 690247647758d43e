//! What the fast path answers is what the generated server answers, byte for byte.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod case;
pub(super) mod pair;
mod table;

use std::pin::pin;
use std::time::Duration;

use grey_proto::router::{RouteBatchRequest, RouteRequest};
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tonic::Code;

use case::{Case, End, framed};
use pair::{BUDGET, Pair, request_as};

fn call(tenant: &str, service: &str) -> RouteRequest {
    RouteRequest { tenant: tenant.into(), service: service.into(), ..RouteRequest::default() }
}

fn asked(request: &RouteRequest) -> Case {
    Case::of(&framed(0, &request.encode_to_vec()))
}

/// Calls that the fast path answers, decisions and refusals alike.
fn plain() -> Vec<RouteRequest> {
    let entries = |count: usize| (0..count).map(|i| (format!("k{i}"), "v".to_owned())).collect();
    let good = call("acme", "payment");
    let tagged = [("channel".to_owned(), "web".to_owned())].into();
    vec![
        good.clone(),
        call("beta", "payment"),
        call("gamma", "payment"),
        call("held", "payment"),
        call("old", "payment"),
        call("ancient", "payment"),
        call("nobody", "payment"),
        call("nobody", "open"),
        call("NOBODY", "open"),
        call("acme", "empty"),
        call("acme", "nothing"),
        call("", "payment"),
        call("acme", ""),
        call("ACME!", "payment"),
        call("acme", "../payment"),
        call(&"x".repeat(64), "payment"),
        RouteRequest { user: "ann".into(), metadata: tagged, ..good.clone() },
        RouteRequest { metadata: entries(3), ..good.clone() },
        RouteRequest { metadata: entries(9), ..good.clone() },
        RouteRequest { override_version: "v2".into(), ..good.clone() },
        RouteRequest { override_version: "v9".into(), ..good.clone() },
        RouteRequest { override_version: "nonsense".into(), ..good.clone() },
        RouteRequest { region: "eu".into(), zone: "b".into(), ..good.clone() },
        RouteRequest { zone: "b".into(), ..good.clone() },
        RouteRequest { min_revision: 1, ..good.clone() },
        RouteRequest { min_epoch: 1, ..good.clone() },
        RouteRequest { user: "x".repeat(257), ..good },
    ]
}

#[tokio::test]
async fn plain_calls_are_answered_fast_and_alike() {
    let mut pair = Pair::new();
    for request in plain() {
        let (fast, told) = pair.answers(&asked(&request)).await;
        assert_eq!(fast, told, "{request:?}");
        assert!(fast.was_fast || fast.trailers.is_none(), "{request:?}");
    }
    pair.check_counts();
}

#[tokio::test]
async fn calls_that_are_not_plain_are_answered_by_the_generated_server() {
    let mut pair = Pair::new();
    let good = call("acme", "payment").encode_to_vec();
    let frame = framed(0, &good);
    let both = [frame.clone(), frame.clone()].concat();
    let with =
        |name: &'static str, value: &'static str| Case { headers: vec![(name, value)], ..Case::of(&frame) };
    let waiting = RouteRequest { min_revision: 99, ..call("acme", "payment") };
    let many = (0..40).map(|i| (format!("k{i}"), "v".to_owned())).collect();
    let cases = vec![
        (None, with("grpc-encoding", "gzip")),
        (None, with("grpc-encoding", "")),
        (None, Case::of(&framed(1, &good))),
        (None, Case::of(&framed(2, &good))),
        (None, Case::of(b"")),
        (None, Case { frames: Vec::new(), ..Case::of(b"") }),
        (None, Case::of(&frame[..3])),
        (None, Case::of(&frame[..frame.len() - 1])),
        (Some(()), Case::of(&both)),
        (None, Case::of(&[frame.clone(), vec![0]].concat())),
        (None, Case::of(&[frame.clone(), framed(0, b"\xff")].concat())),
        (None, asked(&RouteRequest { user: "x".repeat(5_000), ..call("acme", "payment") })),
        (None, Case::of(&[0, 0xff, 0xff, 0xff, 0xff])),
        (None, Case::of(&framed(0, b"\xff\xff\xff\xff"))),
        (None, Case::of(&framed(0, b"\x0a\x01\xff"))),
        (Some(()), Case::of(&framed(0, &[good.clone(), b"\xf8\x07\x01".to_vec()].concat()))),
        (Some(()), asked(&RouteRequest { metadata: many, ..call("acme", "payment") })),
        (Some(()), asked(&call("acme", "turns"))),
        (None, asked(&waiting)),
        (None, Case { end: End::Broken(Code::Internal), ..Case::of(&frame) }),
        (None, Case { end: End::Broken(Code::Unavailable), ..Case::of(&frame[..7]) }),
        (Some(()), Case { end: End::Broken(Code::Cancelled), ..Case::of(&frame) }),
        (None, Case { end: End::Broken(Code::Cancelled), ..Case::of(&frame[..7]) }),
    ];
    for (decision, case) in cases {
        let (fast, told) = pair.answers(&case).await;
        assert_eq!(fast, told, "{case:?}");
        assert_eq!((fast.was_fast, fast.trailers.is_some()), (false, decision.is_some()), "{case:?}");
    }
    pair.check_counts();
}

#[tokio::test]
async fn it_does_not_matter_how_a_plain_call_arrives() {
    let mut pair = Pair::new();
    let frame = framed(0, &call("beta", "payment").encode_to_vec());
    let whole = Case::of(&frame);
    let expected = pair.answers(&whole).await.1;
    let one_by_one = frame.iter().map(|byte| vec![*byte]).collect();
    let cases = [
        Case { frames: one_by_one, ..whole.clone() },
        Case {
            frames: vec![Vec::new(), frame[..2].to_vec(), Vec::new(), frame[2..].to_vec()],
            ..whole.clone()
        },
        Case { pauses: true, ..whole.clone() },
        Case { tells_end: true, ..whole.clone() },
        Case { end: End::Trailers, ..whole.clone() },
        Case { headers: vec![("grpc-encoding", "identity")], ..whole.clone() },
        Case { headers: vec![("content-type", "text/plain")], ..whole.clone() },
        Case { headers: vec![("grpc-accept-encoding", "gzip"), ("te", "trailers")], ..whole.clone() },
        Case { headers: vec![("grpc-timeout", "1n")], ..whole },
    ];
    for case in cases {
        let (fast, told) = pair.answers(&case).await;
        assert_eq!((&fast, &told), (&expected, &expected), "{case:?}");
        assert!(fast.was_fast, "{case:?}");
    }
    pair.check_counts();
}

/// Bytes of the answer, and two maps of headers (of two allocations each), which HTTP/2 takes as its own.
const ALLOCATIONS: u64 = 5;

#[tokio::test]
async fn a_plain_call_allocates_its_answer_and_nothing_else() {
    let pair = Pair::new();
    let metadata = (0..3).map(|i| (format!("k{i}"), "v".to_owned())).collect();
    let case = asked(&RouteRequest { metadata, user: "ann".into(), ..call("acme", "payment") });
    // The connection gets to know its caller.
    pair.ask_as("Route", Some("Bearer tester"), &case).await;
    let (request, _) = request_as("Route", Some("Bearer tester"), &case);
    let mut frames = 0;
    let counted = allocation_counter::measure(|| frames = pair.frames_at_once(request));
    assert_eq!((frames, counted.count_total), (2, ALLOCATIONS));
}

#[tokio::test]
async fn nothing_is_read_of_a_call_without_credentials() {
    let case = asked(&call("acme", "payment"));
    for method in ["Route", "RouteBatch", "RouteStream", "Explain", "Watch", "Identify", "Report", "Nothing"]
    {
        let pair = Pair::new();
        for authorization in [None, Some("Bearer wrong"), Some("Basic tester")] {
            let (told, read) = pair.ask_as(method, authorization, &case).await;
            assert_eq!((told.code(), read), (Some(Code::Unauthenticated), false), "{method}");
        }
    }
    let (told, read) = Pair::new().ask_as("Route", Some("Bearer tester"), &case).await;
    assert_eq!((told.code(), read), (Some(Code::Ok), true));
}

#[tokio::test]
async fn a_message_that_does_not_arrive_in_time_is_not_waited_for() {
    let pair = Pair::with(|limits| limits.body_deadline = Duration::from_millis(20));
    // Every method's request may be empty.
    let frame = framed(0, b"");
    for method in ["Route", "RouteBatch", "Explain", "Watch", "Identify", "Report"] {
        for begun in [&frame[..0], &frame[..3], &frame] {
            let case = Case { end: End::Never, ..Case::of(begun) };
            let (told, _) = pair.ask_as(method, Some("Bearer tester"), &case).await;
            assert_eq!(told.code(), Some(Code::DeadlineExceeded), "{method} after {} bytes", begun.len());
        }
    }
}

#[tokio::test]
async fn a_message_that_is_too_much_now_is_refused_before_it_is_whole() {
    let pair = Pair::new();
    // More than the quarter that a connection may hold, of a message that may be as large.
    let frame = framed(0, &vec![b'x'; BUDGET / 2]);
    let begun = Case { end: End::Never, ..Case::of(&frame[..BUDGET / 3]) };
    for method in ["RouteBatch", "RouteStream", "Report"] {
        let (told, _) = pair.ask_as(method, Some("Bearer tester"), &begun).await;
        assert_eq!(told.code(), Some(Code::ResourceExhausted), "{method}");
    }
    let pair = Pair::with(|limits| limits.call_bytes = BUDGET);
    let (told, _) = pair.ask_as("Route", Some("Bearer tester"), &begun).await;
    assert_eq!(told.code(), Some(Code::ResourceExhausted));
    let (told, _) = pair.ask_as("Route", Some("Bearer tester"), &asked(&call("acme", "payment"))).await;
    assert_eq!(told.code(), Some(Code::Ok), "nothing of what was refused is held");
}

#[tokio::test]
async fn half_a_message_keeps_no_other_out() {
    let pair = Pair::with(|limits| limits.call_bytes = BUDGET);
    let half = framed(0, &vec![b'x'; BUDGET / 2]);
    let half = Case { end: End::Never, ..Case::of(&half[..BUDGET / 5]) };
    let calls = vec![RouteRequest { user: "x".repeat(BUDGET / 8), ..call("acme", "payment") }];
    let whole = Case::of(&framed(0, &RouteBatchRequest { calls }.encode_to_vec()));
    for method in ["Route", "RouteBatch", "RouteStream", "Report"] {
        let mut stalled = pin!(pair.ask_as(method, Some("Bearer tester"), &half));
        assert!(futures::poll!(stalled.as_mut()).is_pending());
        let (told, _) = pair.ask_as("RouteBatch", Some("Bearer tester"), &whole).await;
        assert_eq!(told.code(), Some(Code::Ok), "{method}");
        let (told, _) = stalled.await;
        assert_eq!(told.code(), Some(Code::ResourceExhausted), "{method}");
    }
}

/// Requests that nobody thought of. `GREY_FUZZ` says how many, `GREY_FUZZ_SEED` which.
#[tokio::test]
async fn random_requests_are_answered_alike() {
    let read = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = read("GREY_FUZZ").unwrap_or(20_000);
    let seed = read("GREY_FUZZ_SEED").unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let mut pair = Pair::new();
    let (mut fast, mut decided) = (0, 0);
    for round in 0..rounds {
        let case = Case::random(&mut random);
        let (one, other) = pair.answers(&case).await;
        assert_eq!(one, other, "round {round} of GREY_FUZZ_SEED={seed}: {case:?}");
        fast += u64::from(one.was_fast);
        decided += u64::from(one.trailers.is_some());
    }
    pair.check_counts();
    assert!(fast > rounds / 10, "GREY_FUZZ_SEED={seed}: only {fast} of {rounds} were answered fast");
    assert!(fast < decided, "GREY_FUZZ_SEED={seed}: no decision was left to the generated server");
}
