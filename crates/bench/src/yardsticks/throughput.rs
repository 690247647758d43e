//! Calls per second of servers side by side.

use crate::blast::{self, Load, Run, Traffic};
use crate::report::{rounded, say};
use crate::rounds::Figures;
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
    /// For the line.
    pub(super) fields: Value,
}

#[derive(Default)]
struct Tally {
    per_second: Vec<f64>,
    busy: Vec<f64>,
    p99_us: Vec<f64>,
}

/// Compares two servers on one shape of load, round by round in turn.
pub(super) fn compare(one: &Contender, other: &Contender, shape: Shape, latency: bool) -> Result<Compared> {
    let mut tallies = [Tally::default(), Tally::default()];
    for round in 0..ROUNDS {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let contender = |at: usize| if at == 0 { one } else { other };
        let mut slower = f64::INFINITY;
        for at in order {
            slower = slower.min(measure_capacity(contender(at), shape, &mut tallies[at])?);
        }
        for at in order.into_iter().filter(|_| latency) {
            measure_latency(contender(at), shape, slower * OPEN_SHARE, &mut tallies[at])?;
        }
    }
    let [a, b] = tallies;
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
    Ok(Compared { ratio: ratios.median(), value, p99_ratio: p99s.median(), fields })
}

/// Messages per second in a closed loop.
fn measure_capacity(contender: &Contender, shape: Shape, tally: &mut Tally) -> Result<f64> {
    let Shape(_, in_flight) = shape;
    let load = Load::Closed((in_flight / contender.decisions).max(1));
    let outcome = blast::run(&run(contender, shape, load), &contender.traffic, &contender.processes)?;
    #[expect(clippy::cast_precision_loss, reason = "a few decisions per message")]
    let decisions = contender.decisions as f64;
    tally.per_second.push(outcome.per_second * decisions);
    tally.busy.push(outcome.busy.iter().sum());
    Ok(outcome.per_second)
}

/// Latency in an open loop of so many messages per second.
fn measure_latency(contender: &Contender, shape: Shape, per_second: f64, tally: &mut Tally) -> Result<()> {
    let run = run(contender, shape, Load::Open(per_second));
    let outcome = blast::run(&run, &contender.traffic, &contender.processes)?;
    #[expect(clippy::cast_precision_loss, reason = "less than a day in nanoseconds")]
    tally.p99_us.push(outcome.latency.value_at_quantile(0.99) as f64 / 1_000.0);
    Ok(())
}

fn run(contender: &Contender, shape: Shape, load: Load) -> Run {
    Run { addr: contender.addr, connections: shape.0, load, warm_up: WARM_UP, measured: MEASURED }
}
