//! How far the routers are with a revision.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grey_core::change::Position;
use grey_proto::control::{RouterProgress, RouterState, RouterStatus};
use grey_proto::convert::timestamp;
use grey_state::heartbeats::{Goodbye, Heartbeat};

use super::Look;
use super::members::{MAX_MEMBERS, Member, Standing};

/// Most routers that one answer names.
const NAMED: usize = 1_000;
/// Most routers that one message for people names.
const TOLD: usize = 10;

/// What is known of the routers: who counts, and what the live ones say.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// As noted in the control database.
    members: BTreeMap<String, Member>,
    /// As last seen, noted or not: a router that was seen once counts, though it may be forgotten everywhere else.
    seen: BTreeMap<String, Member>,
    /// Who is live, and before when that was asked.
    live: BTreeMap<String, Heartbeat>,
    at_ms: u64,
    left: BTreeSet<Goodbye>,
    /// Who has applied what is waited for, though it may have fallen silent since.
    applied: BTreeSet<String>,
}

impl Known {
    /// Takes over what is noted.
    pub(super) fn read(&mut self, members: Vec<Member>) {
        self.members = members.into_iter().map(|member| (member.id.clone(), member)).collect();
    }

    /// Takes over what shared state tells.
    pub(super) fn see(&mut self, look: &Look) {
        self.live.clone_from(&look.live);
        self.at_ms = look.at_ms;
        self.left.clone_from(&look.left);
        for (id, beat) in &look.live {
            let seen = match self.seen.get(id).or_else(|| self.members.get(id)) {
                Some(before) => Member::seen_again(before, beat, 0),
                None => Member::seen(beat, 0),
            };
            self.seen.insert(id.clone(), seen);
        }
    }

    /// The live routers that are not noted as members, as they are to be noted; of so many that there is no room, none.
    pub(super) fn newcomers(&self) -> Vec<Member> {
        let is_noted =
            |id: &String| self.members.get(id).is_some_and(|member| member.standing == Standing::Member);
        let new =
            self.live.iter().filter(|(id, _)| !is_noted(id)).map(|(_, beat)| Member::seen(beat, self.at_ms));
        let new: Vec<Member> = new.collect();
        if self.members.len() + new.len() > MAX_MEMBERS { Vec::new() } else { new }
    }

    /// Shared state tells nothing: nobody is known to have applied anything.
    pub(super) fn see_nobody(&mut self) {
        self.live.clear();
    }

    /// How each router stands towards `target`, by id; with `former`, also each that does not count any more.
    pub(super) fn states(&self, target: &Position, former: bool) -> Vec<RouterState> {
        let unnoted = self.seen.values().filter(|member| !self.members.contains_key(&member.id));
        let mut all: Vec<&Member> = self.members.values().chain(unnoted).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        let states = all.into_iter().map(|member| match self.live.get(&member.id) {
            Some(beat) => live(member, beat, target),
            None => silent(member, self.standing(member)),
        });
        states.filter(|state| former || counts(state)).collect()
    }

    /// How a router stands that is not live. The goodbye of a run before the one that was seen last says nothing.
    fn standing(&self, member: &Member) -> Standing {
        let seen = self.seen.get(&member.id);
        match member.standing {
            Standing::Dismissed => Standing::Dismissed,
            _ if self.left.contains(&seen.unwrap_or(member).goodbye()) => Standing::Left,
            _ if seen.is_some() => Standing::Member,
            noted => noted,
        }
    }

    /// How far the routers that count are. One that has applied it once stays so: a router never goes back.
    pub(super) fn progress(
        &mut self,
        target: &Position,
        elapsed: Duration,
        fault: Option<&str>,
    ) -> RouterProgress {
        let mut routers = self.states(target, false);
        for state in &mut routers {
            if has_applied(state) {
                self.applied.insert(state.id.clone());
            } else if state.status() == RouterStatus::Unreachable && self.applied.contains(&state.id) {
                state.set_status(RouterStatus::Applied);
            }
        }
        let (total, applied) = (routers.len(), routers.iter().filter(|state| has_applied(state)).count());
        routers.sort_by_key(has_applied);
        routers.truncate(NAMED);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        RouterProgress {
            applied: count(applied),
            total: count(total),
            routers,
            elapsed: Some(elapsed.into()),
            complete: fault.is_none() && applied > 0 && applied == total,
            fault: fault.unwrap_or_default().to_owned(),
        }
    }
}

/// Whether a router's table is known to be the present one.
fn is_current(beat: &Heartbeat) -> bool {
    !beat.stale
}

fn has_applied(state: &RouterState) -> bool {
    state.status() == RouterStatus::Applied
}

/// Whether the router may still answer.
fn counts(state: &RouterState) -> bool {
    !matches!(state.status(), RouterStatus::Left | RouterStatus::Dismissed | RouterStatus::Gone)
}

fn live(member: &Member, beat: &Heartbeat, target: &Position) -> RouterState {
    let reached = beat.position.epoch == target.epoch && beat.position.revision >= target.revision;
    let status = match (is_current(beat), reached) {
        (false, _) => RouterStatus::NotCurrent,
        (true, true) => RouterStatus::Applied,
        (true, false) => RouterStatus::Behind,
    };
    RouterState {
        address: beat.address.clone(),
        region: beat.region.clone(),
        zone: beat.zone.clone(),
        epoch: beat.position.epoch.0,
        revision: beat.position.revision.0,
        digest: beat.digest,
        stale: beat.stale,
        level: beat.level.0,
        lease: Some(beat.lease.into()),
        remark: String::new(),
        ..described(member, status)
    }
}

