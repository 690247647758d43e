//! Frames of late, to be sent by whoever has not sent them yet: bounded by bytes, whatever was kept first goes first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use grey_core::change::Revision;

/// What a frame that is kept takes besides its bytes, about.
const ENTRY: usize = 128;

/// What a frame tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Told {
    /// The event of a revision.
    Event(Revision),
    /// The replacement of a list of instances, by its number.
    Instances(u64),
}

/// An event, or a list, as it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Encoded {
    /// A message of gRPC.
    Frame(Bytes),
    /// It is not sent as such: whoever needs it starts over.
    Omitted,
}

/// See the module's documentation.
pub(super) struct Recent {
    limit: usize,
    bytes: usize,
    frames: HashMap<Told, Encoded>,
    order: VecDeque<Told>,
    /// Bytes kept by all of these there are.
    total: Arc<AtomicU64>,
}

impl Recent {
    pub(super) fn new(limit: usize, total: Arc<AtomicU64>) -> Self {
        Self { limit, bytes: 0, frames: HashMap::new(), order: VecDeque::new(), total }
    }

    pub(super) fn get(&self, told: Told) -> Option<&Encoded> {
        self.frames.get(&told)
    }

    /// Keeps a frame, unless it is kept already or is larger than all that may be.
    pub(super) fn keep(&mut self, told: Told, encoded: Encoded) {
        if self.frames.contains_key(&told) {
            return;
        }
        let bytes = size(&encoded);
        self.bytes += bytes;
        self.total.fetch_add(bytes as u64, Relaxed);
        self.frames.insert(told, encoded);
        self.order.push_back(told);
        self.trim();
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.trim();
    }

    pub(super) fn clear(&mut self) {
        while self.drop_first() {}
    }

    fn trim(&mut self) {
        while self.bytes > self.limit && self.drop_first() {}
    }

    fn drop_first(&mut self) -> bool {
        let Some(first) = self.order.pop_front() else { return false };
        let bytes = self.frames.remove(&first).as_ref().map_or(0, size);
        self.bytes -= bytes;
        self.total.fetch_sub(bytes as u64, Relaxed);
        true
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.clear();
    }
}

fn size(encoded: &Encoded) -> usize {
    match encoded {
        Encoded::Frame(bytes) => ENTRY + bytes.len(),
        Encoded::Omitted => ENTRY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_bytes_and_counted() {
        let total = Arc::new(AtomicU64::new(0));
        let mut recent = Recent::new(3 * (100 + ENTRY), Arc::clone(&total));
        let told = |revision| Told::Event(Revision(revision));
        let frame = |bytes| Encoded::Frame(Bytes::from(vec![7; bytes]));
        let kept = |recent: &Recent| (1..=9).filter(|at| recent.get(told(*at)).is_some()).collect::<Vec<_>>();
        (1..=5).for_each(|at| recent.keep(told(at), frame(100)));
        assert_eq!(kept(&recent), [3, 4, 5]);
        recent.keep(told(3), frame(1));
        assert_eq!(recent.get(told(3)), Some(&frame(100)), "once");
        recent.keep(told(6), frame(250));
        assert_eq!(kept(&recent), [5, 6], "by bytes, not by count");
        assert_eq!(total.load(Relaxed), (100 + 250 + 2 * ENTRY) as u64);
        recent.set_limit(ENTRY + 250);
        assert_eq!(kept(&recent), [6]);
        recent.keep(told(7), frame(10_000));
        assert!(kept(&recent).is_empty(), "nor does one that is too large stay");
        recent.keep(told(8), Encoded::Omitted);
        drop(recent);
        assert_eq!(total.load(Relaxed), 0);
    }
}
