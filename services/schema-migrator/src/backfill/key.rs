//! Keys of rows, and how far a backfill came.

use crate::files::Dialect;
use crate::tenant::{Error, Sql};

/// A key.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Key {
    /// Of an integer column, in digits.
    Number(i64),
    /// Of an integer column that is too large for that.
    Large(u64),
    /// Of a column of text or of a UUID.
    Text(String),
    /// Of a binary column, in hexadecimal digits.
    Bytes(String),
}

impl Key {
    /// The key as a literal. Whatever it holds, the literal is one value.
    pub(super) fn literal(&self, sql: Sql) -> String {
        match self {
            // Without parentheses, a sign could become part of the operator before it.
            Self::Number(number) => format!("({number})"),
            Self::Large(number) => number.to_string(),
            // Independent of the session's modes.
            Self::Text(text) if sql.0 == Dialect::MySql => {
                format!("_utf8mb4 X'{}'", hexadecimal(text.as_bytes()))
            }
            Self::Text(text) => sql.literal(text),
            Self::Bytes(digits) => {
                let digits: String = digits.chars().filter(char::is_ascii_hexdigit).collect();
                format!("X'{digits}'")
            }
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// How far a backfill came, as the journal keeps it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reached {
    /// The last key that is done.
    pub(super) last: Option<Key>,
    /// The last key that is to be done.
    pub(super) upto: Key,
    /// Rows that are done.
    pub(super) done: u64,
}

impl Reached {
    pub(super) fn nothing_before(upto: Key) -> Self {
        Self { last: None, upto, done: 0 }
    }

    pub(super) fn read(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|_| Error::Corrupt("the journal's key of a backfill".to_owned()))
    }

    pub(super) fn write(&self) -> String {
        serde_json::to_string(self).expect("keys and numbers are always JSON")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_journal_keeps_is_stable() {
        let reached = Reached { last: Some(Key::Number(-5)), upto: Key::Text("z'".to_owned()), done: 7 };
        assert_eq!(reached.write(), r#"{"last":{"number":-5},"upto":{"text":"z'"},"done":7}"#);
        assert!(Reached::read("{}").is_err() && Reached::read("5); DROP TABLE orders; --").is_err());
    }

    proptest! {
        #[test]
        fn a_key_is_one_literal_whatever_it_holds(text in "\\PC{0,20}", quotes in "['\\\\\"`;-]{0,6}") {
            let key = Key::Text(format!("{text}{quotes}"));
            let reached = Reached { last: Some(key.clone()), upto: key.clone(), done: 1 };
            prop_assert_eq!(Reached::read(&reached.write()).unwrap(), reached);
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                let literal = key.literal(Sql(dialect));
                let inner = literal.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
                prop_assert_eq!(inner.replace("''", ""), format!("{text}{quotes}").replace('\'', ""));
            }
            let literal = key.literal(Sql(Dialect::MySql));
            let digits = literal.strip_prefix("_utf8mb4 X'").unwrap().strip_suffix('\'').unwrap();
            prop_assert!(digits.chars().all(|c| c.is_ascii_hexdigit()));
        }
    }
}
