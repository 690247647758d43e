//! What a statement does to tables, as far as the rules ask.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// One thing that a statement does. Names are in lower case and without schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// A table comes into being, with columns of these types.
    CreatesTable { table: String, columns: Vec<(String, String)> },
    /// A table goes.
    DropsTable { table: String },
    /// A column goes.
    DropsColumn { table: String, column: String },
    /// A schema or database goes.
    DropsSchema { name: String },
    /// All rows go.
    Empties { table: String },
    /// A column gets another type.
    ChangesType { table: String, column: String, to: String },
    /// A column comes into being.
    AddsColumn(Added),
    /// A column may not be NULL from now on.
    SetsNotNull { table: String, column: String },
    /// All rows are checked against a new constraint.
    AddsConstraint { table: String, kind: &'static str },
    /// An index is built.
    CreatesIndex { table: String, concurrently: bool },
    /// Rows are written; `nulls` are the columns that are set where they are NULL.
    Updates { table: String, nulls: Vec<String> },
    /// The table is written anew.
    Rewrites { table: String, by: &'static str },
    /// A column or table gets another name.
    Renames { table: String },
}

/// A column that is added to a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Added {
    pub(super) table: String,
    pub(super) column: String,
    pub(super) to: String,
    pub(super) not_null: bool,
    pub(super) default: Preset,
}

/// What the rows that exist get in a new column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Preset {
    /// NULL.
    Nothing,
    /// One value for all.
    Value,
    /// A value of its own for each, perhaps.
    Volatile,
}

/// What is known of a statement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Effects {
    pub(super) effects: Vec<Effect>,
    /// Whether the whole statement was understood; otherwise patterns were looked for.
    pub(super) understood: bool,
    /// The MySQL family's statement changes a table; how, if it says so.
    pub(super) alters: Option<Alters>,
    /// PostgreSQL's ALTER TYPE … ADD VALUE.
    pub(super) adds_enum_value: bool,
    /// PostgreSQL's DROP INDEX without CONCURRENTLY.
    pub(super) drops_index: bool,
    /// PostgreSQL's ADD CONSTRAINT … NOT VALID.
    pub(super) adds_unchecked: bool,
    /// PostgreSQL's VALIDATE CONSTRAINT.
    pub(super) validates: bool,
}

/// What is known of the steps of a file, once someone has asked: parsing them anew for each tenant would take longer
/// than all the rest of a plan. It follows from the file, so files are the same with and without it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Understood(OnceLock<Arc<Known>>);

/// What is known of the steps of a file.
#[derive(Debug)]
pub(super) struct Known {
    /// Of each step.
    pub(super) steps: Vec<Effects>,
    /// Every name in them, as written and in lower case: the names of tables are among them.
    pub(super) names: BTreeSet<String>,
}

impl PartialEq for Understood {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Understood {}

impl Understood {
    pub(super) fn or_find_out(&self, find_out: impl FnOnce() -> Known) -> &Known {
        self.0.get_or_init(|| Arc::new(find_out()))
    }
}

/// An ALTER TABLE of the MySQL family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Alters {
    pub(super) table: String,
    /// Whether it says ALGORITHM=INPLACE, INSTANT or NOCOPY, so that the server refuses rather than copies.
    pub(super) asserted: bool,
}
