//! One channel for each selection that somebody watches, which share the bytes that may be kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use super::channel::Channel;
use crate::selection::Selection;
use crate::shared::Shared;

/// Reads from shared state at once: what was read is in memory until it is encoded.
const READS: usize = 2;

/// See the module's documentation.
pub(super) struct Channels {
    shared: Arc<Shared>,
    bytes: usize,
    reads: Arc<Semaphore>,
    open: BTreeMap<Arc<Selection>, Weak<Open>>,
}

/// A channel for as long as somebody watches it.
pub(super) struct Open {
    pub(super) channel: Arc<Channel>,
    /// Tells that there is something new, and ends if there never will be.
    pub(super) news: watch::Receiver<()>,
    _follows: AbortOnDropHandle<()>,
}

impl Channels {
    pub(super) fn new(shared: Arc<Shared>, bytes: usize) -> Self {
        Self { shared, bytes, reads: Arc::new(Semaphore::new(READS)), open: BTreeMap::new() }
    }

    /// The channel of a selection. Must be called within a runtime.
    pub(super) fn open(&mut self, selection: Selection) -> Arc<Open> {
        if let Some(open) = self.open.get(&selection).and_then(Weak::upgrade) {
            return open;
        }
        let selection = Arc::new(selection);
        // Nothing is missed between the table that the channel begins with and the first update.
        let updates = self.shared.tables.updates();
        let channel = Channel::new(Arc::clone(&self.shared), Arc::clone(&selection), Arc::clone(&self.reads));
        let channel = Arc::new(channel);
        let (sender, news) = watch::channel(());
        let follows = tokio::spawn(Arc::clone(&channel).follow(updates, sender));
        let open = Arc::new(Open { channel, news, _follows: AbortOnDropHandle::new(follows) });
        self.open.insert(selection, Arc::downgrade(&open));
        self.share();
        open
    }

    /// Gives what nobody watches any more to the others.
    pub(super) fn forget_unwatched(&mut self) {
        let before = self.open.len();
        self.open.retain(|_, open| open.strong_count() > 0);
        if self.open.len() < before {
            self.share();
        }
    }

    fn share(&self) {
        let each = self.bytes / self.open.len().max(1);
        for open in self.open.values().filter_map(Weak::upgrade) {
            open.channel.set_limit(each);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use grey_core::table::Table;
    use grey_proto::router::WatchRequest;
    use grey_state::State;

    #[tokio::test]
    async fn watchers_of_one_selection_share_a_channel_for_as_long_as_there_are_some() {
        let (shared, _) = super::super::tests::shared(State::memory(), Table::default());
        let mut channels = Channels::new(shared, 1 << 20);
        let (one, same) = (channels.open(Selection::default()), channels.open(Selection::default()));
        let request = WatchRequest { services: vec!["payment".into()], ..WatchRequest::default() };
        let other = channels.open(Selection::read(&request).unwrap());
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        drop(one);
        channels.forget_unwatched();
        assert_eq!(channels.open.len(), 2);
        drop(same);
        channels.forget_unwatched();
        assert_eq!(channels.open.len(), 1);
    }
}
