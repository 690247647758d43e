#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod guard;
mod lists;
mod properties;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use grey_core::ids::{Name, ServiceId};
use grey_core::instance::Instance;
use grey_proto::sync::{HeldChange, HoldReason, SyncStatus};

use super::*;
use crate::registry::Registered;

/// A mirror with a clock, and shared state that takes every write.
struct World {
    mirror: Mirror,
    now: Instant,
}

fn source(name: &str) -> Source {
    Source {
        name: Name::new(name).unwrap(),
        kind: "nacos",
        trusted: false,
        region: None,
        lowercase_names: false,
    }
}

fn options(sources: &[&str]) -> Options {
    Options {
        sources: sources.iter().map(|name| source(name)).collect(),
        naming: Naming::default(),
        guard: Guard::default(),
        probe_interval: Some(Duration::from_secs(2)),
        probe_tells_version: true,
    }
}

fn on(id: &str, version: &str) -> Registered {
    Registered {
        id: id.to_owned(),
        address: format!("{id}.test:80"),
        version: Some(version.to_owned()).filter(|version| !version.is_empty()),
        weight: 100,
        enabled: true,
        healthy: true,
        ..Registered::default()
    }
}

fn listing(service: &str, instances: impl IntoIterator<Item = Registered>) -> Listing {
    Listing { service: service.to_owned(), instances: instances.into_iter().collect() }
}

/// `count` instances of v1.
fn many(count: usize) -> Vec<Registered> {
    (0..count).map(|n| on(&format!("i{n:02}"), "1.0")).collect()
}

impl World {
    fn new(options: Options) -> Self {
        Self { mirror: Mirror::new(options), now: Instant::now() }
    }

    /// A payment service of `count` instances at dc-1, known for long enough.
    fn with(count: usize) -> Self {
        let mut world = Self::new(options(&["dc-1"]));
        world.payment(many(count));
        world.pass(60);
        world
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn all(&mut self, source: usize, listings: Vec<Listing>) {
        self.mirror.observe(source, Sighting::All(listings), self.now);
        self.write();
    }

    fn payment(&mut self, instances: Vec<Registered>) {
        self.all(0, vec![listing("payment", instances)]);
    }

    fn fail(&mut self, source: usize) {
        self.mirror.observe(source, Sighting::Failed("away".to_owned()), self.now);
        self.write();
    }

    fn write(&mut self) {
        for write in self.mirror.pending(&BTreeSet::new(), usize::MAX) {
            self.mirror.written(write.list, self.now);
        }
        assert!(self.mirror.is_written());
    }

    /// Asks every instance that is due; the number asked.
    fn probe(&mut self, answer: impl Fn(&str) -> Verdict) -> usize {
        let targets = self.mirror.probes(self.now, usize::MAX);
        let asked = targets.len();
        let answers: Vec<_> =
            targets.into_iter().map(|target| (target.clone(), answer(&target.address))).collect();
        self.mirror.probed(&answers, self.now);
        self.write();
        asked
    }

    /// What is published of `service`.
    fn published(&self, service: &str) -> Vec<Instance> {
        let id = ServiceId::new(service).unwrap();
        self.mirror.services.get(&id).map(Service::list).unwrap_or_default()
    }

    /// The same as `id version`, those that cannot be routed to in brackets.
    fn routes(&self, service: &str) -> String {
        let one = |one: &Instance| match one.is_routable() {
            true => format!("{} {}", one.id, one.version),
            false => format!("({} {})", one.id, one.version),
        };
        self.published(service).iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn count(&self) -> usize {
        self.published("payment").iter().filter(|one| one.is_routable()).count()
    }

    fn status(&self) -> SyncStatus {
        self.mirror.status(Clock::at(self.now))
    }

    fn only_held(&self) -> HeldChange {
        let mut status = self.status();
        assert_eq!(status.held_total, 1, "{:?}", status.held);
        status.held.remove(0)
    }

    fn nothing_held(&self) -> bool {
        self.status().held_total == 0
    }
}

fn alive(version: &str) -> Verdict {
    Verdict::Alive { version: Some(version.to_owned()).filter(|version| !version.is_empty()) }
}
