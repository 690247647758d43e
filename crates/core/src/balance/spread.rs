//! How the calls of a zone's callers spread over the zones of its region.
//!
//! A router does not know how many callers a zone has, so it takes them to be spread evenly over the zones
//! of the region in which the version can serve. A zone's fair share is then the region's weight divided by
//! these zones. A zone with its fair share or more serves all calls of its own callers; one with less serves
//! them in proportion, and the rest goes to the zones with more than their fair share, in proportion to the
//! excess. So every instance gets what its weight is of the region, and no more calls leave their
//! zone than that takes.

use std::sync::Arc;

/// All points.
const WHOLE: u64 = 1 << 32;

/// Where the calls of one zone's callers go.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    /// Points below stay in the zone.
    kept: u64,
    /// The zones with an excess, each with the sum of the excesses up to it; shared by the region.
    excess: Arc<[(u128, usize)]>,
}

/// Works out the spread of each zone of one region, given with its name and its weight, which is not 0.
pub(crate) fn spread(zones: &[(usize, u64)]) -> Vec<Spread> {
    let count = zones.len() as u128;
    let total: u128 = zones.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let mut sum = 0;
    let excess = zones.iter().filter_map(|(zone, weight)| {
        let excess = (u128::from(*weight) * count).checked_sub(total).filter(|excess| *excess > 0)?;
        sum += excess;
        Some((sum, *zone))
    });
    let excess: Arc<[_]> = excess.collect();
    let kept = |weight: u64| {
        let points = u128::from(weight) * count * u128::from(WHOLE) / total.max(1);
        u64::try_from(points).unwrap_or(WHOLE).min(WHOLE)
    };
    zones.iter().map(|(_, weight)| Spread { kept: kept(*weight), excess: Arc::clone(&excess) }).collect()
}

impl Spread {
    /// The zone that a call goes to instead of its own; none if it stays.
    pub(crate) fn other(&self, point: u32) -> Option<usize> {
        let beyond = u64::from(point).checked_sub(self.kept)?;
        let (sum, _) = self.excess.last()?;
        let place = u128::from(beyond) * sum / u128::from(WHOLE - self.kept);
        let at = self.excess.partition_point(|(end, _)| *end <= place);
        self.excess.get(at).map(|(_, zone)| *zone)
    }

    /// The share of its callers' calls that the zone serves itself, in percent.
    pub(crate) fn percent(&self) -> u64 {
        (self.kept * 100 + WHOLE / 2) / WHOLE
    }

    /// Whether some calls go elsewhere.
    pub(crate) fn is_partial(&self) -> bool {
        self.kept < WHOLE
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_precision_loss, reason = "test figures are small")]
    use super::*;
    use proptest::prelude::*;

    fn spreads(weights: &[u64]) -> Vec<Spread> {
        let zones: Vec<_> = weights.iter().copied().enumerate().collect();
        spread(&zones)
    }

    #[test]
    fn a_zone_with_its_fair_share_keeps_everything() {
        for weights in [&[7][..], &[5, 5], &[3, 3, 3]] {
            let spreads = spreads(weights);
            for point in [0, 1, u32::MAX / 2, u32::MAX] {
                assert!(spreads.iter().all(|spread| spread.other(point).is_none()), "{weights:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn even_callers_load_every_zone_by_its_weight(weights in prop::collection::vec(1..=1_000u64, 1..8)) {
            const STEPS: u32 = 20_000;
            let mut calls = vec![0u32; weights.len()];
            for (home, spread) in spreads(&weights).iter().enumerate() {
                for step in 0..STEPS {
                    let point = step * (u32::MAX / STEPS);
                    calls[spread.other(point).unwrap_or(home)] += 1;
                }
            }
            let all = f64::from(STEPS) * weights.len() as f64;
            let total: u64 = weights.iter().sum();
            for (zone, weight) in weights.iter().enumerate() {
                let share = f64::from(calls[zone]) / all;
                prop_assert!((share - *weight as f64 / total as f64).abs() < 0.001, "{weights:?} {calls:?}");
            }
        }

        #[test]
        fn what_stays_or_goes_is_a_matter_of_one_threshold(weights in prop::collection::vec(1..=50u64, 2..6), low: u32, high: u32) {
            let (low, high) = (low.min(high), low.max(high));
            for (home, spread) in spreads(&weights).iter().enumerate() {
                prop_assert!(spread.other(high).is_some() || spread.other(low).is_none());
                prop_assert_ne!(spread.other(high), Some(home));
            }
        }
    }
}
