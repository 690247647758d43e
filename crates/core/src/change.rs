//! What a command changed: the entries of the event log.

use crate::key::{Fact, Key};
use std::collections::BTreeMap;
use std::fmt;

/// The sequence number of an event: gapless, in commit order, starting at 1. 0 is the empty log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one; none follows the greatest, which no log reaches.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The revision before this one; 0 has none before it.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which history a revision belongs to, counted from 1; 0 is none.
///
/// A control database that was restored or replaced starts the epoch after the greatest that was ever seen,
/// so a later history is always the greater one, whatever the clocks say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A point in a history. Positions compare by epoch first: any later history is ahead of an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// The history.
    pub epoch: Epoch,
    /// The last event contained.
    pub revision: Revision,
}

impl Position {
    /// Whether a table at this position contains everything up to `asked`. Epoch 0 asks for whichever is present; a
    /// later epoch replaces the earlier ones and counts as containing them.
    ///
    /// ```
    /// use grey_core::change::{Epoch, Position, Revision};
    /// let at = |epoch, revision| Position { epoch: Epoch(epoch), revision: Revision(revision) };
    /// assert!(at(2, 7).contains(at(2, 7)) && !at(2, 7).contains(at(2, 8)));
    /// assert!(at(2, 7).contains(at(1, 900)) && !at(2, 7).contains(at(3, 1)));
    /// assert!(at(2, 7).contains(at(0, 7)) && !at(2, 7).contains(at(0, 8)));
    /// ```
    #[must_use]
    pub fn contains(self, asked: Self) -> bool {
        if asked.epoch == Epoch(0) { self.revision >= asked.revision } else { self >= asked }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.revision)
    }
}

/// How much of the stored forms a reader must understand, counted from 1.
///
/// Fields that only describe may be unknown to a reader. A fact that decides states the level from which readers
/// obey it; a router below it neither applies nor acknowledges the event that holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FormatLevel(pub u32);

impl FormatLevel {
    /// What every release understands.
    pub const FIRST: Self = Self(1);
    /// What this release understands.
    pub const CURRENT: Self = Self(1);
}

impl Default for FormatLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for FormatLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Who did something: an identity and the role in which it was allowed to.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Principal {
    /// The identity, as its credentials prove it.
    pub id: String,
    /// The role that was judged.
    pub role: String,
    /// Through whom it was asked; empty: directly.
    pub via: String,
}

impl Principal {
    /// A principal without a role, such as the product itself.
    #[must_use]
    pub fn named(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.via.as_str() {
            "" => f.pad(&self.id),
            via => f.pad(&format!("{} via {via}", self.id)),
        }
    }
}

/// The SHA-256 of an event as it is stored; all zeros before the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct EntryHash(pub [u8; 32]);

/// One committed command: all its changes take effect at one revision.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// Its place in the log.
    pub revision: Revision,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who did it.
    pub principal: Principal,
    /// Why, in their words.
    pub reason: String,
    /// What led to it, such as `upgrade/<id>`; empty for a command of its own.
    pub cause: String,
    /// The level that a reader needs to obey all its changes.
    pub level: FormatLevel,
    /// The hash of the event before it in the log.
    pub previous: EntryHash,
    /// Fields that no decision needs, sealed, by name.
    pub sealed: BTreeMap<String, Vec<u8>>,
    /// What changed, in order.
    pub changes: Vec<Change>,
}

/// One fact set or removed.
///
/// Each change carries the whole new fact and none depends on what was there before, so applying
/// a run of changes twice, or to a state that already holds some of them, ends in the same state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The fact holds now.
    Put(Fact),
    /// Nothing holds under the key any more. With a tenant go its pins, schemas, holds and databases, with a
    /// service its versions, policy and overlays.
    Removed(Key),
}

impl Change {
    /// What the change is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put(fact) => fact.key(),
            Self::Removed(key) => key.clone(),
        }
    }

    /// The level from which readers obey it.
    #[must_use]
    pub fn level(&self) -> FormatLevel {
        match self {
            Self::Put(fact) => fact.level(),
            Self::Removed(key) => key.level(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_no_larger_than_a_pin_needs() {
        let pin = size_of::<(crate::ids::TenantId, crate::ids::ServiceId, crate::service::Pin)>();
        let change = size_of::<Change>();
        assert!(change <= pin + size_of::<usize>(), "a change has {change} bytes, what a pin says {pin}");
    }
}
