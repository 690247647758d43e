//! A hash ring: the same key finds the same member, and a member that comes or goes moves its own keys only.
//!
//! How many points a member has depends on its own weight alone. So that weights from 1 to 10,000 need
//! few of them, a point reaches as far as its member's weight class: a key belongs to the point that is
//! nearest in proportion to its reach. Points of one class are a circle of their own.

use crate::hash::unit_hash;

/// Points of a member with the least weight of its class; the next class begins at twice as many.
const POINTS: u64 = 96;
/// Weight classes: the powers of two up to the highest weight.
const CLASSES: u32 = u32::BITS - crate::instance::MAX_WEIGHT.leading_zeros();
/// As many of something as there are classes.
type PerClass<T> = [T; CLASSES as usize];

/// Points by hash, each with its member.
type Circle = Box<[(u32, u16)]>;

/// The circles of the weight classes that have members, heaviest first.
#[derive(Debug, Default)]
pub(super) struct Ring(Vec<(u32, Circle)>);

impl Ring {
    /// Places members, given as (index, id, weight); the id decides the places, so they are the same everywhere.
    pub(super) fn new(members: &[(u16, &str, u32)]) -> Self {
        let mut circles: PerClass<Vec<(u32, u16)>> = Default::default();
        for (member, id, weight) in members {
            let class = weight.max(&1).ilog2().min(CLASSES - 1);
            let Some(circle) = circles.get_mut(class as usize) else { continue };
            for point in 0..(u64::from(*weight) * POINTS) >> class {
                circle.push((unit_hash(&[id, &point.to_string()]), *member));
            }
        }
        let filled =
            (0..CLASSES).rev().zip(circles.into_iter().rev()).filter(|(_, circle)| !circle.is_empty());
        let sorted = filled.map(|(class, mut circle)| {
            circle.sort_unstable();
            (class, circle.into_boxed_slice())
        });
        Self(sorted.collect())
    }

    /// Members by the nearness of their points to the key, each point once; the first is the key's own.
    pub(super) fn from(&self, hash: u32) -> Walk<'_> {
        let mut starts = PerClass::default();
        for (start, (_, circle)) in starts.iter_mut().zip(&self.0) {
            *start = circle.partition_point(|(place, _)| *place < hash);
        }
        Walk { circles: &self.0, hash, starts, taken: PerClass::default() }
    }
}

/// Goes from point to point, away from a key.
pub(super) struct Walk<'r> {
    circles: &'r [(u32, Circle)],
    hash: u32,
    /// By circle: its first point from the key on, and how many were taken.
    starts: PerClass<usize>,
    taken: PerClass<usize>,
}

impl Iterator for Walk<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        let mut nearest: Option<(u64, &mut usize, u16)> = None;
        for (((class, circle), start), taken) in self.circles.iter().zip(self.starts).zip(&mut self.taken) {
            if *taken >= circle.len() {
                continue;
            }
            let around = start + *taken;
            let Some((place, member)) = circle.get(around).or_else(|| circle.get(around - circle.len()))
            else {
                continue;
            };
            // Twice the reach makes twice the distance equally near.
            let distance = u64::from(place.wrapping_sub(self.hash)) << (CLASSES - 1 - class);
            if nearest.as_ref().is_none_or(|(least, ..)| distance < *least) {
                nearest = Some((distance, taken, *member));
            }
        }
        let (_, taken, member) = nearest?;
        *taken += 1;
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner(ring: &Ring, key: usize) -> Option<u16> {
        ring.from(unit_hash(&[&key.to_string()])).next()
    }

    #[test]
    fn a_member_that_leaves_moves_only_its_own_keys() {
        let all = Ring::new(&[(0, "a", 1), (1, "b", 1), (2, "c", 1)]);
        let fewer = Ring::new(&[(0, "a", 1), (1, "b", 1)]);
        for key in 0..2_000 {
            let before = owner(&all, key);
            if before != Some(2) {
                assert_eq!(owner(&fewer, key), before);
            }
        }
    }

    #[test]
    fn keys_spread_by_weight() {
        let ring = Ring::new(&[(0, "a", 1), (1, "b", 3)]);
        let heavy = (0..4_000).filter(|key| owner(&ring, *key) == Some(1)).count();
        assert!((2_500..3_500).contains(&heavy), "{heavy}");
        let ring = Ring::new(&[(0, "a", 10_000), (1, "b", 5_000), (2, "c", 5_000), (3, "d", 100)]);
        let count = |member| (0..8_000).filter(|key| owner(&ring, *key) == Some(member)).count();
        assert!((3_300..4_700).contains(&count(0)), "{}", count(0));
        assert!((1_400..2_600).contains(&count(2)), "{}", count(2));
        assert!((10..100).contains(&count(3)), "{}", count(3));
    }

    #[test]
    fn a_walk_meets_every_point_once() {
        let ring = Ring::new(&[(0, "a", 1), (1, "b", 3), (2, "c", 800)]);
        let mut met = [0; 3];
        ring.from(12_345).for_each(|member| met[usize::from(member)] += 1);
        assert_eq!(met, [96, 144, 150], "few points, whatever the weight");
    }

    proptest! {
        #[test]
        fn whoever_leaves_or_changes_its_weight_moves_nobody_elses_keys(
            weights in prop::collection::vec(1..=crate::instance::MAX_WEIGHT, 2..12),
            now in 0..=crate::instance::MAX_WEIGHT,
        ) {
            let names: Vec<String> = (0..weights.len()).map(|at| format!("i{at}")).collect();
            let members = |first: u32| -> Vec<(u16, &str, u32)> {
                let weights = std::iter::once(first).chain(weights.iter().skip(1).copied());
                let members = (0u16..).zip(&names).zip(weights).map(|((at, id), weight)| (at, id.as_str(), weight));
                members.filter(|(.., weight)| *weight > 0).collect()
            };
            let (before, after) = (Ring::new(&members(weights[0])), Ring::new(&members(now)));
            for key in 0..300 {
                let (was, is) = (owner(&before, key), owner(&after, key));
                prop_assert!(was == is || was == Some(0) || is == Some(0), "{was:?} {is:?}");
            }
        }
    }
}
