//! Single calls beside a stream that is never idle, on one core.

use super::route::{MESSAGES, ROUTE_STREAM, Routed, traffic, unary};
use super::throughput::{Shape, measure_p99, messages_per_second};
use crate::blast::{self, Beside};
use crate::programs::{self, Program};
use crate::report::{Measurement, rounded, say};
use crate::rounds::{Figures, quiet};
use crate::world::USUAL;
use anyhow::Result;
use grey_proto::router::RouteStreamRequest;
use serde_json::{Map, json};

const ROUNDS: usize = 5;
/// Calls in one message of the stream.
const BATCH: usize = 32;
/// Messages of the stream that are always under way.
const IN_FLIGHT: usize = 4;
/// Share of what the core can take that single calls ask for: the rest is the stream's.
const SHARE: f64 = 0.1;
/// Connections of single calls, and how many are under way on each when their capacity is looked at.
const SINGLE: Shape = Shape(8, 8);

/// p99 of single calls with the stream beside them ÷ without it, under the same arrivals.
pub(super) async fn tail() -> Result<Measurement> {
    programs::build(&[Program::Router])?;
    let routed = Routed::start(&USUAL).await?;
    let single = routed.contender("unary", unary(&USUAL), 1);
    let calls = USUAL.calls(MESSAGES);
    let messages = calls.chunks(BATCH).map(|calls| RouteStreamRequest { id: 1, calls: calls.to_vec() });
    let stream = traffic(ROUTE_STREAM, blast::Shape::Stream, messages);

    let per_second = messages_per_second(&single, SINGLE)? * SHARE;
    let (mut with, mut without, mut others) = (Vec::new(), Vec::new(), 0.0_f64);
    for _ in 0..ROUNDS {
        let ((alone, beside), meanwhile) = quiet(|| {
            let stream = Beside { traffic: stream.clone(), in_flight: IN_FLIGHT };
            let alone = measure_p99(&single, SINGLE, per_second, None)?;
            Ok((alone, measure_p99(&single, SINGLE, per_second, Some(stream))?))
        })?;
        without.push(alone);
        with.push(beside);
        others = others.max(meanwhile);
    }
    let ratios = Figures::ratios(&with, &without);
    let (with, without) = (Figures::new(with), Figures::new(without));
    say(&format!("  p99 {with} us beside a stream, {without} us alone: {ratios}"));
    let more = [
        ("alone_us", rounded(without.median())),
        ("per_second", json!(per_second.round())),
        ("others", json!(others)),
    ];
    Ok(Measurement {
        name: "mixed_tail",
        value: with.median(),
        unit: "us",
        ratio: ratios.median(),
        against: "the same calls without a busy stream on their core",
        more: Map::from_iter(more.map(|(key, value)| (key.to_owned(), value))),
    })
}
