//! Follows one cluster: rounds of reading, and reads that a push hinted at.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use super::catalog::{Catalog, Hints, Key};
use super::client::{self, Client};
use super::fault::Fault;
use super::instance;
use super::login::Login;
use super::options::Options;
use crate::registry::{Registered, Sighting};

/// Longest time between two attempts to make connections to servers that listen but do not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Services of one round that may remain without any answer; more of them is the cluster's silence.
const MOST_SILENT: usize = 8;

/// Instances of a service that are asked after when they vanish; where more do, that is no operator's act.
const MOST_ASKED: usize = 32;

/// Nobody listens any more.
struct Closed;

/// What goes on while one cluster is followed.
pub(super) struct Follower<'a> {
    options: &'a Options,
    sightings: mpsc::Sender<Sighting>,
    catalog: Mutex<Catalog>,
    hints: Arc<Hints>,
    /// None until the first connection.
    client: Mutex<Option<Arc<Client>>>,
    /// The last round succeeded and no read failed since: single services may be read. Never before everything was told.
    is_trusted: AtomicBool,
    /// Rung when a read outside a round failed.
    doubt: Notify,
}

/// The time during which every round failed.
struct Outage {
    since: Instant,
    rounds: u32,
}

/// When connections may be made next.
#[derive(Debug)]
struct Builds {
    failed: u32,
    last: Option<Fault>,
    due: Instant,
}

impl Builds {
    /// Why the last attempt failed, if it is too early for another one.
    fn refusal(&self) -> Option<Fault> {
        self.last.clone().filter(|_| Instant::now() < self.due)
    }

    fn note(&mut self, fault: Option<Fault>, retry: Duration) {
        self.failed = if fault.is_some() { self.failed.saturating_add(1) } else { 0 };
        self.last = fault;
        self.due = Instant::now() + retry.saturating_mul(1 << self.failed.min(10)).min(LONGEST_PAUSE);
    }
}

impl<'a> Follower<'a> {
    pub(super) fn new(options: &'a Options, sightings: mpsc::Sender<Sighting>) -> Self {
        let pairs = options.namespaces.len() * options.groups.len();
        Self {
            options,
            sightings,
            catalog: Mutex::new(Catalog::new(pairs)),
            hints: Arc::new(Hints::default()),
            client: Mutex::new(None),
            is_trusted: AtomicBool::new(false),
            doubt: Notify::new(),
        }
    }

    /// Follows until nobody listens any more.
    pub(super) async fn run(&self, again: &Notify) {
        // Whichever ends has found that nobody listens.
        tokio::select! {
            Closed = self.rounds(again) => {}
            Closed = self.follow_hints() => {}
        }
    }

    /// Ends what the library does for this follower.
    pub(super) async fn end(&self) {
        let client = self.client().take();
        if let Some(client) = client {
            client.retire().await;
        }
    }

    /// Reads the list of services again and again, and everything from time to time, when asked to, and after an outage.
    async fn rounds(&self, again: &Notify) -> Closed {
        let mut outage: Option<Outage> = None;
        let mut builds = Builds { failed: 0, last: None, due: Instant::now() };
        let mut full_at = Instant::now();
        loop {
            let full = outage.is_some() || Instant::now() >= full_at;
            let pause = match self.round(full, outage.as_ref(), &mut builds).await {
                Ok(told) => {
                    if let Some(outage) = outage.take() {
                        let duration_ms =
                            u64::try_from(outage.since.elapsed().as_millis()).unwrap_or(u64::MAX);
                        tracing::info!(outage.rounds = outage.rounds, duration_ms, "nacos answers again");
                    }
                    if told {
                        full_at = Instant::now() + self.options.reconcile;
                    }
                    self.is_trusted.store(true, Ordering::Relaxed);
                    self.hints.ring();
                    self.options.discover
                }
                Err(fault) => {
                    self.is_trusted.store(false, Ordering::Relaxed);
                    // Whatever was subscribed to may have ended with the connection.
                    self.catalog().unsubscribe_all();
                    if self.sightings.send(Sighting::Failed(fault.to_string())).await.is_err() {
                        return Closed;
                    }
                    let outage = outage.get_or_insert_with(|| Outage { since: Instant::now(), rounds: 0 });
                    outage.rounds = outage.rounds.saturating_add(1);
                    self.options.discover.saturating_mul(1 << outage.rounds.min(10)).min(self.options.retry)
                }
            };
            if self.sightings.is_closed() {
                return Closed;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = again.notified() => full_at = Instant::now(),
                () = self.doubt.notified(), if outage.is_none() => full_at = Instant::now(),
            }
        }
    }

    /// Reads the list of services, every service that is new, and all of them if asked to or if one is gone. Returns
    /// whether everything was told. One that cannot be read holds up no other.
    async fn round(&self, full: bool, outage: Option<&Outage>, builds: &mut Builds) -> Result<bool, Fault> {
        let client = self.connected(outage, builds).await?;
        client.log_in().await?;
        let gone = self.list(&client).await?;
        let full = full || !gone.is_empty();
        client.unsubscribe(&gone).await;
        let keys = self.catalog().keys(full);
        let (count, mut failures, mut silent) = (keys.len(), 0, 0);
        let reads = keys.into_iter().map(|(key, subscribed)| self.follow_one(&client, key, subscribed));
        let mut reads = stream::iter(reads).buffer_unordered(self.options.calls);
        while let Some(read) = reads.next().await {
            let Err(fault) = read else { continue };
            failures += 1;
            silent += usize::from(matches!(fault, Fault::Silent { .. }));
            if (failures == count && count > 1) || silent >= MOST_SILENT {
                return Err(fault);
            }
        }
        if full {
            self.tell(|catalog| {
                let all = catalog.all();
                catalog.is_told |= all.is_some();
                all.map(Sighting::All)
            })
            .await;
        }
        Ok(full)
    }

