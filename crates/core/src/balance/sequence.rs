//! A smooth interleaving of weighted members, computed once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Longest cycle for a handful of members; more members get two turns each on average.
const MAX_CYCLE: usize = 4_096;

/// One cycle in which each member comes up in proportion to its weight, as evenly spread as possible.
///
/// Each member has a virtual deadline that moves on by 1/weight with each turn; the earliest deadline is next.
pub(super) fn interleave(weights: &[(u16, u32)]) -> Box<[u16]> {
    let divisor = weights.iter().fold(0, |a, (_, weight)| gcd(a, *weight)).max(1);
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(weight / divisor)).sum();
    let limit = (weights.len() * 2).max(MAX_CYCLE) as u64;
    let shares: Vec<(u16, u64)> = weights
        .iter()
        .map(|(member, weight)| {
            let exact = u64::from(weight / divisor);
            let share = if total > limit { (exact * limit / total).max(1) } else { exact };
            (*member, share)
        })
        .collect();
    // Deadlines are counted in units that every share divides into evenly enough: 2^40 per cycle.
    let step = |share: u64| (1u64 << 40) / share;
    let mut queue: BinaryHeap<_> =
        shares.iter().map(|(member, share)| Reverse((step(*share) / 2, *member, *share, *share))).collect();
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
