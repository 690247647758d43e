//! Notes what shared state tells of the routers, and has those asked that fell silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use grey_runtime::Health;
use opentelemetry::metrics::Meter;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::members::{MAX_MEMBERS, Member, Standing};
use super::probe::Prober;
use super::{Error, Fleet, Look};
use crate::command::{chain, now_ms};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Keeps up which routers count. Every replica does so.
pub(crate) struct Watch {
    fleet: Arc<Fleet>,
    prober: Prober,
    health: Health,
    seen: Arc<Seen>,
}

/// What the gauges show.
#[derive(Debug, Default)]
struct Seen {
    members: AtomicU64,
    silent: AtomicU64,
}

/// What one look changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Notes {
    /// Seen for the first time, again, or with another description.
    put: Vec<Member>,
    /// Said goodbye.
    left: Vec<Member>,
    /// Members that are not live, and said no goodbye.
    silent: Vec<Member>,
    /// Former ones that make room.
    forget: Vec<String>,
    /// Routers that find none.
    refused: usize,
}

impl Watch {
    pub(crate) fn new(fleet: Arc<Fleet>, prober: Prober, health: Health, meter: &Meter) -> Self {
        let seen = Arc::new(Seen::default());
        gauges(meter, &seen);
        Self { fleet, prober, health, seen }
    }

