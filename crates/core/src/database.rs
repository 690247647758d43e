//! Where the databases of tenants are. No decision needs it; who registered what belongs to the history all the same.

use std::fmt;
use std::str::FromStr;

/// How a tenant's data is kept apart from that of others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DatabaseKind {
    /// A database of its own.
    Database,
    /// A PostgreSQL schema of its own, reached by the search path.
    Schema,
    /// A SQLite file of its own.
    File,
}

/// What a database understands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
}

impl Dialect {
    /// The dialect's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be postgres, mysql or sqlite")]
pub struct UnknownDialect;

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, UnknownDialect> {
        let known = [Self::Postgres, Self::MySql, Self::Sqlite];
        known.into_iter().find(|dialect| dialect.as_str() == text).ok_or(UnknownDialect)
    }
}

/// A tenant's database for a service, without anything that would let one in.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Database {
    /// How it is kept apart from those of others.
    pub kind: DatabaseKind,
    /// What it understands.
    pub dialect: Dialect,
    /// Host and port, or the file.
    pub server: String,
    /// The database on the server; empty for a file.
    pub name: String,
    /// The PostgreSQL schema; empty unless the tenant has one of its own.
    pub schema: String,
    /// Host and port that migrations connect to, past a pooler; empty: those of `server`.
    pub direct_server: String,
}
