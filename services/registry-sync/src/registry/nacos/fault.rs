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
    /// Nothing can be encrypted.
    #[error("encrypt connections: {cause}")]
    Tunnel { cause: String },
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
    /// More names than there may be services.
    #[error("{what}: there are more than {most}, which is the most services that there may be")]
    TooMany { what: String, most: u64 },
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
            // Alibaba's servers refuse with an answer that lacks what the library expects in every answer.
            Error::Serialization(error) => Self::Denied {
                what,
                cause: format!("the answer cannot be read, which may be a refusal: {error}"),
            },
            other => Self::Refused { what, cause: other.to_string() },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    fn answer(result: i32, code: i32) -> String {
        Fault::of("list", Error::ErrResponse(Some("7".to_owned()), result, code, Some("why".to_owned())))
            .to_string()
    }

    #[test]
    fn refusals_are_told_from_other_answers_and_hold_no_request_id() {
        assert_eq!(answer(500, 403), "list: denied: 403 why");
        assert_eq!(answer(401, 500), "list: denied: 500 why");
        assert_eq!(answer(500, 500), "list: 500 why");
        let unreadable = serde_json::from_str::<u8>("{}").unwrap_err();
        let fault = Fault::of("list", Error::Serialization(unreadable));
        assert!(matches!(fault, Fault::Denied { .. }), "{fault}");
        assert_eq!(Fault::of("list", Error::NoAvailableServer).to_string(), "list: no available server");
    }
}
