//! Schema versions of tenant databases, and the window of them that a service version can work on.

use std::fmt;
use std::str::FromStr;

/// Most numbers in a schema version.
const MAX_PARTS: usize = 6;

/// The version of a tenant's database schema, as migration files name it: `1.1` or `20240320001`.
///
/// Compared number by number; trailing zeros do not count, so `1.0` equals `1`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SchemaVersion(Vec<u64>);

/// A text that is not a schema version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a schema version: write up to six numbers joined by dots, such as 1.1")]
pub struct InvalidSchemaVersion(String);

impl SchemaVersion {
    /// Reads a schema version.
    ///
    /// # Errors
    /// When the text is not one to six decimal numbers joined by dots.
    pub fn new(text: &str) -> Result<Self, InvalidSchemaVersion> {
        let invalid = || InvalidSchemaVersion(text.chars().take(64).collect());
        let mut parts = Vec::new();
        for part in text.split('.') {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !digits || parts.len() == MAX_PARTS {
                return Err(invalid());
            }
            parts.push(part.parse().map_err(|_| invalid())?);
        }
        while parts.len() > 1 && parts.last() == Some(&0) {
            parts.pop();
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

impl FromStr for SchemaVersion {
    type Err = InvalidSchemaVersion;
    fn from_str(text: &str) -> Result<Self, InvalidSchemaVersion> {
        Self::new(text)
    }
}

/// What was seen in a tenant's database.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Observation {
    /// The schema.
    pub schema: SchemaVersion,
    /// When it was first seen, in milliseconds since the Unix epoch. It describes, no decision looks at it.
    pub at_ms: u64,
}

/// The schema versions that a service version works on, both ends included.
///
/// An open window (no end given) means that the version does not depend on the schema.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SchemaWindow {
    /// Oldest schema that works, if there is such a bound.
    pub min: Option<SchemaVersion>,
    /// Newest schema that works, if there is such a bound.
    pub max: Option<SchemaVersion>,
}

impl SchemaWindow {
    /// Whether a tenant with the `observed` schema may run on this version.
    ///
    /// A tenant whose schema was never observed fits only an open window: naming a version whose
    /// schema the tenant may not have is the one thing that must not happen.
    #[must_use]
    pub fn admits(&self, observed: Option<&SchemaVersion>) -> bool {
        match observed {
            None => self.min.is_none() && self.max.is_none(),
            Some(schema) => {
                self.min.as_ref().is_none_or(|min| min <= schema)
                    && self.max.as_ref().is_none_or(|max| schema <= max)
            }
        }
    }
}

impl fmt::Display for SchemaWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.min, &self.max) {
            (None, None) => f.write_str("any"),
            (Some(min), None) => write!(f, ">= {min}"),
            (None, Some(max)) => write!(f, "<= {max}"),
            (Some(min), Some(max)) => write!(f, "{min}..{max}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use proptest::prelude::*;

    fn schema(text: &str) -> SchemaVersion {
        SchemaVersion::new(text).unwrap()
    }

    proptest! {
        #[test]
        fn text_round_trips(parts in prop::collection::vec(0..30u64, 1..6)) {
            let text = parts.iter().map(u64::to_string).collect::<Vec<_>>().join(".");
            let read = schema(&text);
            prop_assert_eq!(schema(&read.to_string()), read);
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(schema("1.9") < schema("1.10"));
        assert_eq!(schema("1.0"), schema("1"));
        for text in ["", "1.", ".1", "a", "1.-1", "1.1.1.1.1.1.1", "99999999999999999999999"] {
            assert!(SchemaVersion::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_unobserved_schema_fits_only_an_open_window() {
        let bounded = SchemaWindow { min: Some(schema("1")), max: None };
        assert!(SchemaWindow::default().admits(None));
        assert!(!bounded.admits(None));
        assert!(bounded.admits(Some(&schema("1"))));
        assert!(!bounded.admits(Some(&schema("0.9"))));
        assert!(!SchemaWindow { min: None, max: Some(schema("2")) }.admits(Some(&schema("2.0.1"))));
    }
}
