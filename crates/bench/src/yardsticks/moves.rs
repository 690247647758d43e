//! Which tenants a change would move, told before it is done.

use crate::report::{Measurement, rounded, say};
use crate::world::{self, World};
use anyhow::{Context as _, Result, ensure};
use grey_core::balance::Moment;
use grey_core::change::Change;
use grey_core::decide::{Call, decide};
use grey_core::ids::{OverlayId, ServiceId};
use grey_core::key::Fact;
use grey_core::moves::{Moves, moves};
use grey_core::policy::{Buckets, Canary, Failover, Match, Overlay, OverlayKind, Policy, Unit};
use grey_core::service::Service;
use grey_core::table::Table;
use grey_core::version::Version;
use serde_json::Map;
use std::hint::black_box;
use std::time::Instant;

const WORLD: World = World { tenants: 100_000, services: 50, versions: 3, instances: 2 };
const ROUNDS: usize = 9;
/// Tenants that each group of moves names.
const EXAMPLES: usize = 5;

/// Milliseconds that telling takes, the median of some rounds, and what is told.
fn time(table: &Table, changes: &[Change]) -> (f64, Moves) {
    let mut took = Vec::new();
    let mut told = Moves::default();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        told = black_box(moves(table, changes, EXAMPLES));
        took.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    (took.get(ROUNDS / 2).copied().unwrap_or_default(), told)
}

/// Milliseconds for deciding a call of each tenant before and after: what one does without counting by class.
fn time_deciding(table: &Table, service: &str) -> f64 {
    let begin = Instant::now();
    for _ in 0..2 {
        for tenant in 0..WORLD.tenants {
            let tenant = World::tenant(tenant);
            let _decision = black_box(decide(table, &Call::new(&tenant, service), &Moment::default()));
        }
    }
    begin.elapsed().as_secs_f64() * 1e3
}

pub(super) fn preview() -> Result<Measurement> {
    let mut table = WORLD.table()?;
    let service = ServiceId::new(&World::service(7))?;
    let version = |number| Version::new(&world::version(number));
    // A third of the tenants have no instance of their version, until the policy lets another one stand in.
    let lists = WORLD.instance_lists()?;
    let served = lists.into_iter().find(|list| list.service == service).context("find the service")?;
    let unserved = version(2)?;
    let served = served.instances.into_iter().filter(|instance| instance.version != unserved).collect();
    table.set_instances(&service, served);
    let policy = Policy { failover: Failover::ToNearest, ..Policy::default() };
    let id = OverlayId::new("canary")?;
    let canary = Overlay {
        id: id.clone(),
        order: 0,
        layer: id,
        salt: "salt".to_owned(),
        unit: Unit::Tenant,
        matching: Match::default(),
        kind: OverlayKind::Canary(Canary {
            baseline: version(0)?,
            canary: version(1)?,
            buckets: Buckets::first(5_000).unwrap_or_default(),
        }),
    };
    let default = Service { id: service.clone(), default: version(1)? };
    let (policy_ms, told) = time(&table, &[Change::Put(Fact::Policy(service.clone(), policy))]);
    let moved: u64 = told.groups.iter().map(|group| group.tenants).sum();
    ensure!(moved > 30_000, "a third of the tenants were to move, not {moved}");
    let (default_ms, _) = time(&table, &[Change::Put(Fact::Service(default))]);
    let (canary_ms, told) = time(&table, &[Change::Put(Fact::Overlay(service.clone(), Box::new(canary)))]);
    ensure!(told.largest() > 10_000, "half of a third of the tenants were to move, not {}", told.largest());
    let deciding = time_deciding(&table, service.as_str());
    say(&format!(
        "100,000 tenants × 50 services: a policy in {policy_ms:.1} ms, a default in {default_ms:.1} ms, a canary in {canary_ms:.1} ms"
    ));
    let more = [("default_ms", default_ms), ("canary_ms", canary_ms)];
    Ok(Measurement {
        name: "moves_100k",
        value: policy_ms,
        unit: "ms",
        ratio: policy_ms / deciding,
        against: "deciding a call of each tenant before and after",
        more: more.into_iter().map(|(name, ms)| (name.to_owned(), rounded(ms))).collect::<Map<_, _>>(),
    })
}
