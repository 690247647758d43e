//! Route on the real router against what else one could put in its place.

use super::throughput::{Compared, Contender, Shape, compare};
use crate::blast::{self, Traffic};
use crate::cores;
use crate::programs::{self, Program, Server, Service};
use crate::report::{Measurement, rounded, say};
use crate::servers;
use crate::world::{USUAL, World};
use anyhow::{Context as _, Result};
use grey_proto::router::{RouteBatchRequest, RouteRequest, RouteStreamRequest};
use grey_state::State;
use grey_testkit::Redis;
use prost::Message;
use serde_json::{Map, Value, json};

pub(crate) const ROUTE: &str = "/grey.router.v1.RouterService/Route";
pub(crate) const ROUTE_BATCH: &str = "/grey.router.v1.RouterService/RouteBatch";
pub(super) const ROUTE_STREAM: &str = "/grey.router.v1.RouterService/RouteStream";
/// Messages sent in turn.
pub(super) const MESSAGES: usize = 8_192;
/// Calls in one message of a batch or stream.
const BATCH: usize = 32;
/// Calls in flight on the one connection, however they are packed.
const ONE_CONNECTION: usize = 128;

/// A router of the product on real Redis, on the servers' core.
pub(super) struct Routed {
    router: Service,
    _redis: Redis,
}

impl Routed {
    pub(super) async fn start(world: &World) -> Result<Self> {
        let redis = Redis::start().await?;
        cores::pin_process(redis.id().context("find redis")?)?;
        let state = State::redis(&redis_options(&redis.url())).await?;
        world.publish(&state).await?;
        let settings = router_settings(&redis.url());
        let router = cores::on_server_core(|| Service::start(Program::Router, &settings))?;
        router.ready().await?;
        Ok(Self { router, _redis: redis })
    }

    pub(super) fn contender(&self, name: &'static str, traffic: Traffic, decisions: usize) -> Contender {
        let processes = vec![self.router.process.id()];
        Contender { name, addr: self.router.grpc, processes, traffic, decisions }
    }
}

/// A router's settings, as its environment.
pub(super) fn router_settings(redis: &str) -> Vec<(&'static str, String)> {
    vec![
        ("GREY__REDIS__URLS", format!("['{redis}']")),
        ("GREY__GRPC__THREADS", "1".to_owned()),
        ("GREY__TELEMETRY__LOG_FILTER", "warn".to_owned()),
    ]
}

/// Options for shared state in this Redis.
pub(super) fn redis_options(url: &str) -> grey_state::redis::Options {
    grey_state::redis::Options { urls: vec![url.to_owned()], ..grey_state::redis::Options::default() }
}

pub(super) async fn vs_echo() -> Result<Measurement> {
    programs::build(&[Program::Router])?;
    let routed = Routed::start(&USUAL).await?;
    let echo = programs::serve(&std::env::current_exe()?, &["serve", "echo"]).await?;
    let echo = contender("echo", &echo);
    let route = routed.contender("route", unary(&USUAL), 1);
    let shapes = [Shape(8, 8), Shape(10, 100)]
        .map(|shape| compare(&route, &echo, shape, false))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    Ok(lower("route_vs_echo", "a bare tonic echo on the same server", &shapes))
}

pub(super) async fn vs_default_echo() -> Result<Measurement> {
    programs::build(&[Program::Router, Program::Untuned])?;
    let routed = Routed::start(&USUAL).await?;
    let echo = programs::serve(&Program::Untuned.path()?, &["echo"]).await?;
    let echo = contender("default_echo", &echo);
    let route = routed.contender("route", unary(&USUAL), 1);
    let compared = compare(&route, &echo, Shape(8, 8), false)?;
    Ok(lower("route_vs_default_echo", "a tonic echo as one writes it first", &[compared]))
}

