//! A change to a table that others read.

use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use crate::world::{self, World};
use anyhow::Result;
use grey_core::change::{Change, Event};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::Fact;
use grey_core::service::Pin;
use grey_core::table::Table;
use grey_core::version::Version;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Map;
use std::time::Instant;

const SMALL: World = World { tenants: 10_000, services: 20, versions: 3, instances: 5 };
const LARGE: World = World { tenants: 1_000_000, services: 20, versions: 3, instances: 5 };
/// Changes in one round.
const CHANGES: usize = 5_000;
const ROUNDS: usize = 5;

/// A writer's table, and the clone that readers hold.
struct Published {
    world: World,
    table: Table,
    readers: Table,
    random: SmallRng,
}

impl Published {
    fn new(world: World) -> Result<Self> {
        let table = world.table()?;
        Ok(Self { world, readers: table.clone(), table, random: SmallRng::seed_from_u64(13) })
    }

    /// Times of single changes in microseconds.
    fn change(&mut self, times: &mut Vec<f64>) -> Result<()> {
        for _ in 0..CHANGES {
            let event = self.event()?;
            let begin = Instant::now();
            self.table.apply(&event)?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
            // The readers' old table is freed here, by whoever lets it go last, not by the change.
            self.readers = self.table.clone();
        }
        Ok(())
    }

    fn event(&mut self) -> Result<Event> {
        let tenant = World::tenant(self.random.random_range(0..self.world.tenants));
        let service = World::service(self.random.random_range(0..self.world.services));
        let version = world::version(self.random.random_range(0..self.world.versions));
        let pin = Pin { version: Version::new(&version)?, locked: self.random.random() };
        Ok(Event {
            revision: self.table.position().revision.next(),
            changes: vec![Change::Put(Fact::Pin(TenantId::new(&tenant)?, ServiceId::new(&service)?, pin))],
            ..Event::default()
        })
    }
}

pub(super) fn flat() -> Result<Measurement> {
    say("apply_flat: building tables");
    let (mut small, mut large) = (Published::new(SMALL)?, Published::new(LARGE)?);
    let (mut smalls, mut larges, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut in_small, mut in_large) = (Vec::new(), Vec::new());
        small.change(&mut in_small)?;
        large.change(&mut in_large)?;
        ratios.push(
            Figures::new(in_large.iter().copied()).median() / Figures::new(in_small.iter().copied()).median(),
        );
        smalls.extend(in_small);
        larges.extend(in_large);
    }
    let (smalls, larges, ratios) = (Figures::new(smalls), Figures::new(larges), Figures::new(ratios));
    say(&format!(
        "apply_flat: {:.2} us at 1,000,000 tenants (p99 {:.1}), {:.2} us at 10,000 (p99 {:.1}), ratio {ratios}",
        larges.median(),
        larges.quantile(0.99),
        smalls.median(),
        smalls.quantile(0.99),
    ));
    let more = Map::from_iter([
        ("p99_us".to_owned(), rounded(larges.quantile(0.99))),
        ("small_us".to_owned(), rounded(smalls.median())),
    ]);
    Ok(Measurement {
        name: "apply_flat",
        value: larges.median(),
        unit: "us",
        ratio: ratios.median(),
        against: "a table of 10,000 tenants",
        more,
    })
}
