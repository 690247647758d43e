//! What can be wrong with migration files.

use super::Dialect;
use grey_core::ids::ServiceId;
use std::fmt;
use std::path::PathBuf;

/// Most faults that one error prints; all are in it.
const PRINTED: usize = 50;

/// Migration files could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no folder of that service.
    #[error("service `{service}` has no folder of migrations")]
    NoFolder {
        /// The service.
        service: ServiceId,
    },
    /// The folder lies outside the root.
    #[error("folder of service `{service}` leads outside the folder of migrations")]
    Outside {
        /// The service.
        service: ServiceId,
    },
    /// There are more files than are read.
    #[error("folder of service `{service}` holds more than {limit} files")]
    TooMany {
        /// The service.
        service: ServiceId,
        /// Most files.
        limit: usize,
    },
    /// The file system does not give them.
    #[error("read migration files from `{}`", path.display())]
    Read {
        /// Which path was read.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Files were read, and are wrong.
    #[error("migration files of service `{service}` for {dialect} are faulty: {}", Listed(faults))]
    Faulty {
        /// The service.
        service: ServiceId,
        /// The dialect.
        dialect: Dialect,
        /// All faults, by file and line; never empty.
        faults: Vec<Fault>,
    },
}

/// Prints faults one after the other, and how many more there are.
struct Listed<'a>(&'a [Fault]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().take(PRINTED).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        match self.0.len().saturating_sub(PRINTED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Something wrong at one place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fault {
    /// The file's name within the service's folder.
    pub file: String,
    /// The line, counted from 1; 0: the file as a whole.
    pub line: u32,
    /// What is wrong.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.kind),
            line => write!(f, "{}:{line}: {}", self.file, self.kind),
        }
    }
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum FaultKind {
    /// The name is not one of a migration.
    #[error(
        "the name is not one of a migration: write V, U or C, a version, two underscores, a description and .sql, \
         such as V1.1__add_preferences.sql, or R__ and a description for one that is run whenever it changes"
    )]
    Name,
    /// What other tools know by that name.
    #[error("{0} are not supported")]
    Unsupported(&'static str),
    /// A placeholder that nobody has declared, or that has no place where it is.
    #[error(
        "`${{{0}}}` is not declared: give it a value under [migrations.placeholders], or put \
         `-- grey: no-placeholders` at the top of the file if it is meant as it is"
    )]
    Placeholder(String),
    /// Something that a file which is run again and again cannot do.
    #[error("a repeatable file {0}")]
    Repeatable(&'static str),
    /// The name's version is not a version.
    #[error("the name's {0}")]
    Version(String),
    /// The name's variant is not a dialect.
    #[error("`{0}` in the name is not a dialect: write postgres, mysql or sqlite")]
    Variant(String),
    /// Another file has the same role for the same version and dialect.
    #[error("`{other}` is for the same version")]
    Twice {
        /// The other file.
        other: String,
    },
    /// A variant has another description than the plain file.
    #[error("`{other}` is the same migration under another description")]
    Description {
        /// The other file.
        other: String,
    },
    /// An undo or check file has no migration.
    #[error("there is no migration to this version")]
    Alone,
    /// It is not a regular file.
    #[error("it is not a regular file")]
    NotAFile,
    /// It leads outside the folder.
    #[error("it leads outside the folder of migrations")]
    Outside,
    /// It is too large.
    #[error("it has {bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// Most bytes.
        limit: u64,
    },
    /// The service's files are too large together.
    #[error("with it the service's files have more than {limit} bytes")]
    TooLargeTogether {
        /// Most bytes.
        limit: u64,
    },
    /// It is not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It has no statement.
    #[error("it holds no statement")]
    Empty,
    /// A quote, a comment or the like is not ended, or a character is not SQL.
    #[error("{0}")]
    Token(String),
    /// A block has no END.
    #[error("the statement's BEGIN, IF, CASE, loop or parenthesis has no end")]
    OpenBlock,
    /// Something only a client program knows.
    #[error("`{0}` is a command of a client program, not SQL")]
    ClientCommand(String),
    /// A delimiter that cannot be told from quotes and comments.
    #[error("`{0}` cannot be a delimiter")]
    Delimiter(String),
    /// A comment that MySQL executes.
    #[error("a comment that is executed hides what it does: write it as a statement")]
    ExecutableComment,
    /// It begins or ends a transaction, or takes locks that last.
    #[error("`{0}` is not allowed: transactions and locks are the migrator's")]
    Transaction(String),
    /// It changes the session that the migrator works in.
    #[error("`{0}` is not allowed: it changes the session that the migrator works in")]
    Session(String),
    /// It touches the migrator's own tables.
    #[error("`{0}` belongs to the migrator")]
    OwnTable(String),
    /// It cannot run in a transaction.
    #[error("`{0}` cannot run in a transaction: put `-- grey: no-transaction` at the top of the file")]
    NeedsNoTransaction(String),
    /// A directive is not understood.
    #[error("directive {0}")]
    Directive(String),
    /// A check that is not a query.
    #[error("a check must be a query: it begins with SELECT or WITH and returns no row if all is well")]
    CheckNotQuery,
}

impl FaultKind {
    /// Its short name, for findings.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Unsupported(_) => "unsupported",
            Self::Placeholder(_) => "placeholder",
            Self::Repeatable(_) => "repeatable",
            Self::Name | Self::Version(_) | Self::Variant(_) | Self::Description { .. } => "file-name",
            Self::Twice { .. } => "duplicate",
            Self::Alone => "no-migration",
            Self::NotAFile | Self::Outside => "outside",
            Self::TooLarge { .. } | Self::TooLargeTogether { .. } | Self::NotText | Self::Empty => {
                "file-content"
            }
            Self::Token(_) | Self::OpenBlock | Self::Delimiter(_) | Self::ExecutableComment => "syntax",
            Self::ClientCommand(_) => "client-command",
            Self::Transaction(_) => "transaction-control",
            Self::Session(_) => "session-state",
            Self::OwnTable(_) => "own-table",
            Self::NeedsNoTransaction(_) => "needs-no-transaction",
            Self::Directive(_) => "directive",
            Self::CheckNotQuery => "check-not-query",
        }
    }
}
