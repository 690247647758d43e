//! The registries, each followed by a task.

use std::sync::Arc;

use futures::stream::{BoxStream, SelectAll, StreamExt as _, unfold};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Again;
use crate::registry::{Registry, Sighting};

/// Sightings of one registry that wait to be taken in; a registry that tells more has to wait itself.
const WAITING: usize = 64;

/// What registries tell, with the number of the one that does.
pub(super) type Sightings = SelectAll<BoxStream<'static, (usize, Sighting)>>;

/// What follows the registries; everything ends when it is dropped.
#[derive(Default)]
pub(super) struct Followed {
    again: Vec<Again>,
    tasks: JoinSet<()>,
}

impl Followed {
    /// Follows `registries`; what they tell comes with the number of the one that tells it.
    pub(super) fn start(registries: Vec<Box<dyn Registry>>, token: &CancellationToken) -> (Self, Sightings) {
        let mut followed = Self::default();
        let mut sightings = Sightings::new();
        for (source, registry) in registries.into_iter().enumerate() {
            let (sender, told) = mpsc::channel(WAITING);
            let again = Again::default();
            followed.again.push(Arc::clone(&again));
            let token = token.clone();
            followed.tasks.spawn(async move { registry.follow(sender, again, token).await });
            let told = unfold(told, |mut told| async move { Some((told.recv().await?, told)) });
            sightings.push(told.map(move |sighting| (source, sighting)).boxed());
        }
        (followed, sightings)
    }

    /// Asks a registry to tell everything again.
    pub(super) fn ask_again(&self, source: usize) {
        if let Some(again) = self.again.get(source) {
            again.notify_one();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.again.len()
    }

    /// Waits for the next task to end; none if there is none left.
    ///
    /// # Panics
    /// If it panicked.
    pub(super) async fn ended(&mut self) -> Option<()> {
        match self.tasks.join_next().await? {
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            _ => Some(()),
        }
    }
}
