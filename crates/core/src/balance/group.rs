//! A set of instances prepared for one strategy.

use super::load::{LATENCY_FLOOR_US, Reporting};
use super::ring::Ring;
use super::turns::Turns;
use super::{LOAD_BOUND, Moment, sequence};
use crate::hash::bucket;
use crate::policy::Strategy;
use crate::table::Member;
use std::sync::Arc;

/// Most instances looked at to know how much an even share is.
const SAMPLE: usize = 64;
/// Most points of the ring looked at to find an instance with room.
const WALK: usize = 1_024;
/// Lowest share of successes that is believed.
///
/// Nobody falls to nothing: without calls an instance could never show that it is well again.
const LEAST_SUCCESS: f32 = 0.02;
/// Share of the ended calls whose end must have been reported for calls under way to mean anything.
const REPORTED_SHARE: f32 = 0.9;

/// The routable instances of a version in one place (everywhere, a region or a zone).
#[derive(Debug, Default)]
pub struct Group {
    strategy: Strategy,
    /// Indexes into the pool's members; a smooth weighted cycle for the weighted round robin, else each once.
    picks: Box<[u16]>,
    ring: Ring,
    /// Sum of the weights.
    weight: u64,
    /// None if the strategy takes no turns.
    turns: Option<Arc<Turns>>,
}

impl Group {
    /// Prepares the routable ones of `members` that `fits` for `strategy`, going on where `before` was.
    pub(crate) fn new(
        members: &[Member],
        fits: impl Fn(&Member) -> bool,
        strategy: Strategy,
        before: Option<&Self>,
    ) -> Self {
        let chosen: Vec<(u16, &Member)> =
            (0..u16::MAX).zip(members).filter(|(_, m)| m.instance.is_routable() && fits(m)).collect();
        let picks = if strategy == Strategy::WeightedRoundRobin {
            let weights: Vec<_> = chosen.iter().map(|(i, m)| (*i, m.instance.weight)).collect();
            sequence::interleave(&weights)
        } else {
            chosen.iter().map(|(i, _)| *i).collect()
        };
        let ring = if strategy == Strategy::ConsistentHash {
            let named: Vec<_> =
                chosen.iter().map(|(i, m)| (*i, m.instance.id.as_str(), m.instance.weight)).collect();
            Ring::new(&named)
        } else {
            Ring::default()
        };
        let weight = chosen.iter().map(|(_, member)| u64::from(member.instance.weight)).sum();
        let takes_turns = matches!(strategy, Strategy::RoundRobin | Strategy::WeightedRoundRobin);
        let turns =
            takes_turns.then(|| before.and_then(|before| before.turns.clone()).unwrap_or_else(Turns::new));
        Self { strategy, picks, ring, weight, turns }
    }

    /// Whether nothing here can serve.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// Sum of the weights of those who can serve.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// What decides which zone serves a call: its key where keys stay together, else chance.
    ///
    /// Mixed, so that it is independent of what the choice within the zone depends on.
    pub(crate) fn zone_point(&self, key: u32, moment: &Moment) -> u32 {
        high(mix(if self.strategy == Strategy::ConsistentHash { u64::from(key) } else { moment.random }))
    }

