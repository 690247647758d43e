//! Who is told of each change of the table.

use crate::instances::ServiceInstances;
use grey_core::change::Event;
use grey_core::table::Table;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Updates that a slow subscriber may fall behind before it must start over.
const UPDATE_BACKLOG: usize = 1_024;

/// A change of the table, for those who pass it on.
#[derive(Clone, Debug)]
pub enum Update {
    /// An event was applied.
    Event {
        /// The event.
        event: Arc<Event>,
        /// The table before it.
        before: Arc<Table>,
        /// The table with it.
        after: Arc<Table>,
    },
    /// A service's instances were replaced.
    Instances(Arc<ServiceInstances>),
    /// Another table took the place: start over from it.
    Reloaded,
}

/// Everyone who passes changes on.
pub(super) struct Updates(broadcast::Sender<Update>);

impl Default for Updates {
    fn default() -> Self {
        Self(broadcast::Sender::new(UPDATE_BACKLOG))
    }
}

impl Updates {
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Update> {
        self.0.subscribe()
    }

    pub(super) fn announce(&self, update: Update) {
        // Nobody may be listening, which is fine.
        let _listeners = self.0.send(update);
    }
}
