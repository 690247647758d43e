//! A status as metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use grey_proto::sync::SyncStatus;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use crate::status::length;
use crate::time::system_time;

/// Most values of a label; what is beyond is not shown.
const MAX_LABELS: usize = 64;

/// The metrics `grey_sync_*`. Cheap to clone.
///
/// Every replica observes what [`Desk::status`](crate::Desk::status) answers, leading or not: after each change and
/// every few seconds. The age of a source's last success grows by itself in between, and while nobody leads.
#[derive(Clone)]
pub struct Gauges(Arc<Mutex<Seen>>);

/// What was observed last.
#[derive(Default)]
struct Seen {
    leading: bool,
    sources: BTreeMap<String, Source>,
    items: BTreeMap<String, u64>,
    held: u64,
    quarantined: u64,
    last_run: Option<Duration>,
}

struct Source {
    /// The last success; before the first one, when the source was first heard of.
    fresh_at: SystemTime,
    failures: u64,
}

impl Gauges {
    /// Instruments of `meter`.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let gauges = Self(Arc::default());
        let seen = || gauges.clone();
        count(meter, "grey_sync_leading", "1 on the replica that leads.", seen(), |seen, observer| {
            observer.observe(u64::from(seen.leading), &[]);
        });
        count(meter, "grey_sync_held", "Changes held back for confirmation.", seen(), |seen, observer| {
            observer.observe(seen.held, &[]);
        });
        count(meter, "grey_sync_quarantined", "Things left out.", seen(), |seen, observer| {
            observer.observe(seen.quarantined, &[]);
        });
        count(meter, "grey_sync_items", "Mirrored things by state.", seen(), |seen, observer| {
            for (state, items) in &seen.items {
                observer.observe(*items, &[KeyValue::new("state", state.clone())]);
            }
        });
        let what = "Reads of a source that failed one after the other.";
        count(meter, "grey_sync_source_failures", what, seen(), |seen, observer| {
            for (name, source) in &seen.sources {
                observer.observe(source.failures, &[KeyValue::new("source", name.clone())]);
            }
        });
        let what = "Time since a source was last read successfully.";
        seconds(meter, "grey_sync_source_age_seconds", what, seen(), |seen, observer| {
            for (name, source) in &seen.sources {
                let age = SystemTime::now().duration_since(source.fresh_at).unwrap_or_default();
                observer.observe(age.as_secs_f64(), &[KeyValue::new("source", name.clone())]);
            }
        });
        let what = "How long the last sync took.";
        seconds(meter, "grey_sync_last_run_duration_seconds", what, seen(), |seen, observer| {
            if let Some(elapsed) = seen.last_run {
                observer.observe(elapsed.as_secs_f64(), &[]);
            }
        });
        gauges
    }

    /// Takes over what `status` says. If it says that nobody leads, what was seen before stays.
    pub fn observe(&self, status: &SyncStatus) {
        let mut seen = self.seen();
        // A status before it is published names neither: the leader's own.
        seen.leading = status.leader == status.answered_by;
        if status.leader.is_empty() && !seen.leading {
            return;
        }
        let now = SystemTime::now();
        let mut sources = BTreeMap::new();
        for source in status.sources.iter().take(MAX_LABELS) {
            let before = seen.sources.get(&source.name).map(|before| before.fresh_at);
            let fresh_at = source.last_success.map(system_time).or(before).unwrap_or(now);
            sources.insert(source.name.clone(), Source { fresh_at, failures: source.failures });
        }
        seen.sources = sources;
        let mut items: Vec<_> = status.counts.iter().map(|(state, items)| (state.clone(), *items)).collect();
        items.sort_unstable();
        items.truncate(MAX_LABELS);
        seen.items = items.into_iter().collect();
        seen.held = status.held_total.max(length(&status.held));
        seen.quarantined = status.quarantined_total.max(length(&status.quarantined));
        let elapsed = status.runs.first().and_then(|run| run.elapsed);
        seen.last_run = elapsed.and_then(|elapsed| Duration::try_from(elapsed).ok());
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Half an observation is still one of true numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(
    meter: &Meter,
    name: &'static str,
    what: &'static str,
    gauges: Gauges,
    read: fn(&Seen, &dyn AsyncInstrument<u64>),
) {
    // The meter keeps the callback; the instrument itself is not needed.
    let gauge = meter.u64_observable_gauge(name).with_description(what);
    gauge.with_callback(move |observer| read(&gauges.seen(), observer)).build();
}

fn seconds(
    meter: &Meter,
    name: &'static str,
    what: &'static str,
    gauges: Gauges,
    read: fn(&Seen, &dyn AsyncInstrument<f64>),
) {
    let gauge = meter.f64_observable_gauge(name).with_description(what);
    gauge.with_callback(move |observer| read(&gauges.seen(), observer)).build();
}
