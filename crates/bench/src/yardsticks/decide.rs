//! Decisions in process.

use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use crate::world::{self, World};
use anyhow::Result;
use grey_core::balance::Moment;
use grey_core::decide::{Call, decide};
use grey_core::table::Table;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Map;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

const SMALL: World = World { tenants: 10_000, services: 50, versions: 3, instances: 5 };
const LARGE: World = World { tenants: 1_000_000, services: 20, versions: 3, instances: 5 };
/// Decisions in one round: more than any cache holds the tenants of.
const CALLS: usize = 1 << 20;
const ROUNDS: usize = 9;

/// Random calls, laid out in the order in which they are made, as calls off a socket are at hand when decided.
struct Calls(Vec<(String, String)>);

impl Calls {
    fn new(world: &World) -> Self {
        let mut random = SmallRng::seed_from_u64(11);
        let call = |_| {
            let tenant = World::tenant(random.random_range(0..world.tenants));
            (tenant, World::service(random.random_range(0..world.services)))
        };
        Self((0..CALLS).map(call).collect())
    }

    /// Nanoseconds per call of `answer`, which tells whether it found an instance.
    fn time(&self, mut answer: impl FnMut(&str, &str) -> bool) -> Result<f64> {
        let begin = Instant::now();
        let found = self.0.iter().filter(|(tenant, service)| answer(tenant, service)).count();
        let elapsed = begin.elapsed();
        anyhow::ensure!(found == CALLS, "{} of {CALLS} calls found no instance", CALLS - found);
        #[expect(clippy::cast_precision_loss, reason = "a million")]
        Ok(elapsed.as_secs_f64() * 1e9 / CALLS as f64)
    }

    fn time_decide(&self, table: &Table) -> Result<f64> {
        self.time(|tenant, service| {
            let call = Call::new(tenant, service);
            black_box(decide(table, &call, &Moment::default())).is_ok()
        })
    }
}

/// What one writes first: maps of maps of text, and a counter for each list of instances.
struct Naive {
    versions: HashMap<String, HashMap<String, String>>,
    instances: HashMap<String, HashMap<String, (AtomicUsize, Vec<String>)>>,
}

impl Naive {
    fn new(world: &World) -> Result<Self> {
        let row =
            |tenant| (0..world.services).map(move |s| (World::service(s), world.pinned(tenant, s))).collect();
        let mut instances: HashMap<String, HashMap<String, _>> = HashMap::new();
        for service in 0..world.services {
            for number in 0..world.versions {
                let all = (0..world.instances).map(|at| world::instance(service, number, at));
                let all =
                    all.map(|instance| Ok(instance?.address.to_string())).collect::<Result<Vec<_>>>()?;
                let versions = instances.entry(World::service(service)).or_default();
                versions.insert(world::version(number), (AtomicUsize::new(0), all));
            }
        }
        let versions = (0..world.tenants).map(|tenant| (World::tenant(tenant), row(tenant))).collect();
        Ok(Self { versions, instances })
    }

    fn decide(&self, tenant: &str, service: &str) -> Option<(&str, &str)> {
        let version = self.versions.get(tenant)?.get(service)?;
        let (turn, instances) = self.instances.get(service)?.get(version)?;
        let instance = instances.get(turn.fetch_add(1, Relaxed) % instances.len())?;
        Some((version, instance))
    }
}

pub(super) fn vs_naive() -> Result<Measurement> {
    let (table, naive, calls) = (SMALL.table()?, Naive::new(&SMALL)?, Calls::new(&SMALL));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(calls.time_decide(&table)?);
        theirs.push(calls.time(|tenant, service| black_box(naive.decide(tenant, service)).is_some())?);
    }
    let ratios = Figures::ratios(&theirs, &ours);
    let (ours, theirs) = (Figures::new(ours), Figures::new(theirs));
    say(&format!("decide_vs_naive: {ours} ns, nested maps {theirs} ns, ratio {ratios}"));
    let more = Map::from_iter([("naive_ns".to_owned(), rounded(theirs.median()))]);
    Ok(Measurement {
        name: "decide_vs_naive",
        value: ours.median(),
        unit: "ns",
        ratio: ratios.median(),
        against: "nested hash maps and a counter",
        more,
    })
}

pub(super) fn flat() -> Result<Measurement> {
    say("decide_flat: building tables");
    let (small, large) = (SMALL.table()?, LARGE.table()?);
    let (small_calls, large_calls) = (Calls::new(&SMALL), Calls::new(&LARGE));
    let (mut smalls, mut larges) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        larges.push(large_calls.time_decide(&large)?);
        smalls.push(small_calls.time_decide(&small)?);
    }
    let ratios = Figures::ratios(&larges, &smalls);
    let (smalls, larges) = (Figures::new(smalls), Figures::new(larges));
    say(&format!("decide_flat: {larges} ns at 1,000,000 x 20, {smalls} ns at 10,000 x 50, ratio {ratios}"));
    let more = Map::from_iter([("small_ns".to_owned(), rounded(smalls.median()))]);
    Ok(Measurement {
        name: "decide_flat",
        value: larges.median(),
        unit: "ns",
        ratio: ratios.median(),
        against: "a table of 10,000 tenants x 50 services",
        more,
    })
}
