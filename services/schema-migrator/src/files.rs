//! Migration files: found, read, split into statements and judged, before any database is touched.
//!
//! A service's files lie in `<root>/<service>/` under Flyway's names: `V1.1__add_preferences.sql` migrates,
//! `U1.1__…` undoes it, `C1.1__…` holds queries that must return no row afterwards. A name may end in
//! `.postgres.sql`, `.mysql.sql` or `.sqlite.sql`: such a variant replaces the plain file for that dialect.
//!
//! Comment lines can hold directives:
//!
//! | directive | where | means |
//! |---|---|---|
//! | `-- grey: no-transaction` | before the first statement | each statement is committed by itself |
//! | `-- grey: timeout lock=30s statement=10m` | before the first statement | how long its statements wait and run |
//! | `-- grey: expand`, `-- grey: contract` | before the first statement | whether the version before works on |
//! | `-- grey: no-placeholders` | before the first statement | `${…}` is meant as it is |
//! | `-- grey: backfill table=orders key=id batch=1000 pause=50ms` | before an UPDATE with `key BETWEEN :low AND :high` | it runs over key ranges |
//! | `-- grey: online tool=gh-ost table=orders` | before an ALTER TABLE | that tool changes the table (MySQL family) |
//! | `-- grey: views of=orders,customers version=1.2` | alone | a schema of views for that version (PostgreSQL) |
//! | `-- grey: view of=customers` | below `views`, before a query or an ALTER VIEW | the shape of one of them |
//! | `-- grey: drop-views version=1.2` | alone | that schema of views is dropped |
//!
//! `R__views.sql` is run after the versions whenever it has changed. `${tenant}`, `${service}` and what is configured stand for
//! their values.
//!
//! [`Folder::load`] tells all faults at once. What a statement *does* is judged later, by [`crate::lint`].

mod body;
mod checksum;
mod directive;
mod fault;
mod guard;
mod head;
mod lexis;
mod load;
mod name;
mod placeholder;
mod read;
mod split;
mod step;

pub use checksum::Checksum;
pub use fault::{Fault, FaultKind, FilesError};
pub use head::{FileTimeouts, Phase};
pub use load::{Folder, MAX_FILE_BYTES, MAX_FILES, MAX_SERVICE_BYTES};
pub use placeholder::Placeholders;
pub use step::{Backfill, External, Shape, SqlName, Statement, Step, Tool, Views};

pub(crate) use lexis::{Piece, pieces};

use crate::lint::Understood;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Which database a file is written for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::MySql, Self::Sqlite];

    /// The name, as in file names and messages: `postgres`, `mysql` or `sqlite`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }

    /// Whether a transaction that is rolled back takes DDL with it.
    #[must_use]
    pub fn rolls_back_ddl(self) -> bool {
        !matches!(self, Self::MySql)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a dialect: write postgres, mysql or sqlite")]
pub struct UnknownDialect(String);

impl FromStr for Dialect {
    type Err = UnknownDialect;
    fn from_str(text: &str) -> Result<Self, UnknownDialect> {
        let found = Self::ALL.into_iter().find(|dialect| dialect.as_str() == text);
        found.ok_or_else(|| UnknownDialect(text.chars().take(32).collect()))
    }
}

/// The migrations of one service for one dialect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scripts {
    /// The service.
    pub service: ServiceId,
    /// The dialect.
    pub dialect: Dialect,
    /// By version, each version once.
    pub migrations: Vec<Arc<Migration>>,
    /// Files that are run whenever they have changed, by their descriptions.
    pub repeatables: Vec<Arc<Repeatable>>,
    /// Files that were left alone, since they are no SQL.
    pub ignored: Vec<String>,
}

