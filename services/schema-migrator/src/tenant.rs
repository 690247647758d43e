//! The database of one tenant for one service: connected once, locked, and asked what was done to it.
//!
//! A [`Connection`] is exactly one session: it never reconnects by itself, since locks and settings are the session's.
//! When it is lost, every further call says [`Error::Unreachable`], and whoever uses it opens another one.

mod accept;
mod answer;
mod baseline;
mod catalog;
mod cause;
mod classify;
mod connect;
mod contents;
mod drift;
mod facts;
mod fleet;
mod history;
mod journal;
mod limits;
mod lock;
mod mysql_tls;
mod names;
mod pinned;
mod pool;
mod repair;
mod session;
mod sql;

pub use accept::{Accepted, accept};
pub use baseline::{Baseline, Declared as DeclaredBaseline, baseline, flyway};
pub use catalog::Catalog;
pub(crate) use classify::is_missing_object;
pub use connect::Connection;
pub(crate) use connect::column;
pub use drift::{Change, Difference, Drift};
pub use fleet::{facts_of_many, read_many};
pub use history::{Entered, entered};
pub(crate) use history::{NewEntry, now_ms};
pub use journal::{Mark, Record};
pub use names::Names;
pub(crate) use pool::server;
pub use repair::{Declared, Repair, half_done, repair};
pub(crate) use session::Verified;
pub(crate) use sql::Sql;

use crate::files::{Dialect, Piece, pieces};
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_runtime::Secret;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Which database it is.
#[derive(Clone, Debug)]
pub struct Target {
    /// The tenant.
    pub tenant: TenantId,
    /// The service whose history it is.
    pub service: ServiceId,
    /// The dialect.
    pub dialect: Dialect,
    /// Where it is, with credentials.
    pub url: Secret,
    /// The tenant's schema, where tenants share a PostgreSQL database.
    pub schema: Option<String>,
}

/// How long is waited for a tenant's database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection.
    #[serde(with = "grey_runtime::config::duration")]
    pub connect: Duration,
    /// For a lock that another session holds: on a table, and the one on the history.
    #[serde(with = "grey_runtime::config::duration")]
    pub lock: Duration,
    /// For one statement.
    #[serde(with = "grey_runtime::config::duration")]
    pub statement: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            lock: Duration::from_secs(5),
            statement: Duration::from_secs(300),
        }
    }
}

/// When to stop: asked to, or out of time.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Cancelled when someone asks to stop.
    pub token: CancellationToken,
    /// When the time is up.
    pub deadline: Instant,
}

impl Stop {
    /// Stops after `time` at the latest, or once `token` is cancelled.
    #[must_use]
    pub fn within(time: Duration, token: CancellationToken) -> Self {
        Self { token, deadline: Instant::now() + time }
    }

    /// Fails if it is time to stop.
    ///
    /// # Errors
    /// With [`Error::Cancelled`] or [`Error::OutOfTime`].
    pub fn check(&self) -> Result<(), Error> {
        if self.token.is_cancelled() {
            Err(Error::Cancelled)
        } else if Instant::now() >= self.deadline {
            Err(Error::OutOfTime)
        } else {
            Ok(())
        }
    }
}

/// Why a tenant's database did not do what was asked. No text holds a URL or a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no connection, or no longer: whether a statement under way took effect is not known.
    #[error("{attempted}: {why}")]
    Unreachable {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// In the driver's words.
        why: String,
    },
    /// A pooler stands between, or something like it: the session is lent, and was begun by somebody else.
    #[error(
        "connect to the tenant's database: a pooler such as PgBouncer stands between, which lends sessions that others have \
         set up; register the server's own address for migrations, as direct URL"
    )]
    Pooled,
    /// The database does not let the migrator in: a wrong password, no such database or schema.
    #[error("{attempted}: {why}")]
    Refused {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// In the database's words.
        why: String,
    },
    /// The database refused a statement, which had no effect.
    #[error("{}: {message} ({code})", Place::of(attempted, *line, text))]
    Statement {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// SQLSTATE; in the MySQL family the error's number, in SQLite its extended code.
        code: String,
        /// In the database's words, with what it adds as detail and hint.
        message: String,
        /// The line of the file that it begins on; 0: it is not from a file.
        line: u32,
        /// The statement of the file, shortened and without passwords; empty: it is not from a file.
        text: String,
    },
    /// A check found a row.
    #[error("check on line {line} found a row: {row}")]
    Check {
        /// The line of the check file that it begins on.
        line: u32,
        /// The row, cut to a bounded length.
        row: String,
    },
    /// Another session holds the lock on the history.
    #[error("lock the migration history: another session still held the lock after {waited:?}")]
    Locked {
        /// How long was waited.
        waited: Duration,
    },
    /// A crash came in the middle of a statement, and nothing tells whether it took effect.
    #[error(
        "it cannot be told whether the statement on line {line} took effect before a crash; see to it by hand"
    )]
    Undecided {
        /// The line that it begins on.
        line: u32,
    },
    /// Someone asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The time is up.
    #[error("the time for the run is up")]
    OutOfTime,
    /// The history or the journal does not read back.
    #[error("read the migration history: {0}")]
    Corrupt(String),
    /// What was asked for does not fit what is there.
    #[error("{0}")]
    Conflict(String),
}

