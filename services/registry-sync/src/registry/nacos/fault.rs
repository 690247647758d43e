//! Why Nacos could not be read.

use std::time::Duration;

use nacos_sdk::api::error::Error;

/// The codes of an answer that say that the caller is not let in.
const DENIED: [i32; 2] = [401, 403];

/// Why a cluster could not be read, in words without secrets.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum Fault {
    /// Nothing came back.
    #[error("{what}: no answer within {after:?}")]
    Silent { what: String, after: Duration },
    /// No server listens.
    #[error("connect to {server}: {cause}")]
    Unreachable { server: String, cause: String },
    /// The login was refused or not answered.
    #[error("log in: {cause}")]
    Login { cause: String },
    /// The server does not let the caller in.
    #[error("{what}: denied: {cause}")]
    Denied { what: String, cause: String },
    /// The server, or the connection to it, says no.
    #[error("{what}: {cause}")]
    Refused { what: String, cause: String },
    /// The pages of a list did not make a whole.
    #[error("{what}: the list changed while it was read, {tries} times")]
    Moving { what: String, tries: u32 },
}

impl Fault {
    /// What the library says about the call `what`, without the request's id, which no two attempts share.
    pub(super) fn of(what: &str, error: Error) -> Self {
        let what = what.to_owned();
        match error {
            Error::ErrResponse(_, result, code, message) => {
                let cause = format!("{code} {}", message.unwrap_or_default());
                if DENIED.contains(&code) || DENIED.contains(&result) {
                    Self::Denied { what, cause }
                } else {
                    Self::Refused { what, cause }
                }
            }
            other => Self::Refused { what, cause: other.to_string() },
        }
    }
}
