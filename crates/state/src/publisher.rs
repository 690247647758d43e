//! The publisher: brings the control database's log into feed and projection, whatever happens to them.
//!
//! One of the control plane's replicas leads (by lease) and publishes; the others stand by. The leader keeps
//! a table of its own, folded from the same events, for the digests that go with each entry. It never waits to
//! be told of damage: it compares feed and projection with the log and mends or rebuilds them.

mod lead;
mod log;

pub use log::{EventLog, LogError, Snapshot};

use crate::{Error, FencingToken, State};
use grey_core::change::Revision;
use grey_core::ids::Name;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How a publisher works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who this replica is; unique among replicas.
    pub holder: String,
    /// How long the lead lasts without renewal.
    pub lease: Duration,
    /// How often the log is looked at without being told of a commit (a commit of another replica).
    pub poll: Duration,
    /// How often feed and projection are compared with the log.
    pub check: Duration,
    /// How often every record of the projection is compared.
    pub deep_check: Duration,
    /// Most events taken from the log at once.
    pub batch: usize,
}

impl Options {
    /// The usual intervals, for a replica called `holder`.
    #[must_use]
    pub fn new(holder: &str) -> Self {
        Self {
            holder: holder.to_owned(),
            lease: Duration::from_secs(5),
            poll: Duration::from_millis(100),
            check: Duration::from_millis(500),
            deep_check: Duration::from_secs(300),
            batch: 256,
        }
    }
}

/// Why publishing stopped for now.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("publish to shared state")]
    State(#[from] Error),
    #[error("read the event log")]
    Log(#[from] LogError),
}

/// What a publisher says of itself. Cheap to clone.
#[derive(Clone, Default)]
pub struct Handle(Arc<Shared>);

#[derive(Default)]
struct Shared {
    wake: Notify,
    leading: AtomicBool,
    published: AtomicU64,
    rebuilds: AtomicU64,
    failures: AtomicU64,
}

impl Handle {
    /// Tells that something was committed.
    pub fn notify(&self) {
        self.0.wake.notify_one();
    }

    /// Whether this replica leads.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.0.leading.load(Relaxed)
    }

    /// The last revision that this replica brought into the feed.
    #[must_use]
    pub fn published(&self) -> Revision {
        Revision(self.0.published.load(Relaxed))
    }

    /// Times that this replica rebuilt the projection.
    #[must_use]
    pub fn rebuilds(&self) -> u64 {
        self.0.rebuilds.load(Relaxed)
    }

    /// Times that publishing was interrupted by an error.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Relaxed)
    }
}

/// Publishes while it leads. See the module's documentation.
pub struct Publisher {
    state: State,
    log: Arc<dyn EventLog>,
    options: Options,
    handle: Handle,
}

impl Publisher {
    /// A publisher of `log`, and the handle to wake and watch it.
    #[must_use]
    pub fn new(state: State, log: Arc<dyn EventLog>, options: Options) -> (Self, Handle) {
        let handle = Handle::default();
        (Self { state, log, options, handle: handle.clone() }, handle)
    }

    /// Publishes until `stop`, then gives the lease up.
    pub async fn run(self, stop: CancellationToken) {
        let lease = Name::new("publisher").expect("`publisher` is a valid name");
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.campaign(&lease) => {}
        }
        self.handle.0.leading.store(false, Relaxed);
        let release = self.state.leases.release(&lease, &self.options.holder);
        if !matches!(tokio::time::timeout(Duration::from_secs(1), release).await, Ok(Ok(()))) {
            tracing::warn!("lease could not be given up; it expires by itself");
        }
    }

    async fn campaign(&self, lease: &Name) {
        loop {
            match self.state.leases.acquire(lease, &self.options.holder, self.options.lease).await {
                Ok(Some(token)) => {
                    self.handle.0.leading.store(true, Relaxed);
                    tracing::info!(fencing.token = token.0, "leading the publication");
                    tokio::select! {
                        () = self.hold(lease, token) => tracing::warn!("lost the lead of the publication"),
                        () = self.publish(token) => {}
                    }
                    self.handle.0.leading.store(false, Relaxed);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "lease is out of reach"),
            }
            tokio::time::sleep(self.options.poll).await;
        }
    }

    /// Renews the lease; returns when it is lost.
    async fn hold(&self, lease: &Name, token: FencingToken) {
        let every = self.options.lease / 4;
        let mut until = tokio::time::Instant::now() + self.options.lease;
        loop {
            tokio::time::sleep(every).await;
            let asked = tokio::time::Instant::now();
            match self.state.leases.acquire(lease, &self.options.holder, self.options.lease).await {
                Ok(Some(renewed)) if renewed == token => until = asked + self.options.lease,
                Ok(_) => return,
                Err(_) if tokio::time::Instant::now() < until => {}
                Err(_) => return,
            }
        }
    }

    /// Leads until fenced off, starting over after each error.
    async fn publish(&self, token: FencingToken) {
        loop {
            match self.lead(token).await {
                Err(Interrupted::State(Error::Fenced { newest, .. })) => {
                    tracing::warn!(fencing.newest = newest, "a newer leader publishes");
                    return;
                }
                Err(error) => {
                    self.handle.0.failures.fetch_add(1, Relaxed);
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, source, "publication interrupted; starting over");
                }
                Ok(()) => {}
            }
            tokio::time::sleep(self.options.poll).await;
        }
    }
}
