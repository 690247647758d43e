//! What tenant-sync counts besides its status. Labels are closed sets.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

use crate::diff::Kind;

/// Reading a large tenant API takes a while.
const PULL_SECONDS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The instruments. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    changes: Counter<u64>,
    pulls: Histogram<f64>,
    runs: Counter<u64>,
    webhooks: Counter<u64>,
}

impl Metrics {
    /// Instruments of `meter`.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let counter =
            |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        Self {
            changes: counter("grey_tenant_sync_changes", "Changes made in the control plane, by kind."),
            pulls: meter
                .f64_histogram("grey_tenant_sync_pull_duration")
                .with_unit("s")
                .with_boundaries(PULL_SECONDS.to_vec())
                .with_description("Time to read the tenant API, by outcome.")
                .build(),
            runs: counter("grey_tenant_sync_runs", "Syncs, by outcome."),
            webhooks: counter("grey_tenant_sync_webhooks", "Deliveries to the webhook, by outcome."),
        }
    }

    pub(crate) fn applied(&self, kind: Kind) {
        self.changes.add(1, &[KeyValue::new("kind", kind.done())]);
    }

    /// `outcome` is `read` or a word for the error.
    pub(crate) fn pulled(&self, outcome: &'static str, took: Duration) {
        self.pulls.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
    }

    /// `outcome` is `done`, `held` or `failed`.
    pub(crate) fn ran(&self, outcome: &'static str) {
        self.runs.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// `outcome` is `accepted`, `replayed`, `refused` or `failed`.
    pub(crate) fn delivered(&self, outcome: &'static str) {
        self.webhooks.add(1, &[KeyValue::new("outcome", outcome)]);
    }
}