    /// Reads a service, and subscribes to it if that is yet to be done. What cannot be read is told as that.
    async fn follow_one(&self, client: &Client, key: Key, subscribed: bool) -> Result<(), Fault> {
        let read: Result<(), Fault> = async {
            self.read(client, &key).await?;
            if !subscribed {
                // Only now: a push that is too large for the library would end its connection. What changed meanwhile is
                // read again.
                client.subscribe(&key, &self.hints).await?;
                self.catalog().subscribed(&key);
                self.read(client, &key).await?;
            }
            Ok(())
        }
        .await;
        if let Err(fault) = &read {
            self.catalog().fail(&key);
            client.unsubscribe(std::slice::from_ref(&key)).await;
            let unread = Sighting::Unread { service: key.service, why: fault.to_string() };
            self.tell(|_| Some(unread)).await;
        }
        read
    }

    /// Reads the lists of all pairs. Returns the services that are gone.
    async fn list(&self, client: &Client) -> Result<Vec<Key>, Fault> {
        let pairs = self.options.namespaces.len() * self.options.groups.len();
        let lists = stream::iter(0..pairs).map(|pair| async move { Ok((pair, client.list(pair).await?)) });
        let lists: Vec<(usize, BTreeSet<String>)> =
            lists.buffer_unordered(self.options.calls).try_collect().await?;
        let mut catalog = self.catalog();
        Ok(lists.into_iter().flat_map(|(pair, names)| catalog.list(pair, names)).collect())
    }

    /// The connections at hand, or new ones where there are none or where they have failed for long while new ones work.
    async fn connected(&self, outage: Option<&Outage>, builds: &mut Builds) -> Result<Arc<Client>, Fault> {
        let known = self.client().clone();
        let renew = outage.is_some_and(|outage| outage.since.elapsed() >= self.options.renew);
        if let Some(known) = known.as_ref().filter(|_| !renew) {
            return Ok(Arc::clone(known));
        }
        match (self.build(builds).await, known) {
            (Ok(client), known) => {
                *self.client() = Some(Arc::clone(&client));
                if let Some(known) = known {
                    self.catalog().unsubscribe_all();
                    tracing::warn!("nacos connections replaced: the old ones did not recover");
                    known.retire().await;
                }
                Ok(client)
            }
            // The old ones are still tried: they may be back.
            (Err(fault), Some(known)) => {
                tracing::debug!(error = %fault, "nacos cannot be reached by new connections either");
                Ok(known)
            }
            (Err(fault), None) => Err(fault),
        }
    }

    /// Makes new connections that work.
    ///
    /// The library leaves something behind for each attempt, so it is asked only where a server listens, and the less
    /// often the more often it was in vain.
    async fn build(&self, builds: &mut Builds) -> Result<Arc<Client>, Fault> {
        client::reach(self.options).await?;
        let login = Login::new(self.options)?;
        if let Some(login) = &login {
            login.ensure().await?;
        }
        if let Some(fault) = builds.refusal() {
            return Err(fault);
        }
        let built = async {
            let client = Client::connect(self.options, login).await?;
            // A connection alone is easily had.
            client.list(0).await?;
            Ok(Arc::new(client))
        };
        let built = built.await;
        builds.note(built.as_ref().err().cloned(), self.options.retry);
        built
    }

    /// Reads one service, and tells it if it is news.
    async fn read(&self, client: &Client, key: &Key) -> Result<(), Fault> {
        let read = self.catalog().begin_read();
        let mut instances = instance::registered(client.read(key).await?);
        let missing = self.catalog().missing(key, &instances);
        for one in missing.into_iter().take(MOST_ASKED) {
            // Servers list nothing that is switched off, which is no disappearance.
            if client.is_switched_off(key, &one).await {
                instances.push(Registered { enabled: false, ..one });
            }
        }
        instances.sort_by(|one, other| one.id.cmp(&other.id));
        if self.catalog().apply(key, read, instances) {
            // What changes before everything is told is told with everything.
            self.tell(|catalog| {
                catalog.listing(&key.service).filter(|_| catalog.is_told).map(Sighting::Some)
            })
            .await;
        }
        Ok(())
    }

    /// Tells what is known at the moment when it can be told, so that nothing older is told after something newer.
    async fn tell(&self, sighting: impl FnOnce(&mut Catalog) -> Option<Sighting>) {
        // Without a listener the loops end by themselves.
        if let Ok(place) = self.sightings.reserve().await
            && let Some(sighting) = sighting(&mut self.catalog())
        {
            place.send(sighting);
        }
    }

    /// Reads the services that somebody hinted at, soon and several at once.
    async fn follow_hints(&self) -> Closed {
        let mut reads = FuturesUnordered::new();
        loop {
            while self.is_trusted.load(Ordering::Relaxed)
                && reads.len() < self.options.calls
                && let Some(key) = self.hints.take()
            {
                reads.push(self.follow_hint(key));
            }
            tokio::select! {
                () = self.hints.added() => {}
                Some(()) = reads.next() => {}
                () = self.sightings.closed() => return Closed,
            }
        }
    }

    async fn follow_hint(&self, key: Key) {
        let client = self.client().clone();
        let Some(client) = client else { return };
        let service = key.service.clone();
        if let Err(fault) = self.follow_one(&client, key, true).await {
            tracing::debug!(service.name = %service, error = %fault, "a service could not be read");
            self.doubt.notify_one();
        }
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
