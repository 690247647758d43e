//! What would be run on a tenant's database, and what speaks against it: a pure function of files, history and facts.

mod build;
mod message;

pub use build::{plan, plan_undo};

use crate::files::{Checksum, Dialect, Migration, Repeatable, Statement, Step};
use crate::lint::{Finding, Level, Policy, Rule};
use grey_core::error::Reason;
use grey_core::ids::ServiceId;
use grey_core::schema::{SchemaVersion, SchemaWindow};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Rows of a table from which on a lock on it matters, unless set otherwise.
pub const BIG_TABLE_ROWS: u64 = 1_000_000;

/// What a row of the history says became of a migration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It is applied.
    Applied,
    /// It and everything older were there before the history began.
    Baseline,
    /// It was applied, and is no longer.
    Undone,
    /// The row of its version holds for another file from now on, or for none: someone has accepted that.
    Accepted,
    /// A repeatable file was run.
    Repeated,
    /// It failed and nothing of it is left. What is left of a failed migration is a [`Leftover`].
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Applied, Self::Baseline, Self::Undone, Self::Accepted, Self::Repeated, Self::Failed];

    /// The name, as in the history table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Baseline => "baseline",
            Self::Undone => "undone",
            Self::Accepted => "accepted",
            Self::Repeated => "repeated",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One row of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The version.
    pub version: SchemaVersion,
    /// Checksum of the migration's file when it ran; absent for a baseline.
    pub checksum: Option<Checksum>,
    /// Checksum of its undo file then, if it had one and the history keeps it.
    pub undo_checksum: Option<Checksum>,
    /// What became of it.
    pub outcome: Outcome,
    /// What it is about: the file's description.
    pub description: String,
    /// When it ended, in milliseconds since the epoch.
    pub at_ms: u64,
}

/// Whether migrations are applied or undone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Applied.
    Up,
    /// Undone.
    Down,
}

impl Direction {
    /// The name, as in the journal table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A migration that was begun and neither finished nor undone, as the journal tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leftover {
    /// The version.
    pub version: SchemaVersion,
    /// Which way it was going.
    pub direction: Direction,
    /// Steps that are done.
    pub steps_done: u32,
}

/// What a tenant's database says was done to it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Rows of the history table, oldest first; the last row of a version is what counts.
    pub entries: Vec<Entry>,
    /// What the journal says is half done.
    pub leftovers: Vec<Leftover>,
}

impl History {
    /// What is applied now: for each version the row that applied it.
    #[must_use]
    pub fn applied(&self) -> BTreeMap<&SchemaVersion, &Entry> {
        let mut applied = BTreeMap::new();
        for entry in &self.entries {
            match entry.outcome {
                Outcome::Applied | Outcome::Baseline => {
                    applied.insert(&entry.version, entry);
                }
                Outcome::Undone => {
                    applied.remove(&entry.version);
                }
                Outcome::Accepted => {
                    if let Some(was) = applied.get_mut(&entry.version) {
                        *was = entry;
                    }
                }
                Outcome::Repeated => {}
                // A failed attempt to undo leaves what was there, a failed attempt to apply leaves nothing.
                Outcome::Failed => {}
            }
        }
        applied
    }

    /// Whether nothing was ever done here.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.entries.is_empty() && self.leftovers.is_empty()
    }

    /// The checksum that a repeatable file had when it was run last.
    #[must_use]
    pub fn repeated(&self, description: &str) -> Option<&Checksum> {
        let run = |entry: &&Entry| entry.outcome == Outcome::Repeated && entry.description == description;
        self.entries.iter().rev().find(run).and_then(|entry| entry.checksum.as_ref())
    }

    /// The schema that the database is at: the newest version that is applied.
    #[must_use]
    pub fn present(&self) -> Option<&SchemaVersion> {
        self.applied().into_keys().next_back()
    }

    /// The newest baseline that still stands: it and everything older need no files.
    #[must_use]
    pub fn baseline(&self) -> Option<&SchemaVersion> {
        let applied = self.applied();
        applied
            .into_iter()
            .rev()
            .find(|(_, entry)| entry.outcome == Outcome::Baseline)
            .map(|(version, _)| version)
    }
}

/// Where an upgrade should lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// To the newest version that there is.
    Newest,
    /// To this version.
    Version(SchemaVersion),
    /// To the newest version that a service version works on.
    Window(SchemaWindow),
}

/// What a plan may do that it would not do by itself, and how findings weigh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Run migrations that are older than the newest applied one.
    pub out_of_order: bool,
    /// Rules whose refusals are accepted.
    pub accept: BTreeSet<Rule>,
    /// Files that contract, by name, before which no plan stops: nothing runs any more that needs what they take away.
    pub contract: BTreeSet<String>,
    /// How findings weigh.
    pub policy: Policy,
    /// Rows of a table from which on a lock on it matters.
    pub big_table_rows: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            out_of_order: false,
            accept: BTreeSet::new(),
            contract: BTreeSet::new(),
            policy: Policy::default(),
            big_table_rows: BIG_TABLE_ROWS,
        }
    }
}

/// What is known of a tenant's database besides its history. Nothing is known without a database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Estimated rows by table, in lower case and without schema; a table that is not here is not known.
    pub rows: BTreeMap<String, u64>,
    /// Which server it is.
    pub server: Option<Server>,
    /// What is there where no history is.
    pub contents: Contents,
}

