//! Events on their way from the feed to the projection, which is written beside the publishing: what it takes to project a
//! hundred thousand pins holds up no event that follows.

use crate::Error;
use crate::feed::FeedEntry;
use crate::projection::ProjectionStatus;
use grey_core::change::{Event, Revision};
use std::collections::VecDeque;
use std::future::Future;
use tokio::task::{JoinError, JoinSet};

/// Changes after which another batch of events is projected: as many units may have to be written anew if one of them
/// turns out to be damaged, and a router that loads meanwhile has them to fold.
const BATCH_CHANGES: usize = 4_000;
/// Changes of events that are kept until they are projected, of one event at least; others are read from the log again.
const MAX_CHANGES: usize = 100_000;

/// What was published and not projected yet, in order, as far as it is kept.
#[derive(Default)]
pub(super) struct Backlog {
    events: VecDeque<FeedEntry>,
    changes: usize,
}

impl Backlog {
    /// Takes what follows the events before, if there is room.
    pub(super) fn push(&mut self, entry: FeedEntry) {
        let changes = entry.event.changes.len();
        let has_room = self.events.is_empty() || self.changes + changes <= MAX_CHANGES;
        let last = self.events.back().map(|last| last.event.revision);
        if has_room && last.is_none_or(|last| last.next() == entry.event.revision) {
            self.changes += changes;
            self.events.push_back(entry);
        }
    }

    /// The next batch after a revision: of a bounded number of changes, and of one event at least; none if what follows
    /// is not kept.
    pub(super) fn batch_after(&mut self, after: Revision) -> Vec<FeedEntry> {
        let known = self.events.partition_point(|entry| entry.event.revision <= after);
        self.take(known);
        let first = self.events.front().map(|entry| entry.event.revision);
        if first.is_some_and(|first| first != after.next()) {
            // The projection is behind what is kept.
            *self = Self::default();
        }
        let mut changes = 0;
        let fits = |entry: &&FeedEntry| {
            changes += entry.event.changes.len();
            changes <= BATCH_CHANGES
        };
        let fitting = self.events.iter().take_while(fits).count().max(1).min(self.events.len());
        self.take(fitting)
    }

    fn take(&mut self, count: usize) -> Vec<FeedEntry> {
        let taken: Vec<FeedEntry> = self.events.drain(..count).collect();
        self.changes -= taken.iter().map(|entry| entry.event.changes.len()).sum::<usize>();
        taken
    }
}

/// A batch that was projected, or failed to be.
pub(super) struct Projection {
    pub(super) events: Vec<Event>,
    pub(super) reached: ProjectionStatus,
    pub(super) outcome: Result<(), Error>,
}

/// The batch that is being projected; its work ends with its owner.
#[derive(Default)]
pub(super) struct Underway {
    running: JoinSet<Projection>,
    done: Option<Projection>,
}

impl Underway {
    /// Whether a batch is being projected, or what came of it has not been taken.
    pub(super) fn is_busy(&self) -> bool {
        self.done.is_some() || !self.running.is_empty()
    }

    pub(super) fn start(&mut self, projecting: impl Future<Output = Projection> + Send + 'static) {
        self.running.spawn(projecting);
    }

    /// What came of the batch that was under way, if its work has ended.
    pub(super) fn finished(&mut self) -> Option<Projection> {
        self.done.take().or_else(|| self.running.try_join_next().map(outcome))
    }

    /// Waits until the work under way has ended; for ever, if there is none.
    pub(super) async fn wait(&mut self) {
        if self.done.is_some() {
            return;
        }
        match self.running.join_next().await {
            Some(joined) => self.done = Some(outcome(joined)),
            None => std::future::pending().await,
        }
    }

    /// Ends the work under way, wherever it is.
    pub(super) async fn stop(&mut self) {
        self.running.shutdown().await;
    }
}

/// A panic goes on where the publication is started over after one. Nothing else ends the work early but [`Underway::stop`],
/// after which nobody waits for it.
fn outcome(joined: Result<Projection, JoinError>) -> Projection {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digests;
    use grey_core::change::Change;
    use grey_core::ids::TenantId;
    use grey_core::key::Key;

    fn backlog(first: u64, sizes: &[usize]) -> Backlog {
        let tenant = TenantId::new("acme").unwrap();
        let mut backlog = Backlog::default();
        for (revision, changes) in (first..).zip(sizes) {
            let changes = vec![Change::Removed(Key::Tenant(tenant.clone())); *changes];
            let event = Event { revision: Revision(revision), changes, ..Event::default() };
            backlog.push(FeedEntry { event, digests: Digests::unknown() });
        }
        backlog
    }

    fn cut(backlog: &mut Backlog, mut after: u64) -> Vec<usize> {
        std::iter::from_fn(|| {
            let batch = backlog.batch_after(Revision(after)).len();
            after += batch as u64;
            (batch > 0).then_some(batch)
        })
        .collect()
    }

    #[test]
    fn batches_are_bounded_and_leave_no_event_out() {
        let sizes = [1, 2, BATCH_CHANGES - 3, 1, 3 * BATCH_CHANGES, 0, BATCH_CHANGES, BATCH_CHANGES];
        assert_eq!(cut(&mut backlog(1, &sizes), 0), [3, 1, 1, 2, 1]);
        assert!(cut(&mut Backlog::default(), 0).is_empty());
    }

    #[test]
    fn only_what_follows_the_projection_is_given_out() {
        assert!(cut(&mut backlog(3, &[1, 1]), 1).is_empty(), "what is before is read from the log first");
        assert_eq!(cut(&mut backlog(3, &[1, 1]), 2), [2]);
        assert_eq!(cut(&mut backlog(3, &[1, 1]), 3), [1], "the projection was rebuilt meanwhile");
        assert!(cut(&mut backlog(3, &[1, 1]), 5).is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_and_has_no_gap() {
        let mut full = backlog(1, &[2 * MAX_CHANGES, 1, 1]);
        assert_eq!(full.changes, 2 * MAX_CHANGES);
        assert_eq!(cut(&mut full, 0), [1]);
        assert_eq!(full.changes, 0);
        let mut full = backlog(1, &[1, MAX_CHANGES, 1]);
        assert_eq!(cut(&mut full, 0), [1], "the third does not follow what is kept");
    }
}
