//! What the migrator counts. Labels are closed sets; none names a tenant.

use crate::files::Dialect;
use grey_core::error::Reason;
use grey_proto::schema::UpgradeState;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};
use std::time::Duration;

/// From a migration that adds a column to one that fills a large table.
const SECONDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0];

/// The instruments. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    ended: Counter<u64>,
    duration: Histogram<f64>,
    failures: Counter<u64>,
    leases_lost: Counter<u64>,
    takeovers: Counter<u64>,
    queued: Gauge<u64>,
    running: Gauge<u64>,
    unreported: Counter<u64>,
}

impl Metrics {
    /// Instruments of `meter`.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let counter =
            |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        let gauge =
            |name: &'static str, what: &'static str| meter.u64_gauge(name).with_description(what).build();
        Self {
            ended: counter("grey_schema_upgrades", "Upgrades that ended, by state and dialect."),
            duration: meter
                .f64_histogram("grey_schema_upgrade_duration")
                .with_unit("s")
                .with_boundaries(SECONDS.to_vec())
                .with_description("Time from the beginning of an upgrade to its end, by state.")
                .build(),
            failures: counter(
                "grey_schema_failures",
                "Upgrades that did not succeed, by dialect and reason.",
            ),
            leases_lost: counter("grey_schema_leases_lost", "Leases that another replica took over."),
            takeovers: counter("grey_schema_takeovers", "Upgrades that another replica had left behind."),
            queued: gauge("grey_schema_queued", "Upgrades that wait, on all replicas."),
            running: gauge("grey_schema_running", "Upgrades that run, on all replicas."),
            unreported: counter(
                "grey_schema_reports_put_off",
                "Schemas and pins that the control plane did not take at once.",
            ),
        }
    }

    pub(crate) fn ended(
        &self,
        state: UpgradeState,
        dialect: Option<Dialect>,
        reason: Option<Reason>,
        took: Duration,
    ) {
        let word = match state {
            UpgradeState::Succeeded => "succeeded",
            UpgradeState::Cancelled => "cancelled",
            UpgradeState::NeedsRepair => "needs_repair",
            _ => "failed",
        };
        let dialect = KeyValue::new("dialect", dialect.map_or("unknown", Dialect::as_str));
        self.ended.add(1, &[KeyValue::new("state", word), dialect.clone()]);
        self.duration.record(took.as_secs_f64(), &[KeyValue::new("state", word)]);
        if let Some(reason) = reason {
            self.failures.add(1, &[dialect, KeyValue::new("reason", reason.as_str())]);
        }
    }

    pub(crate) fn lease_lost(&self) {
        self.leases_lost.add(1, &[]);
    }

    pub(crate) fn taken_over(&self) {
        self.takeovers.add(1, &[]);
    }

    pub(crate) fn depth(&self, queued: u64, running: u64) {
        self.queued.record(queued, &[]);
        self.running.record(running, &[]);
    }

    pub(crate) fn put_off(&self) {
        self.unreported.add(1, &[]);
    }
}
