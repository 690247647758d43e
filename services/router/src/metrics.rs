//! What the router counts. Labels are closed sets; tenants are never among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use grey_core::balance::Ending;
use grey_core::error::Reason;
use grey_proto::router::DecisionReason;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::shared::Shared;

/// The reasons of decisions, by their number in the contract.
const DECIDED: [&str; 9] = [
    "unspecified",
    "pin",
    "default",
    "unknown_tenant",
    "override",
    "experiment",
    "canary",
    "schema",
    "failover",
];

const OUTCOMES: usize = DECIDED.len() + Reason::ALL.len();

/// The counters of one thread, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counts {
    outcomes: [AtomicU64; OUTCOMES],
    turn_fallbacks: AtomicU64,
    reports: [AtomicU64; REPORTS.len()],
}

/// What became of a reported outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Report {
    /// The call had succeeded.
    Success,
    /// The call had failed.
    Failure,
    /// The call had ended by its caller's own fault.
    Refused,
    /// Its instance is gone.
    Gone,
}

const REPORTS: [(Report, &str); 4] = [
    (Report::Success, "success"),
    (Report::Failure, "failure"),
    (Report::Refused, "refused"),
    (Report::Gone, "gone"),
];

impl From<Ending> for Report {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Served => Self::Success,
            Ending::Failed => Self::Failure,
            Ending::Refused => Self::Refused,
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            outcomes: [const { AtomicU64::new(0) }; OUTCOMES],
            turn_fallbacks: AtomicU64::new(0),
            reports: [const { AtomicU64::new(0) }; REPORTS.len()],
        }
    }
}

impl Counts {
    pub(crate) fn decided(&self, reason: DecisionReason) {
        self.add(usize::try_from(i32::from(reason)).unwrap_or(0));
    }

    pub(crate) fn refused(&self, reason: Reason) {
        let at = Reason::ALL.iter().position(|known| *known == reason).unwrap_or(0);
        self.add(DECIDED.len() + at);
    }

    pub(crate) fn turn_fallback(&self) {
        self.turn_fallbacks.fetch_add(1, Relaxed);
    }

    pub(crate) fn reported(&self, report: Report, calls: u32) {
        if let Some(count) = self.reports.get(report as usize) {
            count.fetch_add(u64::from(calls), Relaxed);
        }
    }

    fn add(&self, outcome: usize) {
        if let Some(count) = self.outcomes.get(outcome) {
            count.fetch_add(1, Relaxed);
        }
    }
}

/// Figures of the parts that run beside decisions.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Watch streams open now.
    pub(crate) watchers: AtomicU64,
    /// Bytes of frames that wait until watchers' connections take them; shared ones count for each.
    pub(crate) watch_waiting_bytes: Arc<AtomicU64>,
    /// Bytes of frames that are kept for watchers.
    pub(crate) watch_recent_bytes: Arc<AtomicU64>,
    /// Snapshots sent to watchers.
    pub(crate) watch_snapshots: AtomicU64,
    /// Unix time of the last write of the snapshot file, in seconds; 0: none in this life.
    pub(crate) snapshot_written: AtomicU64,
    /// Heartbeats that did not arrive.
    pub(crate) heartbeat_failures: AtomicU64,
}

fn outcome_name(at: usize) -> Option<(&'static str, String)> {
    match DECIDED.get(at) {
        Some(name) => Some(("decided", (*name).to_owned())),
        None => Reason::ALL.get(at - DECIDED.len()).map(|reason| ("refused", reason.as_str().to_lowercase())),
    }
}