/// What is in a database besides the migrator's own tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Contents {
    /// Nothing, what the migrators have made, or it is not known.
    #[default]
    Ours,
    /// What Flyway has made.
    Flyway,
    /// Tables or views of someone.
    Others {
        /// How many.
        count: u64,
        /// One of them.
        example: String,
    },
}

/// Which database server it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Server {
    /// First number of its version.
    pub major: u32,
    /// Second number of its version.
    pub minor: u32,
    /// Whether it is MariaDB, not MySQL.
    pub mariadb: bool,
}

/// What would be run, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The service.
    pub service: ServiceId,
    /// The dialect.
    pub dialect: Dialect,
    /// Up or down.
    pub direction: Direction,
    /// The schema now.
    pub from: Option<SchemaVersion>,
    /// The schema afterwards.
    pub to: Option<SchemaVersion>,
    /// What would be run, in this order; none: there is nothing to do.
    pub steps: Vec<PlannedStep>,
    /// Repeatable files that would be run after them.
    pub repeatables: Vec<Arc<Repeatable>>,
    /// The migration before which it stops although more would lead on.
    pub stopped: Option<Stopped>,
    /// What speaks against the plan as a whole.
    pub findings: Vec<Finding>,
    /// [`crate::files::Scripts::fingerprint`] of the files that it was made from.
    pub fingerprint: Checksum,
}

/// Why a plan leads no further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// The migration before which it stops.
    pub migration: Arc<Migration>,
    /// Why, and what to do.
    pub why: String,
}

/// One migration of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedStep {
    /// The migration.
    pub migration: Arc<Migration>,
    /// What speaks against it.
    pub findings: Vec<Finding>,
}

impl PlannedStep {
    /// What is run in that direction; going down without an undo file: nothing.
    #[must_use]
    pub fn steps(&self, direction: Direction) -> &[Step] {
        match direction {
            Direction::Up => &self.migration.steps,
            Direction::Down => self.migration.undo.as_ref().map_or(&[], |undo| &undo.steps),
        }
    }

    /// Whether that runs in one transaction.
    #[must_use]
    pub fn transactional(&self, direction: Direction) -> bool {
        match direction {
            Direction::Up => self.migration.transactional,
            Direction::Down => self.migration.undo.as_ref().is_some_and(|undo| undo.transactional),
        }
    }

    /// Queries that must return no row after it; only going up has any.
    #[must_use]
    pub fn checks(&self, direction: Direction) -> &[Statement] {
        match direction {
            Direction::Up => &self.migration.checks,
            Direction::Down => &[],
        }
    }
}

/// A plan that may not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("migration is refused: {}", .findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; "))]
pub struct Refused {
    /// What forbids it; never empty.
    pub findings: Vec<Finding>,
}

impl Refused {
    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        if self.findings.iter().any(|finding| finding.rule == rules::UNKNOWN_VERSION) {
            Reason::UnknownVersion
        } else {
            Reason::MigrationRefused
        }
    }
}

impl Plan {
    /// Whether there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.repeatables.is_empty()
    }

    /// Every name in what would be run, as written and in lower case: its tables are among them.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let names = |step: &PlannedStep| crate::lint::names(&step.migration, self.direction, self.dialect);
        self.steps.iter().flat_map(names).collect()
    }

    /// All findings: of the plan, then of each step.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().chain(self.steps.iter().flat_map(|step| &step.findings))
    }

    /// Whether it may be run.
    ///
    /// # Errors
    /// With everything that forbids it.
    pub fn verdict(&self) -> Result<(), Refused> {
        let findings: Vec<_> =
            self.all_findings().filter(|finding| finding.level > Level::Warning).cloned().collect();
        if findings.is_empty() { Ok(()) } else { Err(Refused { findings }) }
    }
}

/// Names of findings about a plan, which no policy weighs.
pub mod rules {
    /// An applied migration's file was changed.
    pub const CHECKSUM: &str = "checksum";
    /// The undo file of an applied migration was changed.
    pub const UNDO_CHANGED: &str = "undo-changed";
    /// An applied migration's file is gone.
    pub const MISSING_FILE: &str = "missing-file";
    /// A migration is older than the newest applied one and is not applied.
    pub const OUT_OF_ORDER: &str = "out-of-order";
    /// The target is not a version that there is.
    pub const UNKNOWN_VERSION: &str = "unknown-version";
    /// The target is older than the schema.
    pub const BELOW_PRESENT: &str = "below-present";
    /// The target is newer than the schema, and the plan undoes.
    pub const ABOVE_PRESENT: &str = "above-present";
    /// A migration is half done.
    pub const LEFTOVER: &str = "leftover";
    /// The history applies a version twice.
    pub const DUPLICATE: &str = "duplicate";
    /// A migration that has to be undone has no undo file.
    pub const NO_UNDO: &str = "no-undo";
    /// What has to be undone was there before the history began.
    pub const BELOW_BASELINE: &str = "below-baseline";
    /// Flyway has migrated the database, and its history was not taken over.
    pub const FLYWAY: &str = "flyway-history";
    /// A statement cannot run in a transaction on this server.
    pub const NEEDS_NO_TRANSACTION: &str = "needs-no-transaction";
}
