//! What speaks against a statement that would run: rules with names, each warned of or refused by policy.
//!
//! Statements are read by sqlparser's grammar. Where that does not understand one, its words are looked at for
//! patterns, and the rule `unparsed` tells so: the database is the judge of what is SQL, not this module. Types of
//! columns and tables without rows are known as far as the migrations themselves tell.

mod effect;
mod judge;
mod kinds;
mod parse;
mod pattern;
mod phase;

pub use judge::validate;

pub(crate) use effect::Understood;
pub(crate) use judge::{Linter, names};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// How much a finding weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Told only.
    Warning,
    /// Forbids to run the plan unless the rule is accepted by name.
    Refusal,
    /// Forbids to run the plan, whatever is accepted.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warning => "warning",
            Self::Refusal => "refusal",
            Self::Error => "error",
        })
    }
}

/// Something that speaks against a migration or a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How much it weighs.
    pub level: Level,
    /// The rule, such as `destructive`.
    pub rule: &'static str,
    /// In words.
    pub message: String,
    /// The file, within the service's folder; empty: none in particular.
    pub file: String,
    /// The line, counted from 1; 0: none in particular.
    pub line: u32,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.level, self.rule)?;
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, 0) => write!(f, "{file}: ")?,
            (file, line) => write!(f, "{file}:{line}: ")?,
        }
        f.write_str(&self.message)
    }
}

/// A rule whose weight is a matter of policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Data is lost: a table, column or schema is dropped, rows are deleted wholesale, a type may be narrowed.
    Destructive,
    /// The database writes the whole table anew, under a lock.
    Rewrite,
    /// A table with many rows is locked against writers while all of them are read or written.
    BigTableLock,
    /// The migration has no undo file.
    MissingUndo,
    /// The MySQL family commits in the middle of a migration.
    ImplicitCommit,
    /// A column without a default may not be NULL although rows may exist.
    NotNullWithoutDefault,
    /// A backfill looks for NULL in a column that was added with a default: no row has it any more.
    BackfillAfterDefault,
    /// The statement is not understood, so only patterns were looked for.
    Unparsed,
    /// There are tables in a database without a history.
    NotEmpty,
    /// Something is taken away that the version before needs; a plan stops before it.
    Contract,
    /// One file both adds and takes away.
    MixedPhases,
    /// An index is dropped under a lock that everyone else waits for.
    DropIndex,
    /// A constraint is added unchecked and checked in the same transaction, under the lock that this should avoid.
    ValidateTogether,
    /// A column's type is one that its database's users regret.
    ColumnType,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 14] = [
        Self::Destructive,
        Self::Rewrite,
        Self::BigTableLock,
        Self::MissingUndo,
        Self::ImplicitCommit,
        Self::NotNullWithoutDefault,
        Self::BackfillAfterDefault,
        Self::Unparsed,
        Self::NotEmpty,
        Self::Contract,
        Self::MixedPhases,
        Self::DropIndex,
        Self::ValidateTogether,
        Self::ColumnType,
    ];

    /// The name, as in policies, acceptances and findings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destructive => "destructive",
            Self::Rewrite => "rewrite",
            Self::BigTableLock => "big-table-lock",
            Self::MissingUndo => "missing-undo",
            Self::ImplicitCommit => "implicit-commit",
            Self::NotNullWithoutDefault => "not-null-without-default",
            Self::BackfillAfterDefault => "backfill-after-default",
            Self::Unparsed => "unparsed",
            Self::NotEmpty => "not-empty",
            Self::Contract => "contract",
            Self::MixedPhases => "mixed-phases",
            Self::DropIndex => "drop-index",
            Self::ValidateTogether => "validate-together",
            Self::ColumnType => "column-type",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rule that can be accepted")]
pub struct UnknownRule(String);

impl FromStr for Rule {
    type Err = UnknownRule;
    fn from_str(text: &str) -> Result<Self, UnknownRule> {
        let found = Self::ALL.into_iter().find(|rule| rule.as_str() == text);
        found.ok_or_else(|| UnknownRule(text.chars().take(64).collect()))
    }
}

/// What becomes of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// It is not told.
    Allow,
    /// It is told.
    Warn,
    /// It forbids to run the plan unless the rule is accepted by name.
    Refuse,
}

/// The weight of each rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Policy(BTreeMap<Rule, Weight>);

impl Policy {
    /// The policy with another weight for `rule`.
    #[must_use]
    pub fn with(mut self, rule: Rule, weight: Weight) -> Self {
        self.0.insert(rule, weight);
        self
    }

    /// The weight of `rule`: as set, otherwise what loses data or stops a tenant is refused, the rest told.
    #[must_use]
    pub fn weight(&self, rule: Rule) -> Weight {
        self.0.get(&rule).copied().unwrap_or(match rule {
            Rule::Destructive
            | Rule::Rewrite
            | Rule::BigTableLock
            | Rule::NotNullWithoutDefault
            | Rule::NotEmpty
            | Rule::Contract => Weight::Refuse,
            Rule::MissingUndo
            | Rule::ImplicitCommit
            | Rule::BackfillAfterDefault
            | Rule::Unparsed
            | Rule::MixedPhases
            | Rule::DropIndex
            | Rule::ValidateTogether => Weight::Warn,
            // A matter of taste.
            Rule::ColumnType => Weight::Allow,
        })
    }

    /// The level of a finding of `rule`; `None`: it is not told.
    #[must_use]
    pub fn level(&self, rule: Rule, accepted: &BTreeSet<Rule>) -> Option<Level> {
        match self.weight(rule) {
            Weight::Allow => None,
            Weight::Refuse if !accepted.contains(&rule) => Some(Level::Refusal),
            Weight::Warn | Weight::Refuse => Some(Level::Warning),
        }
    }
}
