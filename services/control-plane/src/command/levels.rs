//! Facts that a router of an older release would not obey are refused while such a one serves.

use grey_core::change::FormatLevel;
use grey_core::error::Reason;
use grey_proto::status::ApiError;
use grey_state::Heartbeats;
use grey_state::heartbeats::{Heartbeat, below};

use super::error::{Error, chain};

/// Most routers that a refusal names.
const NAMED: usize = 10;

/// Refuses an event that needs `level` if a live router is below it. What every release obeys needs no look.
pub(super) async fn refuse_above(level: FormatLevel, heartbeats: &dyn Heartbeats) -> Result<(), Error> {
    if level <= FormatLevel::FIRST {
        return Ok(());
    }
    let routers = heartbeats.live().await.map_err(|error| {
        tracing::warn!(error = %chain(&error), "routers' format levels could not be read");
        let message =
            "the routers' releases cannot be read, and this change needs that all obey it; retry later";
        ApiError::new(Reason::Unavailable, message)
    })?;
    Ok(check(level, &routers)?)
}

fn check(level: FormatLevel, routers: &[Heartbeat]) -> Result<(), ApiError> {
    let old: Vec<&str> = below(level, routers).map(|router| router.router.as_str()).collect();
    if old.is_empty() {
        return Ok(());
    }
    let named = old.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = if old.len() > NAMED { format!(" and {} more", old.len() - NAMED) } else { String::new() };
    let message = format!(
        "the change needs format level {level}, which these routers do not obey: {named}{more}; \
         upgrade or stop them first"
    );
    let refusal = ApiError::new(Reason::RoutersTooOld, message);
    Err(refusal.with("routers", old.join(",")).with("level", level.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
    use super::*;
    use grey_core::change::Position;
    use grey_state::State;
    use grey_state::heartbeats::Goodbye;
    use std::time::Duration;

    #[tokio::test]
    async fn a_change_that_some_router_would_not_obey_is_refused_naming_it() {
        let state = State::memory();
        let refused = async |level| match refuse_above(FormatLevel(level), &*state.heartbeats).await {
            Ok(()) => None,
            Err(Error::Refused(refusal)) => Some(refusal),
            Err(other) => panic!("{other}"),
        };
        assert!(refused(2).await.is_none(), "nobody serves");
        for (router, level) in [("old", 1), ("new", 2), ("newer", 3)] {
            let heartbeat = Heartbeat {
                router: router.to_owned(),
                run: 1,
                address: String::new(),
                region: String::new(),
                zone: String::new(),
                position: Position::default(),
                digest: 0,
                stale: false,
                level: FormatLevel(level),
                lease: Duration::from_secs(60),
            };
            state.heartbeats.beat(&heartbeat).await.unwrap();
        }
        assert!(refused(1).await.is_none());
        let refusal = refused(2).await.unwrap();
        assert_eq!(refusal.reason, Reason::RoutersTooOld);
        assert!(refusal.message.contains(": old;"), "{}", refusal.message);
        let refusal = refused(3).await.unwrap();
        assert!(refusal.message.contains(": new, old;"), "{}", refusal.message);
        let goodbye = Goodbye { router: "old".to_owned(), run: 1 };
        state.heartbeats.leave(&goodbye).await.unwrap();
        assert!(refused(2).await.is_none());
    }
}