    /// Looks, notes and asks until `token` is cancelled.
    pub(crate) async fn run(self, token: CancellationToken) {
        let Self { fleet, prober, health, seen } = self;
        let (silent, asked) = watch::channel(Vec::new());
        let look = async {
            let mut failing = false;
            loop {
                let noted = note(&fleet, &silent, &seen).await;
                match &noted {
                    Err(error) if !failing => {
                        tracing::warn!(error = %chain(error), "routers cannot be followed; those known go on counting");
                    }
                    Ok(()) if failing => tracing::info!("routers can be followed again"),
                    Ok(()) | Err(_) => {}
                }
                failing = noted.is_err();
                let (members, silent) = (seen.members.load(Relaxed), seen.silent.load(Relaxed));
                health.set_detail("routers", format!("{members} count, {silent} of them silent"));
                tokio::time::sleep(EVERY).await;
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = look => {}
            () = prober.run(&fleet, asked) => {}
        }
    }
}

/// Takes one look and writes down what it changes. Where shared state tells nothing, everyone is silent.
async fn note(fleet: &Fleet, silent: &watch::Sender<Vec<Member>>, seen: &Seen) -> Result<(), Error> {
    let now_ms = now_ms();
    let look = fleet.look().await;
    let members = fleet.database.routers().await?;
    let notes = match &look {
        Ok(look) => notes(&members, look, now_ms),
        Err(_) => notes(&members, &Look::default(), now_ms),
    };
    let Notes { put, left, silent: fell_silent, forget, refused } = notes;
    let count = members.iter().filter(|member| member.standing == Standing::Member).count();
    seen.members.store(u64::try_from(count).unwrap_or(u64::MAX), Relaxed);
    seen.silent.store(u64::try_from(fell_silent.len()).unwrap_or(u64::MAX), Relaxed);
    silent.send_replace(fell_silent);
    if refused > 0 {
        tracing::error!(
            routers = refused,
            limit = MAX_MEMBERS,
            "too many routers; dismiss those that are no more"
        );
    }
    fleet.database.forget_routers(&forget).await?;
    fleet.database.put_routers(put).await?;
    for member in left {
        if fleet.database.end_router(&member, Standing::Left, "").await? {
            tracing::info!(router.id = member.id, "router left");
        }
    }
    look.map(drop)
}

/// What changes by a look at `now_ms`.
fn notes(members: &[Member], look: &Look, now_ms: u64) -> Notes {
    let known: BTreeMap<&str, &Member> = members.iter().map(|member| (member.id.as_str(), member)).collect();
    let mut notes = Notes::default();
    let mut new = Vec::new();
    for (id, beat) in &look.live {
        let Some(before) = known.get(id.as_str()) else {
            new.push(Member::seen(beat, now_ms));
            continue;
        };
        let seen = Member::seen_again(before, beat, now_ms);
        match before.standing {
            Standing::Dismissed => tracing::warn!(
                router.id = id,
                remark = before.remark,
                "a router that was dismissed is live; it counts again"
            ),
            Standing::Left | Standing::Gone => tracing::info!(router.id = id, "router is back"),
            Standing::Member => {}
        }
        let is_due = now_ms.saturating_sub(before.last_seen_ms) >= before.lease_ms;
        if is_due || before.standing != Standing::Member || !before.is_described_like(&seen) {
            notes.put.push(seen);
        }
    }
    for member in members.iter().filter(|member| member.standing == Standing::Member) {
        if look.live.contains_key(&member.id) {
            continue;
        }
        if look.left.contains(&member.goodbye()) {
            notes.left.push(member.clone());
        } else {
            notes.silent.push(member.clone());
        }
    }
    make_room(members, new, look, notes)
}

/// Adds new members, in place of the former ones that were seen longest ago where there are too many.
fn make_room(members: &[Member], mut new: Vec<Member>, look: &Look, mut notes: Notes) -> Notes {
    let excess = (members.len() + new.len()).saturating_sub(MAX_MEMBERS);
    let mut former: Vec<&Member> = members
        .iter()
        .filter(|member| member.standing != Standing::Member && !look.live.contains_key(&member.id))
        .collect();
    former.sort_by_key(|member| member.last_seen_ms);
    notes.forget = former.into_iter().take(excess).map(|member| member.id.clone()).collect();
    notes.refused = (excess - notes.forget.len()).min(new.len());
    new.truncate(new.len() - notes.refused);
    notes.put.append(&mut new);
    notes
}

fn gauges(meter: &Meter, seen: &Arc<Seen>) {
    let gauge = |name: &'static str, what: &'static str, read: fn(&Seen) -> u64| {
        let seen = Arc::clone(seen);
        let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            observer.observe(read(&seen), &[]);
        };
        // The meter keeps the callback; the instrument itself is not needed.
        meter.u64_observable_gauge(name).with_description(what).with_callback(observe).build();
    };
    gauge("grey_control_routers", "Routers that count.", |seen| seen.members.load(Relaxed));
    gauge("grey_control_routers_silent", "Routers that count and are not heard of.", |seen| {
        seen.silent.load(Relaxed)
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use grey_core::change::{FormatLevel, Position};
    use grey_state::heartbeats::{Goodbye, Heartbeat};

    const RUN: u64 = 7;
    const LEASE: u64 = 10_000;

    fn beat(id: &str) -> Heartbeat {
        Heartbeat {
            router: id.to_owned(),
            run: RUN,
            address: "10.0.0.1:7400".to_owned(),
            region: String::new(),
            zone: String::new(),
            position: Position::default(),
            digest: 0,
            stale: false,
            level: FormatLevel::CURRENT,
            lease: Duration::from_millis(LEASE),
        }
    }

    fn look(live: &[&str], left: &[&str]) -> Look {
        let live = live.iter().map(|id| ((*id).to_owned(), beat(id))).collect();
        let left = left.iter().map(|id| Goodbye { router: (*id).to_owned(), run: RUN });
        Look { at_ms: 0, live, left: left.collect() }
    }

    fn member(id: &str, standing: Standing, seen_ms: u64) -> Member {
        Member { standing, ..Member::seen(&beat(id), seen_ms) }
    }

    fn ids(members: &[Member]) -> Vec<&str> {
        members.iter().map(|member| member.id.as_str()).collect()
    }

    #[test]
    fn a_router_leaves_by_its_goodbye_and_by_nothing_else() {
        let members = [member("a", Standing::Member, 1), member("b", Standing::Member, 1)];
        let found = notes(&members, &look(&[], &["a"]), 1_000_000);
        assert_eq!((ids(&found.left), ids(&found.silent)), (vec!["a"], vec!["b"]));
        assert!(found.put.is_empty() && found.forget.is_empty());
        let lost = notes(&members, &Look::default(), 1_000_000);
        assert_eq!((ids(&lost.left), ids(&lost.silent)), (vec![], vec!["a", "b"]));
        // Nor does the goodbye of an earlier run say anything.
        let earlier = [Goodbye { router: "a".to_owned(), run: RUN - 1 }].into();
        let back = notes(&members, &Look { left: earlier, ..Look::default() }, 1_000_000);
        assert_eq!((ids(&back.left), ids(&back.silent)), (vec![], vec!["a", "b"]));
        // An earlier goodbye says nothing of a router that is live.
        let back = notes(&members, &look(&["a", "b"], &["a"]), 2);
        assert_eq!(back, Notes::default());
    }

    #[test]
    fn whoever_is_live_counts_whatever_it_was() {
        for standing in [Standing::Left, Standing::Dismissed, Standing::Gone] {
            let found = notes(&[member("a", standing, 5)], &look(&["a", "new"], &[]), 9);
            assert_eq!(ids(&found.put), ["a", "new"], "{standing:?}");
            assert!(found.put.iter().all(|member| member.standing == Standing::Member));
            assert_eq!(found.put[0].first_seen_ms, 5);
        }
    }

    #[test]
    fn a_member_is_written_once_in_a_lease_or_when_it_moves() {
        let known = [member("a", Standing::Member, 1_000)];
        assert!(notes(&known, &look(&["a"], &[]), 1_000 + LEASE - 1).put.is_empty());
        assert_eq!(notes(&known, &look(&["a"], &[]), 1_000 + LEASE).put[0].last_seen_ms, 1_000 + LEASE);
        let restarted = [Member { run: RUN - 1, ..known[0].clone() }];
        assert_eq!(notes(&restarted, &look(&["a"], &[]), 1_001).put[0].run, RUN);
        let unread = [("a".to_owned(), Heartbeat { run: 0, address: String::new(), ..beat("a") })].into();
        let unread = notes(&known, &Look { live: unread, ..Look::default() }, 1_001);
        assert_eq!(unread.put[0].run, RUN, "a heartbeat that does not read back ends no run");
        let moved = [Member { address: "10.0.0.9:7400".to_owned(), ..known[0].clone() }];
        assert_eq!(notes(&moved, &look(&["a"], &[]), 1_001).put[0].address, "10.0.0.1:7400");
    }

    #[test]
    fn the_number_of_routers_is_bounded_and_no_member_makes_room() {
        let id = |at: usize| format!("r{at:05}");
        let mut members: Vec<Member> =
            (0..MAX_MEMBERS - 2).map(|at| member(&id(at), Standing::Member, 1)).collect();
        members.push(member("x-old", Standing::Gone, 1));
        members.push(member("x-older", Standing::Left, 0));
        let found = notes(&members, &look(&["y1"], &[]), 2);
        assert_eq!(
            (found.forget, ids(&found.put), found.refused),
            (vec!["x-older".to_owned()], vec!["y1"], 0)
        );
        let found = notes(&members, &look(&["y1", "y2", "y3"], &[]), 2);
        assert_eq!((found.forget.len(), ids(&found.put), found.refused), (2, vec!["y1", "y2"], 1));
    }
}
