//! Waiting for a condition instead of sleeping.

use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::time::{Instant, sleep, timeout_at};

/// Time between two looks at a condition.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Polls `condition` until it holds; `what` says in a few words what is waited for.
///
/// A condition that hangs counts as one that does not hold. Needs the real clock: under a paused one the
/// deadline passes at once.
///
/// # Panics
/// Panics with `what` and the caller's place when `deadline` passes first.
#[track_caller]
pub fn eventually<C>(deadline: Duration, what: &str, mut condition: C) -> impl Future<Output = ()>
where
    C: AsyncFnMut() -> bool,
{
    let caller = Location::caller();
    async move {
        let end = Instant::now() + deadline;
        while !timeout_at(end, condition()).await.unwrap_or(false) {
            assert!(Instant::now() < end, "not within {deadline:?}: {what} (waited for at {caller})");
            sleep(POLL).await;
        }
    }
}

/// Repeats `attempt` until it succeeds, and returns its value.
///
/// # Errors
/// Returns the last failure, with `what` as its context, when `deadline` passes first.
pub(crate) async fn retry<T, A, F>(deadline: Duration, what: &str, mut attempt: A) -> Result<T>
where
    A: FnMut() -> F,
    F: Future<Output = Result<T>>,
{
    let end = Instant::now() + deadline;
    let mut last = anyhow!("no attempt ended in time");
    loop {
        match timeout_at(end, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if Instant::now() >= end {
            return Err(last).with_context(|| format!("{what} within {deadline:?}"));
        }
        sleep(POLL).await;
    }
}
