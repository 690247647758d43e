//! Turns of a group, counted by each core for itself: one count of all cores would be a cache line that they take from each
//! other with every call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of a group; of more cores, some share one.
const LINES: usize = 8;

/// The counts of a group. Each begins at another instance, so that the first calls of all cores do not meet at one.
#[derive(Debug)]
pub(super) struct Turns([Line; LINES]);

/// A count, alone on its cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Line(AtomicU64);

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(std::array::from_fn(|core| Line(AtomicU64::new(core as u64)))))
    }

    /// Whose turn it is on this core, which is then the next one's.
    pub(super) fn take(&self, core: usize) -> u64 {
        self.of(core).fetch_add(1, Relaxed)
    }

    /// Whose turn it is on this core.
    pub(super) fn peek(&self, core: usize) -> u64 {
        self.of(core).load(Relaxed)
    }

    fn of(&self, core: usize) -> &AtomicU64 {
        let [first, ..] = &self.0;
        &self.0.get(core % LINES).unwrap_or(first).0
    }
}