/// A router that is not live.
pub(super) fn silent(member: &Member, standing: Standing) -> RouterState {
    let status = match standing {
        Standing::Member => RouterStatus::Unreachable,
        Standing::Left => RouterStatus::Left,
        Standing::Dismissed => RouterStatus::Dismissed,
        Standing::Gone => RouterStatus::Gone,
    };
    described(member, status)
}

fn described(member: &Member, status: RouterStatus) -> RouterState {
    let seen = |at_ms: u64| (at_ms > 0).then(|| timestamp(at_ms));
    RouterState {
        id: member.id.clone(),
        address: member.address.clone(),
        region: member.region.clone(),
        zone: member.zone.clone(),
        lease: Some(Duration::from_millis(member.lease_ms).into()),
        status: status.into(),
        first_seen: seen(member.first_seen_ms),
        last_seen: seen(member.last_seen_ms),
        remark: member.remark.clone(),
        ..RouterState::default()
    }
}

/// Who has not applied it, for people.
pub(crate) fn missing(progress: &RouterProgress) -> String {
    if !progress.fault.is_empty() {
        return progress.fault.clone();
    }
    let behind = progress.routers.iter().filter(|state| !has_applied(state));
    let mut named: Vec<String> = behind
        .map(|state| match state.status() {
            RouterStatus::Behind => format!("`{}` is behind, at revision {}", state.id, state.revision),
            RouterStatus::NotCurrent => format!("`{}` is not current", state.id),
            _ => format!("`{}` is unreachable", state.id),
        })
        .collect();
    if named.is_empty() {
        return "no router is known".to_owned();
    }
    let more = named.len().saturating_sub(TOLD);
    named.truncate(TOLD);
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_core::change::{Epoch, FormatLevel, Revision};

    const RUN: u64 = 7;

    fn at(epoch: u64, revision: u64) -> Position {
        Position { epoch: Epoch(epoch), revision: Revision(revision) }
    }

    fn beat(router: &str, position: Position, stale: bool) -> Heartbeat {
        Heartbeat {
            router: router.to_owned(),
            run: RUN,
            address: "10.0.0.1:7400".to_owned(),
            region: String::new(),
            zone: String::new(),
            position,
            digest: 0,
            stale,
            level: FormatLevel::CURRENT,
            lease: Duration::from_secs(10),
        }
    }

    fn look(beats: Vec<Heartbeat>, left: &[&str]) -> Look {
        let live = beats.into_iter().map(|beat| (beat.router.clone(), beat)).collect();
        let left = left.iter().map(|id| Goodbye { router: (*id).to_owned(), run: RUN });
        Look { at_ms: 2, live, left: left.collect() }
    }

    fn told(progress: &RouterProgress) -> Vec<(&str, RouterStatus)> {
        progress.routers.iter().map(|state| (state.id.as_str(), state.status())).collect()
    }

    fn progress(known: &mut Known) -> RouterProgress {
        known.progress(&at(2, 5), Duration::ZERO, None)
    }

    #[test]
    fn only_a_current_table_of_the_same_history_counts() {
        let beats = vec![
            beat("ahead", at(2, 6), false),
            beat("foreign", at(3, 9), false),
            beat("older", at(1, 9), false),
            beat("stale", at(2, 5), true),
        ];
        let mut known = Known::default();
        known.see(&look(beats, &[]));
        let (behind, not_current) = (RouterStatus::Behind, RouterStatus::NotCurrent);
        let expected = [
            ("foreign", behind),
            ("older", behind),
            ("stale", not_current),
            ("ahead", RouterStatus::Applied),
        ];
        let progress = progress(&mut known);
        assert_eq!((told(&progress), progress.applied, progress.complete), (expected.to_vec(), 1, false));
        assert_eq!(
            missing(&progress),
            "`foreign` is behind, at revision 9, `older` is behind, at revision 9, `stale` is not current"
        );
    }

    #[test]
    fn whoever_is_live_and_no_member_is_to_be_noted() {
        let beats = ["a", "b", "c"].map(|id| beat(id, at(2, 5), false));
        let member = |index: usize, standing| Member { standing, ..Member::seen(&beats[index], 1) };
        let mut known = Known::default();
        known.see(&look(beats.to_vec(), &[]));
        known.read(vec![member(0, Standing::Member), member(1, Standing::Gone)]);
        let noted: Vec<String> = known.newcomers().into_iter().map(|member| member.id).collect();
        assert_eq!(noted, ["b", "c"]);
        known.see_nobody();
        assert!(known.newcomers().is_empty());
    }

    #[test]
    fn who_was_seen_once_counts_and_who_has_applied_it_once_has_it() {
        let mut known = Known::default();
        known.see(&look(vec![beat("a", at(2, 5), false), beat("b", at(2, 4), false)], &[]));
        assert!(!progress(&mut known).complete);
        known.see(&look(Vec::new(), &[]));
        let lost = progress(&mut known);
        assert_eq!(told(&lost), [("b", RouterStatus::Unreachable), ("a", RouterStatus::Applied)]);
        let earlier = [Goodbye { router: "b".to_owned(), run: RUN - 1 }].into();
        known.see(&Look { left: earlier, ..look(Vec::new(), &[]) });
        assert!(!progress(&mut known).complete, "of the run before");
        known.see(&look(Vec::new(), &["b"]));
        assert!(progress(&mut known).complete, "a goodbye is heard at once");
        known.see_nobody();
        assert!(!known.progress(&at(2, 5), Duration::ZERO, Some("shared state does not answer")).complete);
        assert!(!progress(&mut Known::default()).complete, "nobody having it is no success");
    }
}
