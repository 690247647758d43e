//! A hash ring: the same key finds the same member, and a member that comes or goes moves few keys.

use crate::hash::unit_hash;

/// Points of a member with the mean weight.
const POINTS: u64 = 96;
/// Most points of one member.
const MAX_POINTS: u64 = 960;

/// Points on the ring, by hash.
#[derive(Debug, Default)]
pub(super) struct Ring(Box<[(u32, u16)]>);

impl Ring {
    /// Places members, given as (index, id, weight); the id decides the places, so they are the same everywhere.
    pub(super) fn new(members: &[(u16, &str, u32)]) -> Self {
        let total: u64 = members.iter().map(|(_, _, weight)| u64::from(*weight)).sum();
        let mut points = Vec::new();
        for (member, id, weight) in members {
            let share = u64::from(*weight) * members.len() as u64 * POINTS / total.max(1);
            for point in 0..share.clamp(1, MAX_POINTS) {
                points.push((unit_hash(&[id, &point.to_string()]), *member));
            }
        }
        points.sort_unstable();
        Self(points.into_boxed_slice())
    }

    /// Members from the key's place on, each point once; the first is the key's own.
    pub(super) fn from(&self, hash: u32) -> impl Iterator<Item = u16> {
        let start = self.0.partition_point(|(place, _)| *place < hash);
        let (before, after) = self.0.split_at(start);
        after.iter().chain(before).map(|(_, member)| *member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
