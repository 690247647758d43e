//! Changes of one kind that wait for confirmation.

use std::collections::BTreeMap;
use std::time::Instant;

use grey_core::hash::unit_hash;
use grey_core::ids::InstanceId;
use grey_core::version::Version;

use super::options::Guard;
use crate::probe::Verdict;

/// Refusals in a row that prove an instance gone.
const REFUSALS: u8 = 2;

/// What is claimed of an instance: its version from now on, or none.
pub(super) type Claim = Option<Version>;

/// What is held of one kind, of one service at one source.
#[derive(Debug)]
pub(super) struct Hold {
    /// Tells it from all others: the kind, the service and the source.
    label: String,
    /// Names what is held: it changes whenever something is added, so that nobody accepts what was never shown.
    pub(super) id: String,
    members: BTreeMap<InstanceId, Member>,
}

/// One instance in question.
#[derive(Debug)]
struct Member {
    claim: Claim,
    since: Instant,
    /// From when on the source has told the same without interruption.
    steady: Instant,
    asked: Option<Instant>,
    answer: Option<Answer>,
    refusals: u8,
    confirmed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Alive,
    Nothing,
}

/// What confirms by time.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceSighting {
    /// When the source last reported the service.
    pub(super) reported: Instant,
    /// It lists other instances of the service.
    pub(super) lists_others: bool,
}

/// What became of the candidates.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// Believed for a reason.
    pub(super) confirmed: Vec<InstanceId>,
    /// Let through without question.
    pub(super) unquestioned: Vec<InstanceId>,
}

impl Hold {
    pub(super) fn new(label: String) -> Self {
        Self { label, id: String::new(), members: BTreeMap::new() }
    }

    /// Decides on all changes that the source claims now. At most `room` new ones pass without question, together or not
    /// at all; none while others are held.
    pub(super) fn admit(
        &mut self,
        mut candidates: BTreeMap<InstanceId, Claim>,
        room: usize,
        guard: &Guard,
        sighting: SourceSighting,
        now: Instant,
    ) -> Admitted {
        let mut admitted = Admitted::default();
        // Whoever came back, or claims something else now, is no longer in question for what it claimed before.
        self.members.retain(|id, member| candidates.get(id) == Some(&member.claim));
        self.members.retain(|id, member| {
            candidates.remove(id);
            let passes = member.confirmed || member.believed(guard, sighting);
            if passes {
                admitted.confirmed.push(id.clone());
            }
            !passes
        });
        if candidates.is_empty() {
            return admitted;
        }
        if self.members.is_empty() && candidates.len() <= room {
            admitted.unquestioned = candidates.into_keys().collect();
            return admitted;
        }
        for (id, claim) in candidates {
            let member = Member {
                claim,
                since: now,
                steady: now,
                asked: None,
                answer: None,
                refusals: 0,
                confirmed: false,
            };
            self.members.insert(id, member);
        }
        self.id = self.name();
        admitted
    }

    fn name(&self) -> String {
        let mut parts: Vec<&str> = vec!["", &self.label];
        for (id, member) in &self.members {
            parts.push(id.as_str());
            parts.push(member.claim.as_ref().map_or("", Version::as_str));
        }
        let first = unit_hash(&parts);
        parts[0] = "more";
        format!("{first:08x}{:08x}", unit_hash(&parts))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.members.clear();
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &InstanceId> {
        self.members.keys()
    }

    pub(super) fn contains(&self, id: &InstanceId) -> bool {
        self.members.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// What each is claimed to be.
    pub(super) fn claims(&self) -> impl Iterator<Item = (&InstanceId, &Claim)> {
        self.members.iter().map(|(id, member)| (id, &member.claim))
    }

    /// Since when something is held.
    pub(super) fn since(&self) -> Option<Instant> {
        self.members.values().map(|member| member.since).min()
    }

    /// When all of it will be believed if the source keeps telling so; none if it never will.
    pub(super) fn believed_at(&self, guard: &Guard, lists_others: bool) -> Option<Instant> {
        let believable = self.members.values().all(|member| member.is_believable(lists_others));
        let last = self.members.values().map(|member| member.steady + guard.confirm_after).max();
        last.filter(|_| believable)
    }

    /// When the first of it may be believed.
    pub(super) fn next_belief(&self, guard: &Guard, lists_others: bool) -> Option<Instant> {
        let believable = self.members.values().filter(|member| member.is_believable(lists_others));
        believable.map(|member| member.steady + guard.confirm_after).min()
    }

    /// The source could not be read: what it tells is not told without interruption.
    pub(super) fn interrupt(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.steady = now;
        }
    }

    /// Believes all of it, if it is called `id`.
    pub(super) fn accept(&mut self, id: &str) -> bool {
        let meant = !self.is_empty() && self.id == id;
        if meant {
            self.members.values_mut().for_each(|member| member.confirmed = true);
        }
        meant
    }

    /// Believes it of the instances that are `meant`. Whether there are any.
    pub(super) fn confirm(&mut self, meant: impl Fn(&InstanceId) -> bool) -> bool {
        let mut any = false;
        for (_, member) in self.members.iter_mut().filter(|(id, _)| meant(id)) {
            (member.confirmed, any) = (true, true);
        }
        any
    }

    /// The instances that have not been asked since `before`, which are now held to be asked.
    pub(super) fn ask(&mut self, before: Option<Instant>, now: Instant, limit: usize) -> Vec<InstanceId> {
        let mut due = Vec::new();
        for (id, member) in &mut self.members {
            if due.len() == limit {
                break;
            }
            if member.asked.is_none_or(|asked| before.is_some_and(|before| asked <= before)) {
                member.asked = Some(now);
                due.push(id.clone());
            }
        }
        due
    }

    /// An instance that is claimed to be lost was asked itself.
    pub(super) fn probed_for_life(&mut self, id: &InstanceId, verdict: &Verdict) {
        let Some(member) = self.members.get_mut(id) else { return };
        match verdict {
            Verdict::Alive { .. } => (member.answer, member.refusals) = (Some(Answer::Alive), 0),
            Verdict::Unknown => (member.answer, member.refusals) = (Some(Answer::Nothing), 0),
            Verdict::Refused => {
                member.answer = Some(Answer::Nothing);
                member.refusals += 1;
                member.confirmed |= member.refusals >= REFUSALS;
            }
        }
    }

    /// An instance that is claimed to have another version was asked itself.
    pub(super) fn probed_for_version(&mut self, id: &InstanceId, verdict: &Verdict) {
        let Some(member) = self.members.get_mut(id) else { return };
        let Verdict::Alive { version: Some(answered) } = verdict else { return };
        let answered = Version::new(answered.trim()).ok();
        member.confirmed |= answered.is_some() && answered == member.claim;
    }
}

impl Member {
    fn believed(&self, guard: &Guard, sighting: SourceSighting) -> bool {
        sighting.reported >= self.steady + guard.confirm_after && self.is_believable(sighting.lists_others)
    }

    /// An empty list alone is no proof against an instance that answers, nor against one that nobody asked.
    fn is_believable(&self, lists_others: bool) -> bool {
        lists_others || self.answer == Some(Answer::Nothing)
    }
}