    /// Chooses a member. With `peek` the live figures and the turn stay as they are.
    pub(crate) fn choose<'m>(
        &self,
        members: &'m [Member],
        key: u32,
        moment: &Moment,
        peek: bool,
    ) -> Option<&'m Member> {
        let now = moment.now;
        let member = |pick: u16| members.get(usize::from(pick));
        let chosen = match self.strategy {
            Strategy::RoundRobin | Strategy::WeightedRoundRobin => {
                return member(self.nth(self.turn(moment, peek))?);
            }
            Strategy::Random => return member(self.nth_random(low(moment.random))?),
            Strategy::HealthAware => self.by_health(members, moment),
            Strategy::LeastConnections => {
                self.better_of_two(members, moment, |m| (m.load.calls(now) + 1.0) / weight(m))
            }
            Strategy::PeakEwma => self.better_of_two(members, moment, |m| {
                m.load.latency_us(now).max(LATENCY_FLOOR_US) * (m.load.calls(now) + 1.0) / weight(m)
            }),
            Strategy::ConsistentHash => self.on_ring(members, key, moment),
        }?;
        if !peek {
            chosen.load.assign(now);
        }
        Some(chosen)
    }

    fn turn(&self, moment: &Moment, peek: bool) -> u64 {
        match (moment.turn, &self.turns) {
            (Some(turn), _) => turn,
            (None, Some(turns)) if peek => turns.peek(moment.core),
            (None, Some(turns)) => turns.take(moment.core),
            (None, None) => 0,
        }
    }

    fn nth(&self, turn: u64) -> Option<u16> {
        let length = self.picks.len() as u64;
        if length == 0 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "smaller than the length")]
        let index = (turn % length) as usize;
        self.picks.get(index).copied()
    }

    fn nth_random(&self, random: u32) -> Option<u16> {
        let length = u32::try_from(self.picks.len()).unwrap_or(u32::MAX);
        self.picks.get(bucket(random, length) as usize).copied()
    }

    /// Two at random, the lower burden wins: nearly as good as looking at all, at the price of two.
    fn better_of_two<'m>(
        &self,
        members: &'m [Member],
        moment: &Moment,
        burden: impl Fn(&Member) -> f32,
    ) -> Option<&'m Member> {
        let first = self.nth_random(low(moment.random))?;
        let mut second = self.nth_random(high(moment.random))?;
        if second == first {
            let next = self.picks.iter().position(|p| *p == first).unwrap_or(0) + 1;
            second = self.nth(next as u64)?;
        }
        let (first, second) = (members.get(usize::from(first))?, members.get(usize::from(second))?);
        let failing = [first.load.failing(moment.now), second.load.failing(moment.now)];
        let burdens = [burden(first), burden(second)];
        let costs = [
            cost_of_failing(burdens[0], burdens[1], failing[0]),
            cost_of_failing(burdens[1], burdens[0], failing[1]),
        ];
        Some(if costs[1] < costs[0] { second } else { first })
    }

    fn by_health<'m>(&self, members: &'m [Member], moment: &Moment) -> Option<&'m Member> {
        let score = |m: &Member| m.load.success().max(LEAST_SUCCESS) * weight(m);
        let candidates = || self.picks.iter().filter_map(|p| members.get(usize::from(*p)));
        let total: f32 = candidates().map(score).sum();
        #[expect(clippy::cast_precision_loss, reason = "24 random bits are plenty")]
        let mut point = (low(moment.random) >> 8) as f32 / (1u32 << 24) as f32 * total;
        let mut last = None;
        for candidate in candidates() {
            last = Some(candidate);
            point -= score(candidate);
            if point < 0.0 {
                break;
            }
        }
        last
    }

    /// The key's own member, or the next one on the ring that carries less than its bounded share.
    fn on_ring<'m>(&self, members: &'m [Member], key: u32, moment: &Moment) -> Option<&'m Member> {
        let on_the_way = || self.ring.from(key).take(WALK).filter_map(|i| members.get(usize::from(i)));
        let own = on_the_way().next()?;
        #[expect(clippy::cast_precision_loss, reason = "a weight needs no more than 24 bits")]
        let whole = self.weight.max(1) as f32;
        let per_weight = (self.carried(members, moment) + 1.0) * LOAD_BOUND / whole;
        let has_room = |m: &&Member| m.load.calls(moment.now) < (per_weight * weight(m)).max(1.0);
        if has_room(&own) || !self.ends_are_reported(members, own, moment) {
            return Some(own);
        }
        on_the_way().find(has_room).or(Some(own))
    }

    /// Calls that weigh on the whole group, estimated from some of a large one.
    ///
    /// Summed at each choice and not counted along, because reports end calls instance by instance.
    #[expect(clippy::cast_precision_loss, reason = "a group is far smaller than 2^24")]
    fn carried(&self, members: &[Member], moment: &Moment) -> f32 {
        let sample = self.sample();
        let seen = sample.len().max(1);
        let calls: f32 =
            sample.filter_map(|pick| members.get(usize::from(*pick))).map(|m| m.load.calls(moment.now)).sum();
        calls * self.picks.len() as f32 / seen as f32
    }

    /// Whether callers report how their calls end, so that calls under way can be told from ended ones.
    ///
    /// They do if the ends of nearly all calls that are no longer under way were reported, and if lately as
    /// many were as there are calls under way: a report now and then proves nothing.
    fn ends_are_reported(&self, members: &[Member], own: &Member, moment: &Moment) -> bool {
        let of_sample = self.sample().filter_map(|pick| members.get(usize::from(*pick)));
        let mut all = Reporting::default();
        for member in of_sample.chain([own]) {
            let one = member.load.reporting(moment.now);
            all.sent += one.sent;
            all.ended += one.ended;
            all.under_way += one.under_way;
        }
        all.ended >= all.under_way && all.ended >= REPORTED_SHARE * (all.sent - all.under_way)
    }

    fn sample(&self) -> impl ExactSizeIterator<Item = &u16> {
        self.picks.iter().step_by(self.picks.len().div_ceil(SAMPLE).max(1))
    }
}

/// What a member's burden counts for beside another's, by the share of its calls that fail.
///
/// A quick failure looks like little load and low latency. So as far as a member fails, it counts
/// as no less burdened than the other; and each call that it fails has to be made again.
fn cost_of_failing(burden: f32, other: f32, failing: f32) -> f32 {
    (burden + failing * (other - burden).max(0.0)) / (1.0 - failing).max(LEAST_SUCCESS)
}

fn weight(member: &Member) -> f32 {
    // At most MAX_WEIGHT, so it fits.
    u16::try_from(member.instance.weight).map_or(f32::from(u16::MAX), f32::from).max(1.0)
}

fn low(random: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
    let low = random as u32;
    low
}

fn high(random: u64) -> u32 {
    low(random >> 32)
}

/// The finishing step of `SplitMix64`: every bit of the result depends on every bit given.
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