impl Scripts {
    /// The scripts with `${tenant}` replaced.
    #[must_use]
    pub fn for_tenant(self: Arc<Self>, tenant: &TenantId) -> Arc<Self> {
        let of_steps = |steps: &[Step]| steps.iter().any(Step::is_of_tenant);
        let of_migration = |it: &Arc<Migration>| {
            of_steps(&it.steps)
                || it.undo.as_ref().is_some_and(|undo| of_steps(&undo.steps))
                || it.checks.iter().any(Statement::is_of_tenant)
        };
        if !self.migrations.iter().any(of_migration) && !self.repeatables.iter().any(|it| of_steps(&it.steps))
        {
            return self;
        }
        let steps = |steps: &[Step]| steps.iter().map(|step| step.for_tenant(tenant.as_str())).collect();
        let undo = |undo: &Undo| Undo {
            steps: steps(&undo.steps),
            understood: Understood::default(),
            ..undo.clone()
        };
        let migration = |it: &Arc<Migration>| {
            if !of_migration(it) {
                return Arc::clone(it);
            }
            Arc::new(Migration {
                steps: steps(&it.steps),
                undo: it.undo.as_ref().map(undo),
                checks: it.checks.iter().map(|check| check.for_tenant(tenant.as_str())).collect(),
                understood: Understood::default(),
                ..Migration::clone(it)
            })
        };
        let repeatable = |it: &Arc<Repeatable>| {
            Arc::new(Repeatable {
                steps: steps(&it.steps),
                understood: Understood::default(),
                ..Repeatable::clone(it)
            })
        };
        Arc::new(Self {
            migrations: self.migrations.iter().map(migration).collect(),
            repeatables: self.repeatables.iter().map(repeatable).collect(),
            ..Self::clone(&self)
        })
    }

    /// The migration to `schema`, if there is one.
    #[must_use]
    pub fn get(&self, schema: &SchemaVersion) -> Option<&Arc<Migration>> {
        let found = self.migrations.binary_search_by(|migration| migration.schema.cmp(schema));
        found.ok().and_then(|index| self.migrations.get(index))
    }

    /// The newest version that there is.
    #[must_use]
    pub fn newest(&self) -> Option<&SchemaVersion> {
        self.migrations.last().map(|migration| &migration.schema)
    }

    /// Hash of every version and checksum: equal scripts have equal fingerprints, so that a tenant
    /// that was brought to a fingerprint can be skipped without asking its database.
    #[must_use]
    pub fn fingerprint(&self) -> Checksum {
        let mut lines = format!("{}\n", self.dialect);
        for migration in &self.migrations {
            lines.push_str(&format!("{} {}\n", migration.schema, migration.checksum));
        }
        for repeatable in &self.repeatables {
            lines.push_str(&format!("{} {}\n", repeatable.file, repeatable.checksum));
        }
        Checksum::of(&lines)
    }
}

/// One migration: its file, its undo file and its check file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migration {
    /// The version that it leads to.
    pub schema: SchemaVersion,
    /// From the file's name, with spaces: `add user preferences`.
    pub description: String,
    /// The file's name within the service's folder.
    pub file: String,
    /// Of the migration's file alone.
    pub checksum: Checksum,
    /// Whether all steps and the history's row may run in one transaction that rolls back as a whole.
    ///
    /// False with `-- grey: no-transaction`, and in the MySQL family as soon as a statement is anything but
    /// INSERT, UPDATE, DELETE or a query.
    pub transactional: bool,
    /// How long its statements may wait and run.
    pub timeouts: FileTimeouts,
    /// Which half of a change it is, where it says so.
    pub phase: Option<Phase>,
    /// What it does, in order; never empty.
    pub steps: Vec<Step>,
    /// How it is undone.
    pub undo: Option<Undo>,
    /// Name of the check file, if there is one.
    pub check_file: Option<String>,
    /// Queries that must return no row afterwards.
    pub checks: Vec<Statement>,
    /// What its steps do.
    pub(crate) understood: Understood,
}

/// A file that is run after the versions whenever it has changed: views, routines, rights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repeatable {
    /// From the file's name, with spaces. It is known by this.
    pub description: String,
    /// The file's name within the service's folder.
    pub file: String,
    /// Of the file.
    pub checksum: Checksum,
    /// As [`Migration::transactional`].
    pub transactional: bool,
    /// How long its statements may wait and run.
    pub timeouts: FileTimeouts,
    /// What it does, in order: statements only.
    pub steps: Vec<Step>,
    /// What its steps do.
    pub(crate) understood: Understood,
}

/// How a migration is undone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undo {
    /// The file's name within the service's folder.
    pub file: String,
    /// Of the undo file alone.
    pub checksum: Checksum,
    /// As [`Migration::transactional`], for the undo file.
    pub transactional: bool,
    /// How long its statements may wait and run.
    pub timeouts: FileTimeouts,
    /// What it does, in order; never empty.
    pub steps: Vec<Step>,
    /// What its steps do.
    pub(crate) understood: Understood,
}
