//! Stable hashing of units into buckets.
//!
//! The algorithm is part of the contract: the same unit must land in the same bucket in every
//! process, language and release, or tenants would change version because software was updated.
//! The golden vectors below pin it down: 32-bit xxHash, seed 0, over each part preceded by its length as 4
//! little-endian bytes.

use std::hash::Hasher;
use twox_hash::XxHash32;

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
    ((u64::from(hash) * u64::from(total)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::WEIGHT_SCALE;
    use proptest::prelude::*;

    /// Other implementations must reproduce these.
    ///
    /// Computed with another implementation of xxHash than the one used here.
    const GOLDEN: &[(&[&str], u32)] = &[
        (&[], 0x02cc_5d05),
        (&[""], 0x08d6_d969),
        (&["", ""], 0xdeb3_9513),
        (&["a"], 0x20c7_fd33),
        (&["acme"], 0x0f5a_e416),
        (&["abc"], 0x6d31_c320),
        (&["", "acme"], 0x2ca1_b158),
        (&["salt", "acme"], 0x4e58_bf82),
        (&["sal", "tacme"], 0xb8b5_2e36),
        (&["exp-1", "tenant-42"], 0x6399_3600),
        (&["exp-1", "tenant-42", "user-7"], 0xa506_cbf4),
        (&["a", "b", "c", "d"], 0xf740_015a),
        (&["s\u{e4}lz", "m\u{fc}ller"], 0x3956_4d24),
        (&["checkout-v2", "ttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt"], 0x6ea5_5efd),
        (
            &[
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
                 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                "0123456789abcdef0123456789abcdef",
            ],
            0x9b2a_de0f,
        ),
        (&["2026-11-canary", "globex", "order-000000000000000000000000000001"], 0xf7e6_744a),
    ];

    #[test]
    fn golden_vectors_hold() {
        for (parts, hash) in GOLDEN {
            assert_eq!(unit_hash(parts), *hash, "{parts:?}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(unit_hash(&["acme1", "2exp"]), unit_hash(&["acme", "12exp"]));
    }

    fn shares(salt: &str, buckets: u32) -> Vec<u32> {
        (0..10_000).map(|i| bucket(unit_hash(&[salt, &format!("tenant-{i}")]), buckets)).collect()
    }

    /// Sum of squared deviations from the even share, in units of that share.
    fn chi_square(places: impl Iterator<Item = u32>, buckets: u32) -> f64 {
        let mut counts = vec![0u32; buckets as usize];
        places.for_each(|place| counts[place as usize] += 1);
        let even = f64::from(counts.iter().sum::<u32>()) / f64::from(buckets);
        counts.iter().map(|count| (f64::from(*count) - even).powi(2) / even).sum()
    }

    #[test]
    fn ten_thousand_tenants_spread_evenly() {
        for salt in ["exp-1", "exp-2", "checkout-canary", "2026-11-23"] {
            let chi = chi_square(shares(salt, 100).into_iter(), 100);
            // 99 degrees of freedom: the mean is 99, one even split in a thousand is beyond 149; an
            // unnaturally even one (below 61) would show structure in the hash.
            assert!((61.0..149.0).contains(&chi), "{salt}: {chi}");
        }
    }

    #[test]
    fn salts_choose_independently() {
        let pairs = shares("salt-a", 10).into_iter().zip(shares("salt-b", 10));
        let chi = chi_square(pairs.map(|(a, b)| a * 10 + b), 100);
        assert!((61.0..149.0).contains(&chi), "{chi}");
    }

    proptest! {
        #[test]
        fn buckets_keep_the_order_of_hashes_and_stay_below_the_total(a: u32, b: u32, total in 1..=WEIGHT_SCALE) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(bucket(low, total) <= bucket(high, total));
            prop_assert!(bucket(high, total) < total);
        }

        #[test]
        fn finer_buckets_only_split_coarser_ones(hash: u32, total in 1..1_000u32, factor in 1..1_000u32) {
            prop_assert_eq!(bucket(hash, total * factor) / factor, bucket(hash, total));
        }
    }
}
