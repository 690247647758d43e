//! Requests: what is sent, in which pieces, and how it ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use grey_proto::router::RouteRequest;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body, Frame};
use prost::Message;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tonic::{Code, Status};

/// One request of Route.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) frames: Vec<Vec<u8>>,
    /// Each frame is waited for.
    pub(super) pauses: bool,
    /// The last frame says that it is the last.
    pub(super) tells_end: bool,
    pub(super) end: End,
}

/// How the body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Clean,
    Trailers,
    Broken(Code),
    Never,
}

/// A message of gRPC.
pub(super) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], message].concat()
}

impl Case {
    pub(super) fn of(body: &[u8]) -> Self {
        Self {
            headers: Vec::new(),
            frames: vec![body.to_vec()],
            pauses: false,
            tells_end: false,
            end: End::Clean,
        }
    }

    pub(super) fn random(random: &mut StdRng) -> Self {
        let message = message(random);
        let bytes = framing(random, &message);
        let end = match random.random_range(0..40) {
            0..3 => End::Trailers,
            3 => End::Broken(Code::Internal),
            4 => End::Broken(Code::Cancelled),
            5 => End::Broken(Code::Unavailable),
            _ => End::Clean,
        };
        Self {
            headers: headers(random),
            frames: pieces(random, &bytes),
            pauses: random.random_bool(0.2),
            tells_end: random.random_bool(0.5),
            end,
        }
    }

    /// The body, and whether anything of it was read.
    pub(super) fn body(&self) -> (Played, Arc<AtomicBool>) {
        let mut frames: VecDeque<_> =
            self.frames.iter().map(|frame| Ok(Frame::data(Bytes::from(frame.clone())))).collect();
        match self.end {
            End::Clean | End::Never => {}
            End::Trailers => {
                let trailers = HeaderMap::from_iter([(
                    http::header::AUTHORIZATION,
                    HeaderValue::from_static("Bearer nobody"),
                )]);
                frames.push_back(Ok(Frame::trailers(trailers)));
            }
            End::Broken(code) => frames.push_back(Err(Status::new(code, "broken"))),
        }
        let read = Arc::new(AtomicBool::new(false));
        let body = Played {
            frames,
            pauses: self.pauses,
            paused: false,
            tells_end: self.tells_end,
            never: self.end == End::Never,
            read: Arc::clone(&read),
        };
        (body, read)
    }
}

/// A body that arrives as its case says.
pub(super) struct Played {
    frames: VecDeque<Result<Frame<Bytes>, Status>>,
    pauses: bool,
    paused: bool,
    tells_end: bool,
    never: bool,
    read: Arc<AtomicBool>,
}

impl Body for Played {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.read.store(true, Relaxed);
        if self.pauses && !self.paused {
            self.paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.paused = false;
        match self.frames.pop_front() {
            None if self.never => Poll::Pending,
            next => Poll::Ready(next),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tells_end && !self.never && self.frames.is_empty()
    }
}

fn pick<T: Copy>(random: &mut StdRng, of: &[T]) -> T {
    *of.choose(random).unwrap()
}

fn call(random: &mut StdRng) -> RouteRequest {
    let served = random.random_bool(0.8);
    let tenants = ["acme", "beta", "old", "far", "gamma", "held", "nobody", "", "NO!", "a\0"];
    let services = ["payment", "open", "empty", "turns", "nothing", "", "../x"];
    let (tenants, services) =
        if served { (&tenants[..4], &services[..2]) } else { (&tenants[..], &services[..]) };
    let entries = pick(random, &[0, 0, 0, 0, 1, 1, 2, 3, 5, 16, 17, 70]);
    let mut metadata = std::collections::BTreeMap::new();
    for at in 0..entries {
        let key = if at == 0 { "channel".to_owned() } else { format!("k{}", random.random_range(0..99)) };
        metadata.insert(key, pick(random, &["", "web", "app", "v"]).to_owned());
    }
    // A revision that is not there yet takes a timer's tick, so it is rare.
    let ahead = random.random_ratio(1, 400);
    RouteRequest {
        tenant: pick(random, tenants).to_owned(),
        service: pick(random, services).to_owned(),
        metadata,
        user: pick(random, &["", "ann", "bob", "eve"]).to_owned(),
        request_key: pick(random, &["", "", "7"]).to_owned(),
        region: pick(random, &["", "", "eu", "us"]).to_owned(),
        zone: pick(random, &["", "", "a", "b"]).to_owned(),
        min_revision: if ahead { 99 } else { pick(random, &[0, 0, 1]) },
        override_version: pick(random, &["", "", "", "", "", "", "v2", "2.0.0", "v9", "x"]).to_owned(),
        min_epoch: pick(random, &[0, 0, 1]),
    }
}

/// A call, encoded as it should be or not quite.
fn message(random: &mut StdRng) -> Vec<u8> {
    let mut message = call(random).encode_to_vec();
    match random.random_range(0..12) {
        0 => {
            for _ in 0..random.random_range(1..4) {
                let length = message.len();
                if let Some(byte) = message.get_mut(random.random_range(0..length.max(1))) {
                    *byte = random.random();
                }
            }
        }
        1 => message.truncate(random.random_range(0..=message.len())),
        2 => message = [message, call(random).encode_to_vec()].concat(),
        3 => message.extend((0..random.random_range(1..12)).map(|_| random.random::<u8>())),
        4 => message.extend(pick(
            random,
            &[
                &b"\xf8\x07\x01"[..],
                b"\x8a\x00\x01a",
                b"\x0a\x81\x00a",
                b"\x0b\x0c",
                b"\x5b\x5c",
                b"\x1a\x06\x0a\x01k\x12\x01v",
                b"\x1a\x08\x0a\x01k\x12\x01v\x18\x01",
                b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            ],
        )),
        _ => {}
    }
    message
}

/// The message with its prefix, right or not.
fn framing(random: &mut StdRng, message: &[u8]) -> Vec<u8> {
    let mut frame = framed(0, message);
    match random.random_range(0..24) {
        0 => frame[0] = random.random(),
        1 => frame[4] = random.random(),
        2 => frame = [frame.clone(), framed(0, message)].concat(),
        3 => frame.truncate(random.random_range(0..=frame.len())),
        4 => frame.push(random.random()),
        5 => frame = framed(0, &[message, &[0x2a, 0x80, 0x20][..], &[b'x'; 4096]].concat()),
        6 => frame = (0..random.random_range(0..9)).map(|_| random.random()).collect(),
        _ => {}
    }
    frame
}

fn pieces(random: &mut StdRng, bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    for _ in 0..pick(random, &[0, 0, 0, 1, 2, 5]) {
        let (piece, after) = rest.split_at(random.random_range(0..=rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces.push(rest.to_vec());
    pieces
}

fn headers(random: &mut StdRng) -> Vec<(&'static str, &'static str)> {
    let known = [
        ("grpc-encoding", "identity"),
        ("grpc-encoding", "gzip"),
        ("grpc-encoding", ""),
        ("grpc-accept-encoding", "gzip,identity"),
        ("content-type", "application/grpc"),
        ("content-type", "text/plain"),
        ("te", "trailers"),
        ("grpc-timeout", "1S"),
    ];
    if random.random_bool(0.7) { Vec::new() } else { vec![pick(random, &known), pick(random, &known)] }
}
