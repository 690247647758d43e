//! Shared state within one process, for the standalone binary and for tests.
//!
//! It keeps the same promises as Redis does, fencing and loss of place included, so code that works on one
//! works on the other. It knows neither other processes nor restarts.

mod feed;
mod heartbeats;
mod instances;
mod leases;
mod projection;
mod requests;
mod statuses;
mod turns;

use crate::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How much the feeds keep for readers that fall behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Events kept.
    pub feed_length: usize,
    /// Replacements of instance lists kept.
    pub instances_length: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { feed_length: 100_000, instances_length: 1_000 }
    }
}

impl State {
    /// Shared state within this process; every clone of the answer shares it.
    #[must_use]
    pub fn memory() -> Self {
        Self::memory_with(&Options::default())
    }

    /// As [`Self::memory`], with other bounds.
    #[must_use]
    pub fn memory_with(options: &Options) -> Self {
        Self {
            feed: Arc::new(feed::MemoryFeed::new(options.feed_length)),
            projection: Arc::new(projection::MemoryProjection::default()),
            instances: Arc::new(instances::MemoryInstances::new(options.instances_length)),
            leases: Arc::new(leases::MemoryLeases::default()),
            turns: Arc::new(turns::MemoryTurns::default()),
            heartbeats: Arc::new(heartbeats::MemoryHeartbeats::default()),
            requests: Arc::new(requests::MemoryRequests::default()),
            statuses: Arc::new(statuses::MemoryStatuses::default()),
        }
    }
}

/// Every update is finished before anything in it can panic, so a poisoned lock guards sound data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of a wait that starts now; a day is forever.
fn end_of(wait: Duration) -> Instant {
    Instant::now() + wait.min(Duration::from_secs(86_400))
}
