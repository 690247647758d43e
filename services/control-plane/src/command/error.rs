//! Why a command was not carried out.

use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::status::ApiError;

use crate::database;
use crate::entity::events;

/// What is told of a database without room.
pub(crate) const NO_ROOM: &str = "the control database has no room left; free disk space";

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller expects something else, or a rule forbids it. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The database failed before the commit. Nothing was changed.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The connection was lost while the database was committing: it may have committed.
    #[error("commit a command: the outcome is unknown")]
    Unknown(#[source] database::Error),
    /// The command waited too long for those before it. Nothing was changed.
    #[error("carry out a command: not begun within {0:?}")]
    Late(Duration),
    /// Too many commands are waiting. Nothing was changed.
    #[error("take a command: too many are waiting")]
    Busy,
    /// The writer has ended. Nothing was changed.
    #[error("take a command: shutting down")]
    Stopped,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal,
            Error::Database(error) => error.into(),
            Error::Unknown(_) => Self::new(
                Reason::Unavailable,
                "the database did not confirm the commit: the write may have been applied; read it back, or repeat \
                 the write with its expected_revision",
            ),
            Error::Late(_) | Error::Busy => Self::new(
                Reason::RateLimited,
                "too many writes are waiting; nothing was changed, retry later",
            ),
            Error::Stopped => Self::new(Reason::Unavailable, "shutting down; nothing was changed"),
        }
    }
}

impl From<database::Error> for ApiError {
    fn from(error: database::Error) -> Self {
        if error.is_full() {
            tracing::error!(error = %chain(&error), "control database has no room left");
            return Self::new(Reason::Unavailable, format!("{NO_ROOM}; nothing was changed"));
        }
        if let database::Error::Corrupt { table: events::TABLE, why } = &error {
            tracing::error!(why, "an event does not read back");
            let message = format!("the log holds what does not read: {why}; see `grey events --verify`");
            return Self::new(Reason::RevisionUnavailable, message);
        }
        let reason = if error.is_transient() { Reason::Unavailable } else { Reason::Internal };
        tracing::error!(error = %chain(&error), "control database failed");
        Self::new(reason, "the control database does not answer; retry later")
    }
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        // Drivers repeat their cause in their own text.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}
