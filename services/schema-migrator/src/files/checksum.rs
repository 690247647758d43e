//! Checksums of migration files.

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// SHA-256 of a file's text, in 64 lower-case hexadecimal digits.
///
/// Line ends, a byte order mark and white space at the ends of lines and of the file do not count, so that a
/// checkout on another system does not change it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Checksum(String);

/// A text that is not a checksum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a checksum: 64 lower-case hexadecimal digits are")]
pub struct InvalidChecksum(String);

impl Checksum {
    /// The checksum of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
        let mut hash = Sha256::new();
        for line in text.lines() {
            hash.update(line.trim_end());
            hash.update(b"\n");
        }
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Checksum {
    type Err = InvalidChecksum;
    fn from_str(text: &str) -> Result<Self, InvalidChecksum> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidChecksum(text.chars().take(80).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn only_what_a_database_would_notice_counts() {
        let plain = Checksum::of("CREATE TABLE a (b int);\nSELECT 1;\n");
        assert_eq!(Checksum::of("\u{feff}CREATE TABLE a (b int);  \r\nSELECT 1;\t\r\n\r\n"), plain);
        assert_ne!(Checksum::of("CREATE TABLE a (b  int);\nSELECT 1;\n"), plain);
        assert_ne!(Checksum::of("CREATE TABLE a (b int);\n\nSELECT 1;\n"), plain);
    }

    #[test]
    fn text_round_trips() {
        let checksum = Checksum::of("");
        assert_eq!(checksum.as_str().parse::<Checksum>().unwrap(), checksum);
        assert!("ABC".parse::<Checksum>().is_err());
    }
}