pub(super) async fn vs_lua() -> Result<Measurement> {
    programs::build(&[Program::Router, Program::Untuned])?;
    let routed = Routed::start(&USUAL).await?;
    let redis = Redis::start().await?;
    let redis_process = redis.id().context("find redis")?;
    cores::pin_process(redis_process)?;
    servers::fill_lua(&mut redis.connection().await?, &USUAL).await?;
    let lua = programs::serve(&Program::Untuned.path()?, &["lua", &redis.url()]).await?;
    let mut lua = contender("lua", &lua);
    lua.processes.push(redis_process);
    let route = routed.contender("route", unary(&USUAL), 1);
    let shapes = [Shape(8, 8), Shape(10, 100)]
        .map(|shape| compare(&route, &lua, shape, true))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let mut measurement = lower("route_vs_lua", "a tonic server that decides by a script in Redis", &shapes);
    let worst = shapes.iter().map(|shape| shape.p99_ratio).fold(f64::NAN, f64::max);
    measurement.more.insert("p99_ratio".to_owned(), rounded(worst));
    Ok(measurement)
}

pub(super) async fn stream_vs_unary() -> Result<Measurement> {
    programs::build(&[Program::Router])?;
    let routed = Routed::start(&USUAL).await?;
    let calls = USUAL.calls(MESSAGES * 2);
    let batches = calls.chunks(BATCH).map(|calls| RouteBatchRequest { calls: calls.to_vec() });
    let batch = traffic(ROUTE_BATCH, blast::Shape::Unary, batches);
    let packed = |calls: &[RouteRequest]| RouteStreamRequest { id: 1, calls: calls.to_vec() };
    let stream = traffic(ROUTE_STREAM, blast::Shape::Stream, calls.chunks(BATCH).map(packed));
    let single = traffic(ROUTE_STREAM, blast::Shape::Stream, calls.chunks(1).map(packed));

    let unary = routed.contender("unary", unary(&USUAL), 1);
    let mut shapes = Vec::new();
    for (name, traffic, decisions) in
        [("batch_of_32", batch, BATCH), ("stream_of_32", stream, BATCH), ("stream_of_1", single, 1)]
    {
        let packed = routed.contender(name, traffic, decisions);
        shapes.push(compare(&packed, &unary, Shape(1, ONE_CONNECTION), false)?);
    }
    let others = worst_others(&shapes);
    let best = shapes.iter().max_by(|a, b| a.ratio.total_cmp(&b.ratio)).context("compare something")?;
    let mut more = Map::new();
    more.insert("shapes".to_owned(), shapes.iter().map(|shape| shape.fields.clone()).collect());
    more.insert("others".to_owned(), json!(others));
    more.insert("decisions_in_flight".to_owned(), json!(ONE_CONNECTION));
    Ok(Measurement {
        name: "stream_vs_unary",
        value: best.value,
        unit: "decisions/s",
        ratio: best.ratio,
        against: "unary calls on one connection",
        more,
    })
}

fn contender(name: &'static str, server: &Server) -> Contender {
    let processes = vec![server.process.id()];
    Contender { name, addr: server.addr, processes, traffic: unary(&USUAL), decisions: 1 }
}

pub(super) fn unary(world: &World) -> Traffic {
    traffic(ROUTE, blast::Shape::Unary, world.calls(MESSAGES).into_iter())
}

/// Calls of a method with these messages.
pub(crate) fn traffic<M: Message>(
    path: &'static str,
    shape: blast::Shape,
    messages: impl Iterator<Item = M>,
) -> Traffic {
    Traffic { path, shape, messages: messages.map(|message| encoded(&message)).collect::<Vec<_>>().into() }
}

/// A message with its prefix: not compressed, its length.
fn encoded(message: &impl Message) -> Box<[u8]> {
    let length = u32::try_from(message.encoded_len()).expect("messages here are small");
    let mut bytes = vec![0];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.into()
}

fn worst_others(shapes: &[Compared]) -> f64 {
    shapes.iter().map(|shape| shape.others).fold(0.0, f64::max)
}

/// The measurement of the shape with the lower ratio.
fn lower(name: &'static str, against: &'static str, shapes: &[Compared]) -> Measurement {
    let lowest = shapes.iter().min_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let (ratio, value) = lowest.map_or((f64::NAN, f64::NAN), |shape| (shape.ratio, shape.value));
    let others = worst_others(shapes);
    let shapes: Value = shapes.iter().map(|shape| shape.fields.clone()).collect();
    say(&format!("{name}: {ratio:.3}"));
    Measurement {
        name,
        value,
        unit: "calls/s",
        ratio,
        against,
        more: Map::from_iter([("shapes".to_owned(), shapes), ("others".to_owned(), json!(others))]),
    }
}
