//! Digests of a table, as readers of each format level reckon them.

use grey_core::change::FormatLevel;
use grey_core::table::Table;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The digests of one table by format level.
///
/// A level is stated where its readers reckon another digest than those of the level below. Nothing stated: the
/// digest is not known, and nobody compares.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Digests(BTreeMap<FormatLevel, u64>);

impl Digests {
    /// Those of `table`.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        Self::one(table.digest())
    }

    /// The same digest at every level.
    #[must_use]
    pub fn one(digest: u64) -> Self {
        Self(BTreeMap::from([(FormatLevel::FIRST, digest)]))
    }

    /// Not known.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// What a reader of `level` compares with; none if it is not known.
    #[must_use]
    pub fn at(&self, level: FormatLevel) -> Option<u64> {
        self.0.range(..=level).next_back().map(|(_, digest)| *digest)
    }
}

/// As stored: `<level>:<digest>`, in order, with spaces between.
impl fmt::Display for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (level, digest)) in self.0.iter().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{level}:{digest:016x}")?;
        }
        Ok(())
    }
}

/// A text that is no list of digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a digest is not `<level>:<16 hexadecimal digits>`")]
pub struct InvalidDigests;

impl FromStr for Digests {
    type Err = InvalidDigests;

    fn from_str(text: &str) -> Result<Self, InvalidDigests> {
        let one = |text: &str| {
            let (level, digest) = text.split_once(':').filter(|(_, digest)| digest.len() == 16)?;
            Some((FormatLevel(level.parse().ok()?), u64::from_str_radix(digest, 16).ok()?))
        };
        text.split_whitespace()
            .map(|text| one(text).ok_or(InvalidDigests))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn a_reader_compares_with_the_nearest_level_that_is_not_above_its_own() {
        let digests: Digests = "2:000000000000000a 4:000000000000000b".parse().unwrap();
        let at = |level| digests.at(FormatLevel(level));
        assert_eq!([at(1), at(2), at(3), at(4), at(9)], [None, Some(10), Some(10), Some(11), Some(11)]);
        assert_eq!(digests.to_string(), "2:000000000000000a 4:000000000000000b");
        assert_eq!("".parse(), Ok(Digests::unknown()));
        for text in ["x", "1:x", ":000000000000000a", "1:0a", "1:000000000000000a,"] {
            assert_eq!(text.parse::<Digests>(), Err(InvalidDigests), "{text}");
        }
    }
}
