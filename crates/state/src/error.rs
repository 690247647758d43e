//! What can go wrong with shared state.

use std::time::Duration;

/// Why shared state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server could not be reached or refused the command. Worth a retry.
    #[error("{attempted}")]
    Unavailable {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// The client's error.
        #[source]
        source: ::redis::RedisError,
    },
    /// The server did not answer in time. Worth a retry; the command may have been carried out.
    #[error("{attempted}: no answer within {deadline:?}")]
    Timeout {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// How long was waited.
        deadline: Duration,
    },
    /// Something stored does not read back. The projection must be rebuilt.
    #[error("read `{key}`: {why}")]
    Corrupt {
        /// Where it is stored.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A newer leader has written: this one must stop at once.
    #[error("{attempted}: fenced off by token {newest}")]
    Fenced {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// The newest token seen.
        newest: u64,
    },
    /// As much waits as may wait. Worth a retry, later.
    #[error("{attempted}: {limit} wait already")]
    Full {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// Most that may wait.
        limit: usize,
    },
    /// The configuration cannot be used.
    #[error("configure shared state: {0}")]
    Config(String),
}
