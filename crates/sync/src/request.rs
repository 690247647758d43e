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
#[derive(Debug, Clone, PartialEq, Eq)]
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
struct Stored {
    id: String,
    action: Action,
    by: String,
    at_ms: u64,
}

/// What was found in the store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A request to carry out.
    Fresh(Request),
    /// A request that waited for too long.
    TooOld(Request),
}

impl Request {
    pub(crate) fn to_bytes(&self, now: SystemTime) -> Vec<u8> {
        let Self { id, action, by } = self.clone();
        let stored = Stored { id, action, by, at_ms: millis(now) };
        serde_json::to_vec(&stored).expect("texts and numbers can be written as JSON")
    }
}

impl Found {
    pub(crate) fn read(bytes: &[u8], now: SystemTime) -> Result<Self, serde_json::Error> {
        let Stored { id, action, by, at_ms } = serde_json::from_slice(bytes)?;
        let request = Request { id, action, by };
        let age = Duration::from_millis(millis(now).saturating_sub(at_ms));
        Ok(if age > TOO_OLD { Self::TooOld(request) } else { Self::Fresh(request) })
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
            assert_eq!(Found::read(&bytes, now).unwrap(), Found::Fresh(request.clone()));
            assert_eq!(Found::read(&bytes, now - TOO_OLD).unwrap(), Found::Fresh(request.clone()));
            assert_eq!(Found::read(&bytes, now + TOO_OLD).unwrap(), Found::Fresh(request.clone()));
            let later = now + TOO_OLD + Duration::from_secs(1);
            assert_eq!(Found::read(&bytes, later).unwrap(), Found::TooOld(request));
        }
        assert!(Found::read(b"\xff", now).is_err());
    }
}
