//! A status as metrics.

use std::time::{Duration, SystemTime};

use grey_proto::sync::{SyncRun, SyncSource, SyncStatus};
use grey_runtime::{Telemetry, telemetry};
use grey_sync::{Gauges, timestamp};
use grey_testkit::eventually;

use crate::DEADLINE;
use crate::replica::holding;

struct Shown(Telemetry, Gauges);

impl Shown {
    fn new() -> Self {
        let options = telemetry::Options { log_filter: "error".to_owned(), ..telemetry::Options::default() };
        let telemetry = Telemetry::start("grey-sync", &options).unwrap();
        let gauges = Gauges::new(telemetry.meter());
        Self(telemetry, gauges)
    }

    fn observe(&self, status: &SyncStatus) {
        self.1.observe(status);
    }

    /// The values of a metric, with what its label says.
    fn all(&self, name: &str) -> Vec<(String, f64)> {
        let text = self.0.render_metrics();
        let line = |line: &str| {
            let (labels, value) = line.strip_prefix(name)?.split_once(' ')?;
            if !(labels.is_empty() || labels.starts_with('{')) {
                return None;
            }
            let label =
                labels.split(['{', '}', ',']).find(|l| l.starts_with("source=") || l.starts_with("state="));
            let label = label.and_then(|label| label.split('"').nth(1)).unwrap_or_default();
            Some((label.to_owned(), value.parse().unwrap()))
        };
        text.lines().filter_map(line).collect()
    }

    fn one(&self, name: &str) -> f64 {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {all:?}");
        all[0].1
    }
}

/// As the leader's status is read at `replica`.
fn read_at(replica: &str, status: SyncStatus) -> SyncStatus {
    SyncStatus { leader: "a".to_owned(), answered_by: replica.to_owned(), ..status }
}

#[tokio::test]
async fn a_status_is_shown_as_metrics() {
    let shown = Shown::new();
    let elapsed = |millis| Some(Duration::from_millis(millis).into());
    let runs = [1_500, 9_000].map(|millis| SyncRun { elapsed: elapsed(millis), ..SyncRun::default() });
    let counts = [("routed".to_owned(), 8), ("disabled".to_owned(), 2)].into();
    let status =
        SyncStatus { runs: runs.into(), counts, held_total: 7, quarantined_total: 5, ..holding("c1") };
    shown.observe(&read_at("a", status.clone()));
    assert_eq!(shown.one("grey_sync_leading"), 1.0);
    assert_eq!(shown.one("grey_sync_held"), 7.0);
    assert_eq!(shown.one("grey_sync_quarantined"), 5.0);
    assert_eq!(shown.one("grey_sync_last_run_duration_seconds"), 1.5);
    assert_eq!(shown.all("grey_sync_source_failures"), [("dc-1".to_owned(), 3.0)]);
    assert_eq!(shown.all("grey_sync_items"), [("disabled".to_owned(), 2.0), ("routed".to_owned(), 8.0)]);

    shown.observe(&read_at("b", status.clone()));
    assert_eq!(shown.one("grey_sync_leading"), 0.0, "the same told by another replica");
    shown.observe(&status);
    assert_eq!(shown.one("grey_sync_leading"), 1.0, "the leader's own, before it is published");
    shown.observe(&SyncStatus::default());
    assert_eq!(shown.all("grey_sync_source_failures"), [], "a source that is gone is no longer shown");
}

#[tokio::test]
async fn age_grows_by_itself_even_if_there_was_never_a_success() {
    let shown = Shown::new();
    let age = || shown.one("grey_sync_source_age_seconds");
    shown.observe(&read_at("a", holding("c1")));
    let first = age();
    assert!((0.0..DEADLINE.as_secs_f64()).contains(&first), "{first}");
    eventually(DEADLINE, "the age grows", async || age() > first).await;
    let before = age();
    shown.observe(&read_at("a", holding("c1")));
    assert!(age() >= before, "another failure is no success");

    let mut status = holding("c1");
    status.sources[0].last_success = Some(timestamp(SystemTime::now() - Duration::from_secs(3_600)));
    shown.observe(&read_at("a", status.clone()));
    assert!((3_600.0..3_700.0).contains(&age()), "{}", age());
    shown.observe(&SyncStatus { answered_by: "a".to_owned(), ..SyncStatus::default() });
    assert!(age() >= 3_600.0, "nobody leads, and the age goes on");
    assert_eq!(shown.one("grey_sync_leading"), 0.0);
    status.sources[0].last_success = Some(timestamp(SystemTime::now() + Duration::from_secs(3_600)));
    shown.observe(&read_at("a", status));
    assert_eq!(age(), 0.0, "a clock ahead of ours");
}

#[tokio::test]
async fn labels_are_bounded() {
    let shown = Shown::new();
    let source = |n: u32| SyncSource { name: format!("s{n}"), ..SyncSource::default() };
    let counts = (0..500).map(|n| (format!("state-{n}"), n)).collect();
    let status = SyncStatus { sources: (0..500).map(source).collect(), counts, ..SyncStatus::default() };
    shown.observe(&read_at("a", status));
    assert_eq!(shown.all("grey_sync_items").len(), 64);
    assert_eq!(shown.all("grey_sync_source_age_seconds").len(), 64);
    assert_eq!(shown.all("grey_sync_source_failures").len(), 64);
}
