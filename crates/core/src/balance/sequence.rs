//! A smooth interleaving of weighted members, computed once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Longest cycle for a handful of members; more members get two turns each on average.
const MAX_CYCLE: usize = 4_096;

/// 2^32 divided by the golden ratio: its multiples, modulo 2^32, lie as evenly as can be.
const GOLDEN: u32 = 0x9e37_79b9;

/// One cycle in which each member comes up in proportion to its weight, as evenly spread as possible.
///
/// Each member has a virtual deadline that moves on by 1/weight with each turn; the earliest deadline is next.
/// The first deadlines are apart by the golden ratio, so that members of the same weight come up between
/// those of a heavier one and not all at once.
pub(super) fn interleave(weights: &[(u16, u32)]) -> Box<[u16]> {
    let divisor = weights.iter().fold(0, |a, (_, weight)| gcd(a, *weight)).max(1);
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(weight / divisor)).sum();
    let limit = (weights.len() * 2).max(MAX_CYCLE) as u64;
    let share = |weight: u32| {
        let exact = u64::from(weight / divisor);
        if total > limit { (exact * limit / total).max(1) } else { exact }
    };
    // Deadlines are counted in units that every share divides into evenly enough: 2^32 per cycle.
    let step = |share: u64| (1u64 << 32) / share.max(1);
    let first = |at: u32, share: u64| (step(share) * u64::from(GOLDEN.wrapping_mul(at))) >> 32;
    let shares = weights.iter().map(|(member, weight)| (*member, share(*weight)));
    let mut queue: BinaryHeap<_> = (0u32..)
        .zip(shares)
        .map(|(at, (member, share))| Reverse((first(at, share), member, share, share)))
        .collect();
    let mut cycle = Vec::new();
    while let Some(Reverse((deadline, member, share, left))) = queue.pop() {
        cycle.push(member);
        if left > 1 {
            queue.push(Reverse((deadline + step(share), member, share, left - 1)));
        }
    }
    cycle.into_boxed_slice()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heavy_members_are_spread_out() {
        assert_eq!(*interleave(&[(0, 3), (1, 1)]), [0, 0, 1, 0]);
        assert_eq!(*interleave(&[(0, 100), (1, 100)]), [0, 1]);
    }

    /// Longest run of one member over cycles that follow each other.
    fn longest_run(weights: &[u32]) -> usize {
        let members: Vec<_> = (0u16..).zip(weights.iter().copied()).collect();
        let cycle = interleave(&members);
        let twice: Vec<u16> = cycle.iter().chain(&cycle).copied().collect();
        twice.chunk_by(|a, b| a == b).map(<[u16]>::len).max().unwrap_or(0)
    }

    #[test]
    fn a_heavy_member_gives_way_to_light_ones_one_by_one() {
        let among = |heavy: u32, light: u32, count: usize, at: usize| {
            let mut weights = vec![light; count];
            weights.insert(at, heavy);
            longest_run(&weights)
        };
        for at in [0, 1, 2] {
            assert!(among(5, 1, 2, at) <= 4, "as smooth as nginx");
        }
        for at in [0, 5, 10] {
            assert!(among(10, 1, 10, at) <= 2);
            assert!(among(100, 5, 20, at) <= 2);
        }
    }

    proptest! {
        #[test]
        fn small_weights_are_met_exactly_and_smoothly(weights in prop::collection::vec(1..20u32, 1..12)) {
            let members: Vec<(u16, u32)> = (0u16..).zip(weights.iter().copied()).collect();
            let cycle = interleave(&members);
            let divisor = weights.iter().fold(0, |a, b| gcd(a, *b));
            for (member, weight) in members {
                let turns: Vec<usize> = cycle.iter().enumerate().filter(|(_, m)| **m == member).map(|(i, _)| i).collect();
                prop_assert_eq!(turns.len(), (weight / divisor) as usize);
                let even = cycle.len() as f64 / turns.len() as f64;
                for pair in turns.windows(2) {
                    prop_assert!(((pair[1] - pair[0]) as f64) < even * 2.0 + cycle.len().min(weights.len()) as f64);
                }
            }
        }

        #[test]
        fn any_weights_give_a_bounded_cycle_with_everyone(weights in prop::collection::vec(1..=10_000u32, 1..300)) {
            let members: Vec<(u16, u32)> = (0u16..).zip(weights.iter().copied()).collect();
            let cycle = interleave(&members);
            prop_assert!(cycle.len() <= MAX_CYCLE + members.len());
            for (member, _) in members {
                prop_assert!(cycle.contains(&member));
            }
        }
    }
}
