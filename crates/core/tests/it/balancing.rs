//! What each strategy promises.

mod adaptive;
mod ring;
mod turns;

use crate::fixture::{Random, member};
use grey_core::balance::{Ending, Moment, Outcome};
use grey_core::decide::{Call, decide};
use grey_core::policy::Strategy;
use grey_core::table::Table;
use std::collections::BTreeMap;

pub(crate) const ALL: [Strategy; 7] = [
    Strategy::RoundRobin,
    Strategy::Random,
    Strategy::WeightedRoundRobin,
    Strategy::LeastConnections,
    Strategy::PeakEwma,
    Strategy::HealthAware,
    Strategy::ConsistentHash,
];

fn chosen(table: &Table, moment: &Moment) -> String {
    decide(table, &Call::new("t", "s"), moment).unwrap().instance.id.to_string()
}

/// How often each instance is chosen in this many calls at one moment.
fn counts(table: &Table, random: &mut Random, now: u32, calls: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(chosen(table, &random.moment(now))).or_default() += 1;
    }
    counts
}

fn complete(table: &Table, id: &str, now: u32, latency_us: u32, success: bool) {
    let ending = if success { Ending::Served } else { Ending::Failed };
    member(table, id).load.complete(now, &Outcome { reporter: 0, ending, latency_us, calls: 1, weight: 1 });
}
