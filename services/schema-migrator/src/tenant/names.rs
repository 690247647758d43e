//! Names of the migrator's own tables in a tenant's database.

use grey_core::ids::ServiceId;
use sha2::{Digest, Sha256};

/// The prefix that both tables have.
pub(crate) const PREFIX: &str = "grey_schema_";

/// Longest name of a service within a table's name; PostgreSQL cuts names after 63 bytes.
const LONGEST: usize = 40;

/// The names of a service's two tables; plain enough to stand in SQL without quotes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Names {
    /// What was applied and undone.
    pub history: String,
    /// What is half done, statement by statement.
    pub journal: String,
}

impl Names {
    /// The names for `service`.
    ///
    /// `-` becomes `_`. An id with `.` or `_` could then be taken for another one, and a long one does not fit: those
    /// end in a piece of their hash.
    #[must_use]
    pub fn of(service: &ServiceId) -> Self {
        let id = service.as_str();
        let mut name: String = id.chars().map(|c| if matches!(c, '-' | '.') { '_' } else { c }).collect();
        if id.contains(['.', '_']) || id.len() > LONGEST {
            name.truncate(LONGEST - 9);
            name.push('_');
            name.extend(short_hash(&[id]).chars().take(8));
        }
        Self { history: format!("{PREFIX}history_{name}"), journal: format!("{PREFIX}journal_{name}") }
    }
}

/// 16 hexadecimal digits that tell these texts from others.
pub(super) fn short_hash(texts: &[&str]) -> String {
    format!("{:016x}", number(texts))
}

/// 64 bits that tell these texts from others.
pub(super) fn number(texts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn services_never_share_tables_and_names_fit() {
        let long = "a".repeat(63);
        let longer = format!("{}b", "a".repeat(62));
        let ids = ["orders", "a-b", "a.b", "a_b", long.as_str(), longer.as_str()];
        let names: Vec<_> = ids.iter().map(|id| Names::of(&ServiceId::new(id).unwrap())).collect();
        assert_eq!(names.first().unwrap().history, "grey_schema_history_orders");
        assert_eq!(names.get(1).unwrap().journal, "grey_schema_journal_a_b");
        for (i, name) in names.iter().enumerate() {
            assert!(name.history.len() <= 63 && name.journal.len() <= 63, "{name:?}");
            assert!(names.iter().skip(i + 1).all(|other| other != name), "{name:?}");
        }
    }
}
