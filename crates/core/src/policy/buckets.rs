//! Which units an arm of an overlay takes: ranges of buckets within a layer.
//!
//! A unit's hash names its bucket; an arm owns ranges of buckets. A weight alone would say how many buckets an arm
//! has, but not which, and every change of one weight would shift all arms behind it.

use std::fmt;

/// Weights are parts of this whole: 100 is one percent, 10,000 is everyone.
pub const WEIGHT_SCALE: u32 = 10_000;

/// A set of buckets below [`WEIGHT_SCALE`].
///
/// ```
/// use grey_core::policy::Buckets;
/// let half = Buckets::first(5_000).unwrap();
/// assert!(half.contains(0) && !half.contains(5_000));
/// let third = half.resized(3_333, &Buckets::default()).unwrap();
/// assert_eq!(third.weight(), 3_333);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Buckets(
    /// Half-open ranges in order, with gaps between them.
    Vec<(u32, u32)>,
);

/// Ranges that are no set of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ranges must be in order, must not be empty or touch, and end at {WEIGHT_SCALE} at most")]
pub struct InvalidRanges;

impl Buckets {
    /// The first `weight` buckets; none if there are fewer.
    #[must_use]
    pub fn first(weight: u32) -> Option<Self> {
        Self::default().resized(weight, &Self::default())
    }

    /// Reads half-open ranges.
    ///
    /// # Errors
    /// When they overlap, touch, are empty, out of order or too high: no set is written in two ways.
    pub fn from_ranges(ranges: Vec<(u32, u32)>) -> Result<Self, InvalidRanges> {
        let mut free_from = 0;
        for (at, (start, end)) in ranges.iter().enumerate() {
            let apart = at == 0 || *start > free_from;
            if !apart || start >= end || *end > WEIGHT_SCALE {
                return Err(InvalidRanges);
            }
            free_from = *end;
        }
        Ok(Self(ranges))
    }

    /// The half-open ranges, in order.
    #[must_use]
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// How many buckets there are: parts of [`WEIGHT_SCALE`].
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether the set has this bucket.
    #[must_use]
    pub fn contains(&self, bucket: u32) -> bool {
        self.0.iter().any(|(start, end)| (*start..*end).contains(&bucket))
    }

    /// Whether the sets have no bucket in common.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        let overlap = |a: &(u32, u32), b: &(u32, u32)| a.0 < b.1 && b.0 < a.1;
        self.0.iter().all(|one| other.0.iter().all(|two| !overlap(one, two)))
    }

    /// The buckets of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut ranges: Vec<(u32, u32)> = self.0.iter().chain(&other.0).copied().collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    /// The buckets that are in neither.
    fn neither(&self, other: &Self) -> Self {
        let mut free = Vec::new();
        let mut from = 0;
        for (start, end) in self.union(other).0 {
            if from < start {
                free.push((from, start));
            }
            from = end;
        }
        if from < WEIGHT_SCALE {
            free.push((from, WEIGHT_SCALE));
        }
        Self(free)
    }

    /// The lowest `weight` of these buckets.
    fn lowest(&self, weight: u32) -> Self {
        let mut left = weight;
        let mut ranges = Vec::new();
        for (start, end) in &self.0 {
            let taken = left.min(end - start);
            if taken == 0 {
                break;
            }
            ranges.push((*start, start + taken));
            left -= taken;
        }
        Self(ranges)
    }

    /// This set with another weight: the highest buckets are given back, or the lowest that are not `taken` are
    /// added; none if there are too few. So a growing set only adds units and a shrinking one only drops some.
    #[must_use]
    pub fn resized(&self, weight: u32, taken: &Self) -> Option<Self> {
        let have = self.weight();
        if weight <= have {
            return Some(self.lowest(weight));
        }
        let added = self.neither(taken).lowest(weight - have);
        (added.weight() == weight - have).then(|| self.union(&added))
    }
}

impl fmt::Display for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (start, end)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{start}-{end}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use proptest::prelude::*;

    fn members(set: &Buckets) -> Vec<u32> {
        (0..WEIGHT_SCALE).filter(|bucket| set.contains(*bucket)).collect()
    }

    prop_compose! {
        fn sets()(cuts in prop::collection::btree_set(0..=WEIGHT_SCALE, 0..12)) -> Buckets {
            let cuts: Vec<u32> = cuts.into_iter().collect();
            Buckets::from_ranges(cuts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()).unwrap()
        }
    }

    proptest! {
        #[test]
        fn resizing_moves_only_the_difference(set in sets(), others in sets(), weight in 0..=WEIGHT_SCALE) {
            let before = members(&set);
            let taken: Vec<u32> = members(&others).into_iter().filter(|b| !before.contains(b)).collect();
            let room = before.len() + (WEIGHT_SCALE as usize - before.len() - taken.len());
            let Some(after) = set.resized(weight, &others) else {
                prop_assert!(weight as usize > room);
                return Ok(());
            };
            let now = members(&after);
            prop_assert_eq!(after.weight(), weight);
            prop_assert_eq!(now.len(), weight as usize);
            if weight <= set.weight() {
                prop_assert!(now.iter().all(|b| before.contains(b)));
            } else {
                prop_assert!(before.iter().all(|b| now.contains(b)));
                prop_assert!(now.iter().all(|b| before.contains(b) || !others.contains(*b)));
            }
            prop_assert_eq!(Buckets::from_ranges(after.ranges().to_vec()), Ok(after));
        }

        #[test]
        fn sets_are_disjoint_if_no_bucket_is_in_both(one in sets(), other in sets()) {
            let common = members(&one).iter().any(|bucket| other.contains(*bucket));
            prop_assert_eq!(one.is_disjoint(&other), !common);
            let union = one.union(&other);
            prop_assert!(members(&union).iter().all(|b| one.contains(*b) || other.contains(*b)));
            prop_assert!(members(&one).iter().chain(&members(&other)).all(|b| union.contains(*b)));
        }
    }

    #[test]
    fn a_set_is_written_in_one_way() {
        for ranges in
            [vec![(5, 5)], vec![(6, 5)], vec![(0, 5), (5, 9)], vec![(4, 9), (0, 2)], vec![(0, 10_001)]]
        {
            assert_eq!(Buckets::from_ranges(ranges), Err(InvalidRanges));
        }
        assert_eq!(Buckets::first(10_001), None);
        assert_eq!(Buckets::first(10_000).unwrap().to_string(), "0-10000");
    }
}
