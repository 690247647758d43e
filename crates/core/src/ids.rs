//! Validated identifiers.
//!
//! Every id that reaches a Redis key, a path or a label is one of these types, so no id can forge
//! a key, a cluster slot or a path segment.

use smol_str::SmolStr;
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// Longest id, in bytes.
pub const MAX_ID_LENGTH: usize = 63;
/// Longest instance id, in bytes. Registries build them from address, cluster and service.
pub const MAX_INSTANCE_ID_LENGTH: usize = 160;

/// Why a text is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("{kind} is empty")]
    Empty {
        /// Which kind of id was read.
        kind: &'static str,
    },
    /// The text is longer than the kind allows.
    #[error("{kind} has {length} bytes, at most {limit} are allowed")]
    TooLong {
        /// Which kind of id was read.
        kind: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The text holds a character that the kind does not allow.
    #[error("{kind} `{text}` does not match {pattern}")]
    Malformed {
        /// Which kind of id was read.
        kind: &'static str,
        /// The text given, cut to the allowed length.
        text: String,
        /// The allowed form, as a regular expression.
        pattern: &'static str,
    },
}

fn is_slug(text: &str) -> bool {
    let bytes = text.as_bytes();
    let first = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
}

fn is_instance_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    let first = bytes.first().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'[');
    first && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-:#@[]/".contains(b))
}

fn check(
    kind: &'static str,
    text: &str,
    limit: usize,
    pattern: &'static str,
    allowed: fn(&str) -> bool,
) -> Result<SmolStr, InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty { kind });
    }
    if text.len() > limit {
        return Err(InvalidId::TooLong { kind, length: text.len(), limit });
    }
    if !allowed(text) {
        return Err(InvalidId::Malformed { kind, text: text.to_owned(), pattern });
    }
    Ok(SmolStr::new(text))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:expr, $pattern:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SmolStr);

        impl $name {
            /// Validates `text` and takes it as an id.
            ///
            /// # Errors
            /// When the text is empty, too long or holds a character that is not allowed.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                check($kind, text, $limit, $pattern, $allowed).map(Self)
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.0.as_str(), f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        /// Lets a map keyed by the id be searched by text, without building an id first.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// Names a tenant.
    TenantId, "tenant id", MAX_ID_LENGTH, "[a-z0-9][a-z0-9._-]{0,62}", is_slug
);
id!(
    /// Names a service.
    ServiceId, "service id", MAX_ID_LENGTH, "[a-z0-9][a-z0-9._-]{0,62}", is_slug
);
id!(
    /// Names an overlay (an experiment or a canary) within a service.
    OverlayId, "overlay id", MAX_ID_LENGTH, "[a-z0-9][a-z0-9._-]{0,62}", is_slug
);
id!(
    /// A short name without an entity behind it: a region, zone, tier, label key or role.
    Name, "name", MAX_ID_LENGTH, "[a-z0-9][a-z0-9._-]{0,62}", is_slug
);
id!(
    /// Names an instance of a service, unique within that service.
    InstanceId, "instance id", MAX_INSTANCE_ID_LENGTH, "[A-Za-z0-9\\[][A-Za-z0-9._:#@\\[\\]/-]{0,159}", is_instance_id
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_of_the_pattern_is_accepted_and_kept(text in "[a-z0-9][a-z0-9._-]{0,62}") {
            let id = TenantId::new(&text).unwrap();
            prop_assert_eq!(id.as_str(), text);
        }

        #[test]
        fn acceptance_equals_the_documented_pattern(text in "\\PC{0,70}") {
            let head = text.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            let tail = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c));
            prop_assert_eq!(ServiceId::new(&text).is_ok(), head && tail && text.len() <= MAX_ID_LENGTH);
        }
    }

    #[test]
    fn texts_that_could_forge_a_key_are_refused() {
        for text in ["", "a:b", "{a}", "a b", "A", "a/b", "-a", ".a", "a\n", "a*", "ä", &"a".repeat(64)] {
            assert!(TenantId::new(text).is_err(), "{text:?}");
        }
        assert_eq!(
            TenantId::new("a:b").unwrap_err().to_string(),
            "tenant id `a:b` does not match [a-z0-9][a-z0-9._-]{0,62}"
        );
        assert!(InstanceId::new("10.0.0.1:8080#DEFAULT").is_ok());
        for text in ["", "a b", "{a}", "a\r\n", "*"] {
            assert!(InstanceId::new(text).is_err(), "{text:?}");
        }
    }
}
