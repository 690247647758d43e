//! What a migration consists of.

use super::placeholder;
use grey_core::schema::SchemaVersion;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

/// One SQL statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Exactly as in the file, without the delimiter and without comments around it.
    pub sql: String,
    /// The line that it begins on, counted from 1.
    pub line: u32,
}

impl Statement {
    /// The statement for one tenant.
    pub(super) fn for_tenant(&self, tenant: &str) -> Self {
        Self { sql: placeholder::for_tenant(&self.sql, tenant), line: self.line }
    }

    /// Whether it differs by tenant.
    pub(super) fn is_of_tenant(&self) -> bool {
        placeholder::places(&self.sql).iter().any(|(_, name)| placeholder::is_of_tenant(name))
    }
}

/// One step of a migration; each has its own entry in the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A statement as it is.
    Sql(Statement),
    /// An UPDATE that runs over key ranges, each committed by itself.
    Backfill(Backfill),
    /// A change of a table by a tool that copies it online.
    External(External),
    /// A schema of views.
    Views(Views),
}

impl Step {
    /// The line that it begins on, counted from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        match self {
            Self::Sql(statement) => statement.line,
            Self::Backfill(backfill) => backfill.statement.line,
            Self::External(external) => external.statement.line,
            Self::Views(views) => views.line,
        }
    }
}

impl Step {
    /// The step for one tenant.
    pub(super) fn for_tenant(&self, tenant: &str) -> Self {
        match self {
            Self::Sql(statement) => Self::Sql(statement.for_tenant(tenant)),
            Self::Views(views) => {
                let shape =
                    |shape: &Shape| Shape { statement: shape.statement.for_tenant(tenant), ..shape.clone() };
                Self::Views(Views { shapes: views.shapes.iter().map(shape).collect(), ..views.clone() })
            }
            // Refused when they are read.
            Self::Backfill(_) | Self::External(_) => self.clone(),
        }
    }

    /// Whether it differs by tenant.
    pub(super) fn is_of_tenant(&self) -> bool {
        match self {
            Self::Sql(statement) => statement.is_of_tenant(),
            Self::Views(views) => views.shapes.iter().any(|shape| shape.statement.is_of_tenant()),
            Self::Backfill(_) | Self::External(_) => false,
        }
    }
}

/// Prints what a dry run shows: the statement, below a comment that says how it runs.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(statement) => f.write_str(&statement.sql),
            Self::Backfill(it) => {
                let (table, key, batch) = (&it.table, &it.key, it.batch);
                let pause = it.pause.as_millis();
                writeln!(f, "-- grey: backfill table={table} key={key} batch={batch} pause={pause}ms")?;
                f.write_str(&it.statement.sql)
            }
            Self::External(it) => {
                writeln!(f, "-- grey: online tool={} table={}", it.tool, it.table)?;
                f.write_str(&it.statement.sql)
            }
            Self::Views(it) if it.of.is_empty() => write!(f, "-- grey: drop-views version={}", it.version),
            Self::Views(it) => {
                let of = it.of.iter().map(SqlName::as_str).collect::<Vec<_>>().join(",");
                write!(f, "-- grey: views version={} of={of}", it.version)?;
                for shape in &it.shapes {
                    write!(f, "\n-- grey: view of={}\n{}", shape.of, shape.statement.sql)?;
                }
                Ok(())
            }
        }
    }
}

/// An UPDATE over all rows of a table, done in ranges of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backfill {
    /// The UPDATE, with one `:low` and one `:high`; both ends belong to the range.
    pub statement: Statement,
    /// The table whose keys are walked.
    pub table: SqlName,
    /// A unique column of it.
    pub key: SqlName,
    /// Most keys of a range, at least 1.
    pub batch: u32,
    /// How long to wait between two ranges.
    pub pause: Duration,
    /// Where `:low` is in the statement, in bytes.
    pub(super) low: Range<usize>,
    /// Where `:high` is.
    pub(super) high: Range<usize>,
}

impl Backfill {
    /// The statement with `low` and `high` in the places of `:low` and `:high`.
    ///
    /// They are put there as they are, so give placeholders (`$1`, `?`) or literals that were quoted.
    #[must_use]
    pub fn between(&self, low: &str, high: &str) -> String {
        let mut sql = self.statement.sql.clone();
        let mut places = [(&self.low, low), (&self.high, high)];
        // From the back, so that the first place stays where it is.
        places.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
        for (range, text) in places {
            sql.replace_range(range.clone(), text);
        }
        sql
    }
}

/// A tool that changes a table by copying it while it is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    /// gh-ost, which follows the binary log.
    GhOst,
    /// pt-online-schema-change, which uses triggers.
    PtOnlineSchemaChange,
}

impl Tool {
    /// The name, as in directives.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GhOst => "gh-ost",
            Self::PtOnlineSchemaChange => "pt-online-schema-change",
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An ALTER TABLE that a tool carries out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct External {
    /// The tool.
    pub tool: Tool,
    /// The table.
    pub table: SqlName,
    /// What the tool is given: the ALTER TABLE without its first words.
    pub clause: String,
    /// The ALTER TABLE.
    pub statement: Statement,
}

/// A schema of views over the tables of a tenant, by which two service versions see the same rows in two shapes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Views {
    /// The version whose schema of views it is; the migration's own unless the directive says another.
    pub version: SchemaVersion,
    /// The tables, each seen through a view of its name; none: the version's schema of views is dropped.
    pub of: Vec<SqlName>,
    /// Where a view is not the table as it is.
    pub shapes: Vec<Shape>,
    /// The line of the directive, counted from 1.
    pub line: u32,
}

/// The shape of one view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The table.
    pub of: SqlName,
    /// A query that is the view, or an ALTER VIEW that gives its columns defaults.
    pub statement: Statement,
    /// Whether it is the query.
    pub is_query: bool,
}

/// An SQL name that needs no quotes, perhaps qualified by a schema: `orders`, `billing.orders`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SqlName(String);

/// A text that is not such a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a plain name: letters, digits and _ are, at most 63, with at most one dot between two names"
)]
pub struct InvalidSqlName(String);

impl SqlName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without the schema.
    #[must_use]
    pub fn last(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for SqlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for SqlName {
    type Err = InvalidSqlName;
    fn from_str(text: &str) -> Result<Self, InvalidSqlName> {
        let plain = |part: &str| {
            let first = part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            first && part.len() <= 63 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if text.split('.').count() <= 2 && text.split('.').all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSqlName(text.chars().take(64).collect()))
        }
    }
}
