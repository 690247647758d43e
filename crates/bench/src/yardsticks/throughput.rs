//! Calls per second of servers side by side.

use crate::blast::{self, Beside, Load, Run, Traffic};
use crate::report::{rounded, say};
use crate::rounds::{Figures, quiet};
use anyhow::Result;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// Rounds of a comparison.
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(700);
const MEASURED: Duration = Duration::from_secs(2);
/// Share of the slower server's capacity at which the latency of both is looked at: the same callers, served by
/// one or by the other.
const OPEN_SHARE: f64 = 0.6;

/// Connections, and decisions in flight on each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape(pub(super) usize, pub(super) usize);

/// A server under load.
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) addr: SocketAddr,
    /// Processes whose processor time counts as the server's.
    pub(super) processes: Vec<u32>,
    pub(super) traffic: Traffic,
    /// Decisions in one message.
    pub(super) decisions: usize,
}

/// What rounds of two servers came to.
pub(super) struct Compared {
    pub(super) ratio: f64,
    /// Decisions per second of the first.
    pub(super) value: f64,
    /// p99 of the first over p99 of the second, under the same arrivals.
    pub(super) p99_ratio: f64,
    /// Cores that others kept busy in the worst round.
    pub(super) others: f64,
    /// For the line.
    pub(super) fields: Value,
}

/// What one round of a server came to.
#[derive(Clone, Copy, Default)]
struct Sample {
    per_second: f64,
    busy: f64,
    p99_us: Option<f64>,
}

#[derive(Default)]
struct Tally {
    per_second: Vec<f64>,
    busy: Vec<f64>,
    p99_us: Vec<f64>,
}

/// Compares two servers on one shape of load, round by round in turn.
pub(super) fn compare(one: &Contender, other: &Contender, shape: Shape, latency: bool) -> Result<Compared> {
    let [mut a, mut b] = [Tally::default(), Tally::default()];
    let mut others: f64 = 0.0;
    for round in 0..ROUNDS {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let ([first, second], meanwhile) = quiet(|| measure_both([one, other], order, shape, latency))?;
        a.add(first);
        b.add(second);
        others = others.max(meanwhile);
    }
    let ratios = Figures::ratios(&a.per_second, &b.per_second);
    let p99s = Figures::ratios(&a.p99_us, &b.p99_us);
    let Shape(connections, in_flight) = shape;
    say(&format!("  {connections} x {in_flight}: {} / {} = {ratios}", one.name, other.name));
    // Where other work takes part of the core, this still compares what the servers do for a call.
    let microseconds = |tally: &Tally| {
        Figures::new(tally.busy.iter().zip(&tally.per_second).map(|(busy, rate)| busy * 1e6 / rate)).median()
    };
    for (contender, tally) in [(one, &a), (other, &b)] {
        let rate = Figures::new(tally.per_second.iter().copied());
        let busy = Figures::new(tally.busy.iter().copied());
        say(&format!(
            "    {}: {:.0} per second, {busy} of its core, {:.2} us each",
            contender.name,
            rate.median(),
            microseconds(tally)
        ));
        if latency {
            let p99 = Figures::new(tally.p99_us.iter().copied());
            say(&format!("      at {OPEN_SHARE} of the slower one's: p99 {p99} us"));
        }
    }
    let side = |tally: &Tally| {
        let mut fields = json!({
            "cpu_us_per_decision": rounded(microseconds(tally)),
            "per_second": Figures::new(tally.per_second.iter().copied()).median().round(),
            "server_cpu": rounded(Figures::new(tally.busy.iter().copied()).median()),
        });
        if latency {
            let p99 = Figures::new(tally.p99_us.iter().copied()).median();
            fields["p99_us"] = rounded(p99);
        }
        fields
    };
    let fields = json!({
        "connections": connections,
        "in_flight": in_flight,
        "ratio": rounded(ratios.median()),
        one.name: side(&a),
        other.name: side(&b),
    });
    let value = Figures::new(a.per_second.iter().copied()).median();
    Ok(Compared { ratio: ratios.median(), value, p99_ratio: p99s.median(), others, fields })
}

impl Tally {
    fn add(&mut self, sample: Sample) {
        self.per_second.push(sample.per_second);
        self.busy.push(sample.busy);
        self.p99_us.extend(sample.p99_us);
    }
}

/// One round of both servers.
fn measure_both(
    contenders: [&Contender; 2],
    order: [usize; 2],
    shape: Shape,
    latency: bool,
) -> Result<[Sample; 2]> {
    let mut samples = [Sample::default(); 2];
    let mut slower = f64::INFINITY;
    for at in order {
        let (messages, sample) = measure_capacity(contenders[at], shape)?;
        samples[at] = sample;
        slower = slower.min(messages);
    }
    for at in order.into_iter().filter(|_| latency) {
        samples[at].p99_us = Some(measure_p99(contenders[at], shape, slower * OPEN_SHARE, None)?);
    }
    Ok(samples)
}

/// Messages per second in a closed loop.
pub(super) fn messages_per_second(contender: &Contender, shape: Shape) -> Result<f64> {
    Ok(measure_capacity(contender, shape)?.0)
}

/// Messages per second in a closed loop, and what they are as a sample.
fn measure_capacity(contender: &Contender, shape: Shape) -> Result<(f64, Sample)> {
    let Shape(_, in_flight) = shape;
    let load = Load::Closed((in_flight / contender.decisions).max(1));
    let outcome = blast::run(&run(contender, shape, load, None), &contender.traffic, &contender.processes)?;
    #[expect(clippy::cast_precision_loss, reason = "a few decisions per message")]
    let decisions = contender.decisions as f64;
    let per_second = outcome.per_second * decisions;
    Ok((outcome.per_second, Sample { per_second, busy: outcome.busy.iter().sum(), p99_us: None }))
}

/// The p99 in microseconds in an open loop of so many messages per second, with other calls beside them or not.
pub(super) fn measure_p99(
    contender: &Contender,
    shape: Shape,
    per_second: f64,
    beside: Option<Beside>,
) -> Result<f64> {
    let run = run(contender, shape, Load::Open(per_second), beside);
    let outcome = blast::run(&run, &contender.traffic, &contender.processes)?;
    #[expect(clippy::cast_precision_loss, reason = "less than a day in nanoseconds")]
    Ok(outcome.latency.value_at_quantile(0.99) as f64 / 1_000.0)
}

fn run(contender: &Contender, shape: Shape, load: Load, beside: Option<Beside>) -> Run {
    let (addr, connections) = (contender.addr, shape.0);
    Run { addr, connections, load, beside, warm_up: WARM_UP, measured: MEASURED }
}
