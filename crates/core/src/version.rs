//! Service versions: canonical semantic versions.

use smol_str::{SmolStr, format_smolstr};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// Longest version text, in bytes.
pub const MAX_VERSION_LENGTH: usize = 64;

/// A service version in its one canonical spelling.
///
/// `2.1`, `v2.1` and `2.1.0` are the same version and all print as `v2.1`: a registry that says
/// `1.0` and an operator who pins `v1.0` mean the same. Ordering is that of semantic versioning.
///
/// ```
/// use grey_core::version::Version;
/// let a: Version = "2.1.0".parse()?;
/// let b: Version = "v2.1".parse()?;
/// assert_eq!(a, b);
/// assert_eq!(a.as_str(), "v2.1");
/// assert!("v2.1.0-rc.1".parse::<Version>()? < a);
/// # Ok::<(), grey_core::version::InvalidVersion>(())
/// ```
#[derive(Clone)]
pub struct Version {
    text: SmolStr,
    order: semver::Version,
}

/// A text that is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a version: {why}; write one to three numbers with an optional `v`, such as v2.1")]
pub struct InvalidVersion {
    text: String,
    why: &'static str,
}

impl Version {
    /// Reads a version in any accepted spelling.
    ///
    /// # Errors
    /// When the text or its canonical spelling is longer than [`MAX_VERSION_LENGTH`], has no leading number, has more than
    /// three, carries build metadata (it has no order), or a pre-release that semver refuses.
    pub fn new(text: &str) -> Result<Self, InvalidVersion> {
        let invalid = |why| InvalidVersion { text: text.chars().take(MAX_VERSION_LENGTH).collect(), why };
        if text.len() > MAX_VERSION_LENGTH {
            return Err(invalid("it is longer than 64 bytes"));
        }
        let bare = text.strip_prefix('v').unwrap_or(text);
        if bare.contains('+') {
            return Err(invalid("build metadata has no order"));
        }
        if bare.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid("capital letters are not allowed"));
        }
        let (numbers, pre) = match bare.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre)),
            None => (bare, None),
        };
        let full = match numbers.split('.').count() {
            1 => format!("{numbers}.0.0"),
            2 => format!("{numbers}.0"),
            3 => numbers.to_owned(),
            _ => return Err(invalid("it has more than three numbers")),
        };
        let full = pre.map_or_else(|| full.clone(), |pre| format!("{full}-{pre}"));
        let order = semver::Version::parse(&full).map_err(|_| invalid("it is not a semantic version"))?;
        let patch = if order.patch == 0 { String::new() } else { format!(".{}", order.patch) };
        let pre = if order.pre.is_empty() { String::new() } else { format!("-{}", order.pre) };
        let text = format_smolstr!("v{}.{}{patch}{pre}", order.major, order.minor);
        // `1-…` grows to `v1.0-…`; what is stored must be readable again.
        if text.len() > MAX_VERSION_LENGTH {
            return Err(invalid("its canonical spelling is longer than 64 bytes"));
        }
        Ok(Self { text, order })
    }

    /// The canonical text, such as `v2.1`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.cmp(&other.order)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn canonical_text_reads_back_as_itself(a in 0..100u64, b in 0..100u64, c in 0..3u64, pre in "(|-[a-z]{1,3}(\\.[1-9]){0,2})") {
            let version = Version::new(&format!("{a}.{b}.{c}{pre}")).unwrap();
            prop_assert_eq!(&Version::new(version.as_str()).unwrap(), &version);
        }

        #[test]
        fn equality_and_order_agree(a in "v?[0-3](\\.[0-3]){0,2}", b in "v?[0-3](\\.[0-3]){0,2}") {
            let (a, b) = (Version::new(&a).unwrap(), Version::new(&b).unwrap());
            prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
        }

        #[test]
        fn any_text_is_refused_or_canonical(text in "\\PC{0,12}") {
            if let Ok(version) = Version::new(&text) {
                prop_assert!(version.as_str().starts_with('v'));
                prop_assert_eq!(&Version::new(version.as_str()).unwrap(), &version);
            }
        }
    }

    #[test]
    fn spellings_of_one_version_are_equal() {
        for text in ["2", "v2", "2.0", "v2.0", "2.0.0", "v2.0.0"] {
            assert_eq!(Version::new(text).unwrap().as_str(), "v2.0");
        }
    }

    #[test]
    fn what_is_accepted_can_be_read_back() {
        for length in 50..=MAX_VERSION_LENGTH {
            if let Ok(version) = Version::new(&format!("1-{}", "a".repeat(length - 2))) {
                assert_eq!(Version::new(version.as_str()), Ok(version));
            }
        }
    }

    #[test]
    fn bad_versions_are_refused() {
        for text in [
            "",
            "v",
            "latest",
            "1.2.3.4",
            "01.2",
            "1.2.3+b",
            "1.0-RC",
            "1.0-",
            "vv1",
            "1 .0",
            &"1".repeat(65),
        ] {
            assert!(Version::new(text).is_err(), "{text:?}");
        }
    }
}
