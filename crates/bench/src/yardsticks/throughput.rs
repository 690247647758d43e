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
/// Share of its capacity at which a server's latency is looked at.
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
    /// p99 of the first over p99 of the second, each at the same share of its own capacity.
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
        for at in order {
            let contender = if at == 0 { one } else { other };
            measure(contender, shape, latency, &mut tallies[at])?;
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
            say(&format!("      at {OPEN_SHARE} of that: p99 {p99} us"));
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

fn measure(contender: &Contender, shape: Shape, latency: bool, tally: &mut Tally) -> Result<()> {
    let Shape(connections, in_flight) = shape;
    let closed = Run {
        addr: contender.addr,
        connections,
        load: Load::Closed((in_flight / contender.decisions).max(1)),
        warm_up: WARM_UP,
        measured: MEASURED,
    };
    #[expect(clippy::cast_precision_loss, reason = "a few decisions per message")]
    let decisions = contender.decisions as f64;
    let outcome = blast::run(&closed, &contender.traffic, &contender.processes)?;
    tally.per_second.push(outcome.per_second * decisions);
    tally.busy.push(outcome.busy.iter().sum());
    if latency {
        let load = Load::Open(outcome.per_second * OPEN_SHARE);
        let outcome = blast::run(&Run { load, ..closed }, &contender.traffic, &contender.processes)?;
        #[expect(clippy::cast_precision_loss, reason = "less than a day in nanoseconds")]
        tally.p99_us.push(outcome.latency.value_at_quantile(0.99) as f64 / 1_000.0);
    }
    Ok(())
}
