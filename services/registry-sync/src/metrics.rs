//! What the mirror counts. Labels are closed sets.

use std::time::Duration;

use grey_runtime::telemetry::LATENCY_SECONDS;
use grey_state::Error;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

use crate::probe::Verdict;

/// The instruments. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    writes: Counter<u64>,
    lag: Histogram<f64>,
    probes: Counter<u64>,
    damaged: Counter<u64>,
}

impl Metrics {
    /// Instruments of `meter`.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let writes = meter
            .u64_counter("grey_registry_sync_writes")
            .with_description("Instance lists written to shared state, by outcome.")
            .build();
        let lag = meter
            .f64_histogram("grey_registry_sync_lag")
            .with_unit("s")
            .with_boundaries(LATENCY_SECONDS.to_vec())
            .with_description("Time from a change's being seen to its being written.")
            .build();
        let probes = meter
            .u64_counter("grey_registry_sync_probes")
            .with_description("Probes of instances in question, by what they found.")
            .build();
        let damaged = meter
            .u64_counter("grey_registry_sync_damaged")
            .with_description("Instance lists that were found damaged in shared state, to be written again.")
            .build();
        Self { writes, lag, probes, damaged }
    }

    pub(crate) fn damaged(&self) {
        self.damaged.add(1, &[]);
    }

    pub(crate) fn wrote(&self, result: &Result<(), Error>, lag: Duration) {
        let outcome = match result {
            Ok(()) => "written",
            Err(Error::Fenced { .. }) => "fenced",
            Err(_) => "failed",
        };
        self.writes.add(1, &[KeyValue::new("outcome", outcome)]);
        if result.is_ok() {
            self.lag.record(lag.as_secs_f64(), &[]);
        }
    }

    pub(crate) fn probed(&self, verdict: &Verdict) {
        let found = match verdict {
            Verdict::Alive { .. } => "alive",
            Verdict::Refused => "refused",
            Verdict::Unknown => "unknown",
        };
        self.probes.add(1, &[KeyValue::new("found", found)]);
    }
}