/// Where a statement was refused.
struct Place<'a> {
    attempted: &'a str,
    line: u32,
    text: &'a str,
}

impl<'a> Place<'a> {
    fn of(attempted: &'a str, line: u32, text: &'a str) -> Self {
        Self { attempted, line, text }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.text) {
            (0, _) => f.write_str(self.attempted),
            (line, "") => write!(f, "line {line}"),
            (line, text) => write!(f, "line {line}: {text}"),
        }
    }
}

impl Error {
    /// The error, with the statement of a file that was refused.
    #[must_use]
    pub(crate) fn about(mut self, sql: &str, dialect: Dialect) -> Self {
        if let Self::Statement { text, line, message, .. } = &mut self
            && *line > 0
        {
            *text = shortened(sql, dialect);
            // Where servers quote the statement themselves.
            if hides(sql, &pieces(sql, dialect).0)
                && let Some(quote) =
                    [" at or near ", " near "].into_iter().find_map(|near| message.find(near))
            {
                message.truncate(quote);
            }
        }
        self
    }

    /// Whether the connection is lost, so that trying again on another one may help.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether nothing more can be done on the connection.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Pooled)
    }

    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. } => Reason::DatabaseUnavailable,
            Self::Refused { .. } | Self::Pooled => Reason::DatabaseRefused,
            Self::Statement { .. }
            | Self::Check { .. }
            | Self::Conflict(_)
            | Self::Corrupt(_)
            | Self::Undecided { .. } => Reason::MigrationRefused,
            Self::Locked { .. } => Reason::UpgradeRunning,
            Self::Cancelled | Self::OutOfTime => Reason::Unavailable,
        }
    }

    /// Whether a lock on a table, held by another session, was not to be had in time.
    #[must_use]
    pub fn is_lock_timeout(&self) -> bool {
        match self {
            Self::Statement { code, message, .. } => {
                matches!(code.as_str(), "55P03" | "1205" | "5" | "261" | "517" | "6" | "262")
                    || message.contains("database is locked")
            }
            _ => false,
        }
    }
}

/// Longest text of a statement in an error.
const LONGEST_STATEMENT: usize = 160;

/// A statement on one line, cut; texts in it are left out where one may be a password.
fn shortened(sql: &str, dialect: Dialect) -> String {
    let (pieces, _) = pieces(sql, dialect);
    let hides = hides(sql, &pieces);
    let mut text = String::new();
    for piece in &pieces {
        let part = sql.get(piece.range.clone()).unwrap_or_default();
        match piece.word() {
            _ if piece.is_blank() => text.push(' '),
            None if hides && part.len() > 1 => text.push_str("'…'"),
            _ => text.push_str(part),
        }
        if text.len() > LONGEST_STATEMENT * 8 {
            break;
        }
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(LONGEST_STATEMENT).collect();
    if cut.len() < line.len() { format!("{cut}…") } else { cut }
}

/// Whether a text in a statement may be a password.
fn hides(sql: &str, pieces: &[Piece]) -> bool {
    let secret = |piece: &Piece| ["IDENTIFIED", "ENCRYPTED", "CONNECTION"].iter().any(|it| piece.is(it));
    sql.to_ascii_lowercase().contains("password") || pieces.iter().any(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_quotes_of_a_password_is_left_out() {
        let told = |sql: &str| {
            let message = "You have an error in your SQL syntax near 's3cret' at line 1".to_owned();
            let (code, text) = ("1064".to_owned(), String::new());
            let error = Error::Statement { attempted: "run a statement", code, message, line: 1, text };
            error.about(sql, Dialect::MySql).to_string()
        };
        assert!(!told("CREATE USER a IDENTIFIED BY BY 's3cret'").contains("s3cret"));
        assert!(told("INSERT INTO a VALUES VALUES ('s3cret')").contains("near 's3cret'"));
    }

    #[test]
    fn a_statement_in_an_error_is_short_and_has_no_password() {
        let short = |sql| shortened(sql, Dialect::Postgres);
        assert_eq!(short("INSERT INTO a\n  -- why\n  VALUES ('x')"), "INSERT INTO a VALUES ('x')");
        let hidden = short("ALTER ROLE \"a\" PASSWORD 's3cret' VALID UNTIL $$s3cret$$");
        assert!(!hidden.contains("s3cret") && hidden.starts_with("ALTER ROLE"), "{hidden}");
        for sql in [
            "CREATE SUBSCRIPTION s CONNECTION 'host=a s3cret' PUBLICATION p",
            "SELECT dblink('host=a password=s3cret')",
        ] {
            assert!(!short(sql).contains("s3cret"), "{sql}");
        }
        assert_eq!(short(&"SELECT 1, ".repeat(100)).chars().count(), LONGEST_STATEMENT + 1);
    }
}