/// Makes the instruments; `threads` are the counters of everyone who decides.
pub(crate) fn register(meter: &Meter, shared: &Arc<Shared>, threads: &[Arc<Counts>]) {
    register_counts(meter, threads);
    let tables = shared.tables.clone();
    let gauge = |name: &'static str, about: &'static str, read: fn(&Shared) -> u64| {
        let shared = Arc::clone(shared);
        let builder = meter.u64_observable_gauge(name).with_description(about);
        builder.with_callback(move |seen| seen.observe(read(&shared), &[])).build();
    };
    gauge("grey_router_table_revision", "Revision of the routing table", |s| {
        s.tables.load().position().revision.0
    });
    gauge("grey_router_table_tenants", "Tenants in the routing table", |s| {
        s.tables.load().tenant_count() as u64
    });
    gauge("grey_router_table_services", "Services in the routing table", |s| {
        s.tables.load().service_count() as u64
    });
    gauge("grey_router_table_stale", "1 while the table is not known to be the present one", |s| {
        u64::from(!s.tables.status().is_current())
    });
    gauge("grey_router_instances_damaged", "Instance lists that were damaged when last loaded", |s| {
        s.tables.status().instances.damaged
    });
    gauge("grey_router_watchers", "Watch streams open now", |s| s.gauges.watchers.load(Relaxed));
    gauge("grey_router_watch_waiting_bytes", "Bytes that watchers have not taken yet", |s| {
        s.gauges.watch_waiting_bytes.load(Relaxed)
    });
    gauge("grey_router_watch_recent_bytes", "Bytes of events and lists kept for watchers", |s| {
        s.gauges.watch_recent_bytes.load(Relaxed)
    });
    gauge("grey_router_snapshot_written_timestamp_seconds", "When the snapshot file was last written", |s| {
        s.gauges.snapshot_written.load(Relaxed)
    });
    meter
        .f64_observable_gauge("grey_router_table_age_seconds")
        .with_description("Time since the publisher last confirmed the table; absent before it first did")
        .with_callback(move |seen| {
            if let Some(age) = tables.status().age {
                seen.observe(age.as_secs_f64(), &[]);
            }
        })
        .build();
    let counter = |name: &'static str, about: &'static str, read: fn(&Shared) -> u64| {
        let shared = Arc::clone(shared);
        let builder = meter.u64_observable_counter(name).with_description(about);
        builder.with_callback(move |seen| seen.observe(read(&shared), &[])).build();
    };
    counter("grey_router_table_loads", "Times the table was loaded from the projection", |s| {
        s.tables.status().loads
    });
    counter("grey_router_table_drifts", "Times the table had drifted from the feed", |s| {
        s.tables.status().drifts
    });
    counter("grey_router_instances_drifts", "Times instances had drifted from those announced", |s| {
        s.tables.status().instances.drifts
    });
    counter("grey_router_watch_snapshots", "Snapshots sent to watchers", |s| {
        s.gauges.watch_snapshots.load(Relaxed)
    });
    counter("grey_router_heartbeat_failures", "Heartbeats that did not arrive", |s| {
        s.gauges.heartbeat_failures.load(Relaxed)
    });
}

fn register_counts(meter: &Meter, threads: &[Arc<Counts>]) {
    let labels: Vec<[KeyValue; 2]> = (0..OUTCOMES)
        .filter_map(outcome_name)
        .map(|(result, reason)| [KeyValue::new("result", result), KeyValue::new("reason", reason)])
        .collect();
    let counts = threads.to_vec();
    meter
        .u64_observable_counter("grey_router_decisions")
        .with_description("Decisions, by what decided or why there was none")
        .with_callback(move |seen| {
            for (at, labels) in labels.iter().enumerate() {
                let read =
                    |counts: &Arc<Counts>| counts.outcomes.get(at).map_or(0, |count| count.load(Relaxed));
                let sum: u64 = counts.iter().map(read).sum();
                if sum > 0 {
                    seen.observe(sum, labels);
                }
            }
        })
        .build();
    let counts = threads.to_vec();
    meter
        .u64_observable_counter("grey_router_reports")
        .with_description("Calls whose outcome was reported")
        .with_callback(move |seen| {
            for (report, name) in REPORTS {
                let read =
                    |counts: &Arc<Counts>| counts.reports.get(report as usize).map_or(0, |c| c.load(Relaxed));
                seen.observe(counts.iter().map(read).sum(), &[KeyValue::new("result", name)]);
            }
        })
        .build();
    let counts = threads.to_vec();
    meter
        .u64_observable_counter("grey_router_turn_fallbacks")
        .with_description("Calls that took a local turn because the fleet-wide one was away or slow")
        .with_callback(move |seen| {
            seen.observe(counts.iter().map(|c| c.turn_fallbacks.load(Relaxed)).sum(), &[]);
        })
        .build();
}
