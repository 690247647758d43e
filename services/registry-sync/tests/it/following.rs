//! Follows a registry and keeps what it tells, as the mirror would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use grey_registry_sync::registry::{Listing, Registered, Registry, Sighting};
use grey_testkit::eventually;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything; far above what even a busy machine needs.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What a registry was seen to tell.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// How often everything was told.
    pub(crate) alls: usize,
    /// The causes of failures, in order.
    pub(crate) failures: Vec<String>,
    /// Services that could not be read, and why.
    pub(crate) unread: BTreeMap<String, String>,
    /// What it tells that there is, services with an instance only.
    pub(crate) services: BTreeMap<String, Vec<Registered>>,
    /// Instances in the smallest account of everything.
    pub(crate) smallest: Option<usize>,
    /// The kind of the first sighting.
    pub(crate) first_was_all: Option<bool>,
}

impl Seen {
    fn take(&mut self, sighting: Sighting) {
        self.first_was_all.get_or_insert(matches!(sighting, Sighting::All(_)));
        match sighting {
            Sighting::All(listings) => {
                self.alls += 1;
                self.services.clear();
                listings.into_iter().for_each(|listing| self.list(listing));
                let count = self.count();
                self.smallest = Some(self.smallest.map_or(count, |smallest| smallest.min(count)));
            }
            Sighting::Some(listing) => self.list(listing),
            Sighting::Unread { service, why } => drop(self.unread.insert(service, why)),
            Sighting::Failed(cause) => self.failures.push(cause),
        }
    }

    fn list(&mut self, listing: Listing) {
        if listing.instances.is_empty() {
            self.services.remove(&listing.service);
        } else {
            self.services.insert(listing.service, listing.instances);
        }
    }

    /// All instances of all services.
    pub(crate) fn count(&self) -> usize {
        self.services.values().map(Vec::len).sum()
    }

    /// The instances of one service by id.
    pub(crate) fn ids(&self, service: &str) -> Vec<String> {
        let instances = self.services.get(service).into_iter().flatten();
        let mut ids: Vec<String> = instances.map(|instance| instance.id.clone()).collect();
        ids.sort();
        ids
    }

    /// What the instances of one service say of their version, without repetition.
    pub(crate) fn versions(&self, service: &str) -> Vec<String> {
        let instances = self.services.get(service).into_iter().flatten();
        let mut versions: Vec<String> =
            instances.map(|instance| instance.metadata.get("version").cloned().unwrap_or_default()).collect();
        versions.sort();
        versions.dedup();
        versions
    }
}

/// A registry that is being followed.
pub(crate) struct Following {
    seen: Arc<Mutex<Seen>>,
    again: Arc<Notify>,
    token: CancellationToken,
    task: JoinHandle<()>,
}

impl Following {
    pub(crate) fn start(registry: Box<dyn Registry>) -> Self {
        let (sender, mut receiver) = mpsc::channel(16);
        let (again, token) = (Arc::new(Notify::new()), CancellationToken::new());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (followed_again, followed_token, taken) = (Arc::clone(&again), token.clone(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let take = async {
                while let Some(sighting) = receiver.recv().await {
                    taken.lock().unwrap().take(sighting);
                }
            };
            tokio::join!(registry.follow(sender, followed_again, followed_token), take);
        });
        Self { seen, again, token, task }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Waits until what was seen satisfies `condition`.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        eventually(SOON, what, async || condition(&self.seen())).await;
    }

    /// Waits for an account of everything that begins after this call.
    pub(crate) async fn refresh(&self) {
        // One may be under way that began before; the one after it did not.
        for _ in 0..2 {
            let alls = self.seen().alls;
            self.again.notify_one();
            self.until("everything is told again", |seen| seen.alls > alls).await;
        }
    }

    /// Ends it in good order.
    pub(crate) async fn end(self) -> Seen {
        self.token.cancel();
        timeout(SOON, self.task).await.expect("following ends soon after its token").unwrap();
        let seen = self.seen.lock().unwrap();
        seen.clone()
    }
}
