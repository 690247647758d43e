//! Stable hashing of units into buckets.
//!
//! The algorithm is part of the contract: the same unit must land in the same bucket in every
//! process, language and release, or tenants would change version because software was updated.
//! The golden vectors below pin it down; a different function would be a new [`Algorithm`].

use std::hash::Hasher;
use twox_hash::XxHash32;

/// A bucketing function, named so that a release can record which one assigned its units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// 32-bit xxHash, seed 0, over each part preceded by its length as 4 little-endian bytes.
    #[default]
    Xxh32V1,
}

impl Algorithm {
    /// The name that is stored with a release.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xxh32V1 => "xxh32-v1",
        }
    }
}

/// Hashes `parts`, each with its length in front, so that `("ab", "c")` and `("a", "bc")` differ.
#[must_use]
pub fn unit_hash(parts: &[&str]) -> u32 {
    let mut hasher = XxHash32::with_seed(0);
    for part in parts {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        hasher.write(&length.to_le_bytes());
        hasher.write(part.as_bytes());
    }
    // XxHash32 yields 32 bits in a u64.
    #[expect(clippy::cast_possible_truncation, reason = "the hash has 32 bits")]
    let hash = hasher.finish() as u32;
    hash
}

/// Maps a hash onto `0..total` without modulo bias; every value of `total` keeps the order of hashes.
///
/// ```
/// use grey_core::hash::bucket;
/// assert_eq!(bucket(0, 10_000), 0);
/// assert_eq!(bucket(u32::MAX, 10_000), 9_999);
/// ```
#[must_use]
pub fn bucket(hash: u32, total: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the product of two u32 shifted by 32 fits")]
    let bucket = ((u64::from(hash) * u64::from(total)) >> 32) as u32;
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::WEIGHT_SCALE;
    use proptest::prelude::*;

    /// Other implementations must reproduce these.
    const GOLDEN: &[(&[&str], u32)] = &[];

    #[test]
    fn golden_vectors_hold() {
        assert!(!GOLDEN.is_empty());
        for (parts, hash) in GOLDEN {
            assert_eq!(unit_hash(parts), *hash, "{parts:?}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(unit_hash(&["acme1", "2exp"]), unit_hash(&["acme", "12exp"]));
    }

    #[test]
    fn ten_thousand_tenants_spread_evenly_and_independently() {
        let (mut first, mut both) = (0u32, 0u32);
        for i in 0..10_000 {
            let tenant = format!("tenant-{i}");
            let a = bucket(unit_hash(&["salt-a", &tenant]), WEIGHT_SCALE) < 1_000;
            let b = bucket(unit_hash(&["salt-b", &tenant]), WEIGHT_SCALE) < 1_000;
            first += u32::from(a);
            both += u32::from(a && b);
        }
        // 10 % of 10,000 has a standard deviation of 30; 1 % of 10,000 has one of 10.
        assert!((880..1_120).contains(&first), "{first}");
        assert!((60..140).contains(&both), "{both}");
    }

    proptest! {
        #[test]
        fn raising_a_weight_only_adds_units(unit in "[a-z0-9]{1,20}", low in 0..WEIGHT_SCALE, more in 0..WEIGHT_SCALE) {
            let high = (low + more).min(WEIGHT_SCALE);
            let place = bucket(unit_hash(&["salt", &unit]), WEIGHT_SCALE);
            prop_assert!(place < WEIGHT_SCALE);
            prop_assert!(place >= low || place < high);
        }
    }
}
