//! Requests to the leader, as they are left for it.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::time::millis;

/// Requests that nobody took for so long are not carried out any more: things have changed since.
const TOO_OLD: Duration = Duration::from_secs(600);

/// What the leader is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A full sync now.
    Trigger,
    /// Apply the held change of this id.
    Accept(String),
}

/// A request to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Names the request.
    pub id: String,
    /// What is asked.
    pub action: Action,
    /// Who asks, for the log.
    pub by: String,
}

/// A request in the store: JSON, so that an operator can read it there.
#[derive(Serialize, Deserialize)]
struct Stored<R> {
    #[serde(flatten)]
    request: R,
    at_ms: u64,
}

impl Request {
    pub(crate) fn to_bytes(&self, now: SystemTime) -> Vec<u8> {
        let stored = Stored { request: self, at_ms: millis(now) };
        serde_json::to_vec(&stored).expect("texts and numbers can be written as JSON")
    }

    /// Reads what was left in the store, and whether it waited for too long.
    pub(crate) fn read(bytes: &[u8], now: SystemTime) -> Result<(Self, bool), serde_json::Error> {
        let Stored { request, at_ms } = serde_json::from_slice(bytes)?;
        let age = Duration::from_millis(millis(now).saturating_sub(at_ms));
        Ok((request, age > TOO_OLD))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn requests_read_back_and_grow_too_old() {
        let now = SystemTime::now();
        for action in [Action::Trigger, Action::Accept("payment@dc-1/7".to_owned())] {
            let request = Request { id: "r1".to_owned(), action, by: "ops \"1\"".to_owned() };
            let bytes = request.to_bytes(now);
            for at in [now, now - TOO_OLD, now + TOO_OLD] {
                assert_eq!(Request::read(&bytes, at).unwrap(), (request.clone(), false));
            }
            let later = now + TOO_OLD + Duration::from_secs(1);
            assert_eq!(Request::read(&bytes, later).unwrap(), (request, true));
        }
        assert!(Request::read(b"\xff", now).is_err());
    }
}
