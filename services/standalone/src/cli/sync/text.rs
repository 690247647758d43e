//! How a mirror stands, for people.

use std::collections::BTreeMap;
use std::time::Duration;

use grey_proto::sync::{HeldChange, Quarantined, SourceState, SyncRun, SyncSource, SyncStatus};
use pbjson_types::Timestamp;

use super::super::output::{fields, plain, table, word};

/// Most rows of one table; documents have them all.
const ROWS: usize = 50;

/// The whole status as of `now`, in seconds since 1970: the head, then a table for each kind of thing that there is.
pub(super) fn status(status: &SyncStatus, now: i64) -> String {
    let mut sections = vec![head(status, now)];
    if !status.leader.is_empty() {
        sections.push(sources(&status.sources, now));
        sections.push(held(&status.held, status.held_total, now));
        sections.push(quarantined(&status.quarantined, status.quarantined_total));
        sections.push(runs(&status.runs, now));
    }
    sections.retain(|section| !section.is_empty());
    sections.join("\n")
}

fn head(status: &SyncStatus, now: i64) -> String {
    let leader = match status.leader.as_str() {
        "" => "none: nothing is mirrored, what was mirrored stays".to_owned(),
        leader => format!("{leader}, reported {}", since(status.reported_at.as_ref(), now)),
    };
    let other = if status.answered_by == status.leader { "" } else { status.answered_by.as_str() };
    fields([
        ("mirror", status.service.clone()),
        ("leader", leader),
        ("asked", other.to_owned()),
        ("counts", if status.leader.is_empty() { String::new() } else { counts(&status.counts) }),
    ])
}

fn sources(sources: &[SyncSource], now: i64) -> String {
    let rows = sources.iter().map(|source| {
        [
            source.name.clone(),
            source.kind.clone(),
            state(source.state()).to_owned(),
            since(source.last_success.as_ref(), now),
            source.failures.to_string(),
            source.error.clone(),
        ]
    });
    section(["SOURCE", "KIND", "STATE", "LAST SUCCESS", "FAILURES", "ERROR"], rows, sources.len() as u64)
}

fn held(held: &[HeldChange], total: u64, now: i64) -> String {
    let rows = held.iter().map(|change| {
        [
            change.id.clone(),
            word(change.reason().as_str_name(), "HOLD_REASON_"),
            change.subject.clone(),
            format!("{}/{}", change.affected, change.total),
            since(change.held_since.as_ref(), now),
            until(change.believed_at.as_ref(), now),
            change.summary.clone(),
        ]
    });
    let header = ["HELD CHANGE", "REASON", "SUBJECT", "AFFECTED", "SINCE", "BELIEVED", "SUMMARY"];
    section(header, rows, total)
}

fn quarantined(quarantined: &[Quarantined], total: u64) -> String {
    let rows =
        quarantined.iter().map(|thing| [thing.subject.clone(), thing.source.clone(), thing.why.clone()]);
    section(["LEFT OUT", "SOURCE", "WHY"], rows, total)
}

fn runs(runs: &[SyncRun], now: i64) -> String {
    let rows = runs.iter().map(|run| {
        let took = run.elapsed.and_then(|elapsed| Duration::try_from(elapsed).ok());
        [
            since(run.began_at.as_ref(), now),
            took.map(|took| format!("{took:.1?}")).unwrap_or_default(),
            counts(&run.counts),
            run.error.clone(),
        ]
    });
    section(["LAST SYNCS", "TOOK", "COUNTS", "ERROR"], rows, runs.len() as u64)
}

