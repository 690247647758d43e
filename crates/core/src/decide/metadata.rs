//! Attributes of a call, read where they are.

use std::collections::BTreeMap;

/// Attributes of a call, as whoever received it holds them: none is copied for a decision.
#[derive(Clone, Copy, Debug)]
pub enum Metadata<'a> {
    /// A map.
    Map(&'a BTreeMap<String, String>),
    /// A few keys with their values, in any order and no key twice.
    Entries(&'a [(&'a str, &'a str)]),
}

impl<'a> Metadata<'a> {
    /// No attributes.
    pub const NONE: Self = Self::Entries(&[]);

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a str> {
        match *self {
            Self::Map(map) => map.get(key).map(String::as_str),
            Self::Entries(entries) => {
                entries.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Map(map) => map.len(),
            Self::Entries(entries) => entries.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys and values together.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        match self {
            Self::Map(map) => map.iter().map(|(key, value)| key.len() + value.len()).sum(),
            Self::Entries(entries) => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
        }
    }
}

impl<'a> From<&'a BTreeMap<String, String>> for Metadata<'a> {
    fn from(map: &'a BTreeMap<String, String>) -> Self {
        Self::Map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::Metadata;
    use std::collections::BTreeMap;

    #[test]
    fn a_map_and_its_entries_say_the_same() {
        let entries = [("b", "2"), ("", "nameless"), ("a", "")];
        let map: BTreeMap<String, String> =
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (map, entries) = (Metadata::Map(&map), Metadata::Entries(&entries));
        for key in ["a", "b", "", "c"] {
            assert_eq!(map.get(key), entries.get(key), "{key}");
        }
        assert_eq!((map.len(), map.byte_count()), (entries.len(), entries.byte_count()));
        assert!(!map.is_empty() && !entries.is_empty() && Metadata::NONE.is_empty());
    }
}
