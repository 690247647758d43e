//! What happened to the calls, counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::world;

/// Latencies kept for the percentiles.
const WINDOW: usize = 4_096;

/// Counts of all calls since the start. Bounded: services, versions and instances are those of the world.
#[derive(Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    served: BTreeMap<(String, String), u64>,
    rerouted: BTreeMap<String, u64>,
    failures: Failures,
    latencies: VecDeque<Duration>,
}

/// Calls that got no right answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    pub(super) count: u64,
    /// The last one, for people.
    pub(super) last: String,
}

/// Percentiles of the newest Route calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Latency {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Route answered after `latency`.
    pub(super) fn routed(&self, latency: Duration) {
        let mut counts = self.counts();
        if counts.latencies.len() == WINDOW {
            counts.latencies.pop_front();
        }
        counts.latencies.push_back(latency);
    }

    /// The version that was routed answered.
    pub(super) fn served(&self, service: &str, version: &str) {
        *self.counts().served.entry((service.to_owned(), version.to_owned())).or_default() += 1;
    }

    /// The instance did not answer, so the call is routed again.
    pub(super) fn rerouted(&self, instance: &str) {
        *self.counts().rerouted.entry(instance.to_owned()).or_default() += 1;
    }

    pub(super) fn failed(&self, why: &str) {
        let failures = &mut self.counts().failures;
        failures.count += 1;
        why.clone_into(&mut failures.last);
    }

    pub(super) fn total(&self) -> u64 {
        self.counts().served.values().sum()
    }

    /// Calls served by a version of a service.
    pub(super) fn served_by(&self, service: &str, version: &str) -> u64 {
        let key = (service.to_owned(), version.to_owned());
        self.counts().served.get(&key).copied().unwrap_or_default()
    }

    /// Calls that an instance did not answer.
    pub(super) fn unanswered_by(&self, instance: &str) -> u64 {
        self.counts().rerouted.get(instance).copied().unwrap_or_default()
    }

    pub(super) fn failures(&self) -> Failures {
        self.counts().failures.clone()
    }

    pub(super) fn reroutes(&self) -> u64 {
        self.counts().rerouted.values().sum()
    }

    pub(super) fn latency(&self) -> Latency {
        let mut sorted: Vec<Duration> = self.counts().latencies.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted.get(rank).copied().unwrap_or_default()
        };
        Latency { p50: at(50), p99: at(99) }
    }

    /// Calls by service and version, in the order of the world.
    pub(super) fn by_version(&self) -> Vec<[u64; world::VERSIONS]> {
        let row =
            |service: &&str| world::versions_of(service).map(|version| self.served_by(service, version));
        world::SERVICES.iter().map(row).collect()
    }

    /// All of it on a few lines.
    pub(super) fn summary(&self) -> Vec<String> {
        let Latency { p50, p99 } = self.latency();
        vec![format!(
            "calls          {} served by the version that was routed, {} failed, {} routed again; Route p50 {p50:.0?}, p99 {p99:.0?}",
            self.total(),
            self.failures().count,
            self.reroutes(),
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_newest_calls() {
        let tally = Tally::default();
        assert_eq!(tally.latency().p99, Duration::ZERO);
        for _ in 0..WINDOW {
            tally.routed(Duration::from_secs(1));
        }
        for micros in 1..=WINDOW as u64 {
            tally.routed(Duration::from_micros(micros));
        }
        let Latency { p50, p99 } = tally.latency();
        assert_eq!((p50, p99), (Duration::from_micros(2_049), Duration::from_micros(4_056)));
    }

    #[test]
    fn calls_are_counted_by_service_and_version() {
        let tally = Tally::default();
        tally.served("payment", "v2.1");
        tally.served("payment", "v2.1");
        tally.rerouted("payment-v1.0-1");
        tally.failed("no answer");
        assert_eq!(tally.by_version(), [[0, 0, 0], [0, 0, 2], [0, 0, 0]]);
        assert_eq!((tally.total(), tally.reroutes(), tally.unanswered_by("payment-v1.0-1")), (2, 1, 1));
        assert_eq!((tally.failures().count, tally.failures().last.as_str()), (1, "no answer"));
    }
}