/// A table, and how many of `total` things it leaves out; nothing if there is nothing.
fn section<const N: usize>(
    header: [&str; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
    total: u64,
) -> String {
    let shown = rows.len().min(ROWS) as u64;
    if shown == 0 {
        return String::new();
    }
    let mut text = table(header, rows.take(ROWS));
    if total > shown {
        text.push_str(&format!("and {} more; --json has up to 1000\n", total - shown));
    }
    text
}

fn state(state: SourceState) -> &'static str {
    match state {
        SourceState::Unspecified | SourceState::Pending => "pending",
        SourceState::Ok => "ok",
        // The one that a person must not overlook.
        SourceState::Failing => "FAILING",
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
    plain(&counts.join(" "))
}

/// How long ago something was.
fn since(at: Option<&Timestamp>, now: i64) -> String {
    match at.map(|at| now - at.seconds) {
        None => "never".to_owned(),
        Some(seconds) => format!("{} ago", span(seconds)),
    }
}

/// How far ahead something is.
fn until(at: Option<&Timestamp>, now: i64) -> String {
    match at.map(|at| at.seconds - now) {
        None => "when accepted".to_owned(),
        Some(seconds) => format!("in {}", span(seconds)),
    }
}

/// Two units are exact enough. Clocks that differ do not make a span negative.
fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..172_800 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::sync::HoldReason;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds: 1_800_000_000 + seconds, nanos: 0 })
    }

    fn told(told: &SyncStatus) -> String {
        status(told, 1_800_000_000)
    }

    fn full() -> SyncStatus {
        let dc1 = SyncSource {
            name: "dc-1".to_owned(),
            kind: "nacos".to_owned(),
            state: SourceState::Failing.into(),
            last_success: at(-3_720),
            last_attempt: at(-1),
            error: "no answer\u{1b}[2J within 5s".to_owned(),
            failures: 12,
        };
        let dc2 = SyncSource {
            name: "dc-2".to_owned(),
            kind: "nacos".to_owned(),
            state: SourceState::Ok.into(),
            last_success: at(-4),
            ..SyncSource::default()
        };
        let new = SyncSource { name: "new".to_owned(), kind: "file".to_owned(), ..SyncSource::default() };
        let held = HeldChange {
            id: "c0ffee".to_owned(),
            reason: HoldReason::InstanceDrop.into(),
            subject: "payment@dc-2".to_owned(),
            summary: "12 of 20 instances vanished".to_owned(),
            held_since: at(-72),
            believed_at: at(228),
            affected: 12,
            total: 20,
            items: Vec::new(),
        };
        let left_out = Quarantined {
            subject: "orders 10.0.0.9:8080".to_owned(),
            source: "dc-2".to_owned(),
            why: "has no version".to_owned(),
        };
        let run = SyncRun {
            began_at: at(-30),
            elapsed: Some(Duration::from_millis(412).into()),
            error: String::new(),
            counts: [("written".to_owned(), 3), ("unchanged".to_owned(), 97)].into(),
        };
        let failed = SyncRun {
            began_at: at(-200_000),
            elapsed: Some(Duration::from_secs(5).into()),
            error: "dc-1: no answer".to_owned(),
            counts: BTreeMap::new(),
        };
        SyncStatus {
            service: "registry-sync".to_owned(),
            leader: "sync-a".to_owned(),
            answered_by: "sync-b".to_owned(),
            reported_at: at(-2),
            sources: vec![dc1, dc2, new],
            counts: [("ready".to_owned(), 1_988), ("held".to_owned(), 12)].into(),
            held: vec![held],
            held_total: 1,
            quarantined: vec![left_out],
            quarantined_total: 1_201,
            runs: vec![run, failed],
            handled: Vec::new(),
        }
    }

    #[test]
    fn a_status_tells_sources_and_what_is_held_and_left_out() {
        insta::assert_snapshot!(told(&full()), @"
        mirror  registry-sync
        leader  sync-a, reported 2s ago
        asked   sync-b
        counts  held=12 ready=1988

        SOURCE  KIND   STATE    LAST SUCCESS  FAILURES  ERROR
        dc-1    nacos  FAILING  1h02m ago     12        no answer [2J within 5s
        dc-2    nacos  ok       4s ago        0         -
        new     file   pending  never         0         -

        HELD CHANGE  REASON         SUBJECT       AFFECTED  SINCE      BELIEVED  SUMMARY
        c0ffee       instance drop  payment@dc-2  12/20     1m12s ago  in 3m48s  12 of 20 instances vanished

        LEFT OUT              SOURCE  WHY
        orders 10.0.0.9:8080  dc-2    has no version
        and 1200 more; --json has up to 1000

        LAST SYNCS  TOOK     COUNTS                  ERROR
        30s ago     412.0ms  unchanged=97 written=3  -
        2d ago      5.0s     -                       dc-1: no answer
        ");
    }

    #[test]
    fn a_mirror_in_good_order_has_no_tables_of_trouble() {
        let status = SyncStatus {
            service: "tenant-sync".to_owned(),
            leader: "a".to_owned(),
            answered_by: "a".to_owned(),
            reported_at: at(1),
            ..SyncStatus::default()
        };
        insta::assert_snapshot!(told(&status), @"
        mirror  tenant-sync
        leader  a, reported 0s ago
        ");
    }

    #[test]
    fn without_a_leader_nothing_else_is_told() {
        let status = SyncStatus { leader: String::new(), ..full() };
        insta::assert_snapshot!(told(&status), @"
        mirror  registry-sync
        leader  none: nothing is mirrored, what was mirrored stays
        asked   sync-b
        ");
    }

    #[test]
    fn a_change_that_time_does_not_confirm_says_so() {
        let held = HeldChange { id: "x".to_owned(), held_since: at(-5), ..HeldChange::default() };
        let status = SyncStatus { held: vec![held], held_total: 1, leader: "a".to_owned(), ..full() };
        assert!(told(&status).contains("when accepted"), "{}", told(&status));
    }
}
