//! The publisher: brings the control database's log into feed and projection, whatever happens to them.
//!
//! One of the control plane's replicas leads, by a lease in the control database, and publishes; the others stand by.
//! The leader keeps a table of its own, folded from the same events, for the digests that go with each entry. It
//! compares feed and projection with the log and mends or rebuilds them, by itself and when a router asks for it.
//! What takes long is done beside the publishing.

mod backlog;
mod check;
mod lead;
mod log;
mod mend;
mod project;
mod rebuild;
mod upkeep;

pub use log::{EventLog, Following, LogError, Snapshot, Tip};

use crate::{Error, FencingToken, State};
use futures::FutureExt as _;
use grey_core::change::{FormatLevel, Revision};
use grey_core::ids::Name;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longest pause between two leads.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause between attempts to publish while leading: what was away is back for so long before that is noticed.
const LONGEST_ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// For giving the lead up at the end.
const RESIGN: Duration = Duration::from_secs(1);

/// How a publisher works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who this replica is; unique among replicas.
    pub holder: String,
    /// How long the lead lasts without renewal.
    pub lease: Duration,
    /// How often the log is looked at without being told of a commit (a commit of another replica).
    pub poll: Duration,
    /// How often a sign of life is left for the routers.
    pub beat: Duration,
    /// How often feed and projection are compared with the log.
    pub check: Duration,
    /// How often every record of the projection is compared.
    pub deep_check: Duration,
    /// Most events taken from the log at once.
    pub batch: usize,
    /// The format level of the events that it can fold.
    pub level: FormatLevel,
}

impl Options {
    /// The usual intervals, for a replica called `holder`.
    #[must_use]
    pub fn new(holder: &str) -> Self {
        Self {
            holder: holder.to_owned(),
            lease: Duration::from_secs(5),
            poll: Duration::from_millis(100),
            beat: Duration::from_millis(200),
            check: Duration::from_millis(500),
            deep_check: Duration::from_secs(300),
            batch: 256,
            level: FormatLevel::CURRENT,
        }
    }
}

/// The requests for a check of the projection.
fn requests() -> Name {
    Name::new("projection").expect("`projection` is a valid name")
}

/// Asks the leading publisher to compare the projection with the log at once.
///
/// # Errors
/// When the store is away, or many have asked already.
pub async fn ask_for_check(state: &State, why: &str) -> Result<(), Error> {
    state.requests.post(&requests(), why.as_bytes()).await
}

/// Why publishing stopped for now.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("publish to shared state")]
    State(#[from] Error),
    #[error("read the event log")]
    Log(#[from] LogError),
    #[error("the log needs format level {needed}, this replica publishes up to {own}; upgrade it")]
    Above { needed: FormatLevel, own: FormatLevel },
    #[error("a fault of this program: {0}")]
    Fault(String),
}

/// Why this replica should no longer lead.
enum End {
    Fenced(FencingToken),
    /// Another replica, of a newer release, can publish what this one cannot.
    Unfit,
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
    repairs: AtomicU64,
    failures: AtomicU64,
    fault: Mutex<Option<String>>,
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

    /// Damaged records and indexes that this replica wrote anew.
    #[must_use]
    pub fn repairs(&self) -> u64 {
        self.0.repairs.load(Relaxed)
    }

    /// Times that publishing was interrupted by an error.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Relaxed)
    }

    /// Why this replica leads but cannot publish; none: it can.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_fault(&self, fault: Option<String>) {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
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

    /// Publishes until `stop`, then gives the lead up.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.campaign() => {}
        }
        self.handle.0.leading.store(false, Relaxed);
        if !matches!(timeout(RESIGN, self.log.resign(&self.options.holder)).await, Ok(Ok(()))) {
            tracing::warn!("lead could not be given up; it expires by itself");
        }
    }

    async fn campaign(&self) {
        // What fenced this replica off may be a store that was written for another database.
        let mut above = FencingToken(0);
        let mut pause = self.options.poll;
        loop {
            let begun = Instant::now();
            match self.log.lead(&self.options.holder, self.options.lease, above).await {
                Ok(Some(token)) => {
                    self.handle.0.leading.store(true, Relaxed);
                    tracing::info!(fencing.token = token.0, "leading the publication");
                    let end = tokio::select! {
                        () = self.hold(token) => None,
                        end = self.publish(token) => Some(end),
                    };
                    self.handle.0.leading.store(false, Relaxed);
                    self.handle.set_fault(None);
                    match end {
                        None => tracing::warn!("lost the lead of the publication"),
                        Some(End::Fenced(newest)) => above = above.max(newest),
                        Some(End::Unfit) => self.stand_back().await,
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "lead is out of reach"),
            }
            // Two publishers of two databases on one store do not take turns without end.
            let lasted = begun.elapsed() > self.options.lease;
            pause = if above.0 == 0 || lasted { self.options.poll } else { (pause * 2).min(LONGEST_PAUSE) };
            sleep(pause).await;
        }
    }

    /// Leaves the lead to others.
    async fn stand_back(&self) {
        if let Err(error) = self.log.resign(&self.options.holder).await {
            tracing::debug!(%error, "lead could not be given up; it expires by itself");
        }
        sleep(self.options.lease).await;
    }

    /// Renews the lease; returns when it is lost.
    async fn hold(&self, token: FencingToken) {
        let every = self.options.lease / 4;
        let mut until = Instant::now() + self.options.lease;
        loop {
            sleep(every).await;
            let asked = Instant::now();
            let renewed = self.log.lead(&self.options.holder, self.options.lease, FencingToken(0));
            match tokio::time::timeout_at(until, renewed).await {
                Ok(Ok(Some(renewed))) if renewed == token => until = asked + self.options.lease,
                Ok(Ok(_)) | Err(_) => return,
                Ok(Err(_)) if Instant::now() < until => {}
                Ok(Err(_)) => return,
            }
        }
    }

    /// Leads until fenced off, starting over after whatever stops it: an error, or a fault of this program.
    async fn publish(&self, token: FencingToken) -> End {
        let mut pause = self.options.poll;
        let mut is_first = true;
        let mut remembered = None;
        loop {
            let led = AssertUnwindSafe(self.lead(token, is_first, &mut remembered)).catch_unwind().await;
            is_first = false;
            let published_for = led.as_ref().map_or(Duration::ZERO, |ended| ended.published_for);
            let fault = match led.map(|ended| ended.by) {
                Ok(Ok(())) => None,
                Ok(Err(Interrupted::State(Error::Fenced { newest, .. }))) => {
                    tracing::warn!(fencing.newest = newest, "a newer leader publishes");
                    return End::Fenced(FencingToken(newest));
                }
                Ok(Err(error)) => {
                    let unfit = matches!(error, Interrupted::Above { .. });
                    let fault = told(&error);
                    if unfit {
                        tracing::error!(fault, "publication is left to other replicas");
                        return End::Unfit;
                    }
                    Some(fault)
                }
                Err(panic) => Some(format!("a fault of this program: {}", message(panic.as_ref()))),
            };
            // Whoever published for longer than it had paused has not been started over in vain.
            if published_for > pause {
                pause = self.options.poll;
            }
            if let Some(fault) = fault {
                self.handle.0.failures.fetch_add(1, Relaxed);
                if self.handle.fault().as_ref() == Some(&fault) {
                    tracing::debug!(fault, "publication interrupted again");
                } else {
                    tracing::warn!(fault, "publication interrupted; starting over");
                    self.handle.set_fault(Some(fault));
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_ATTEMPT_PAUSE);
        }
    }
}

/// An error with what led to it.
fn told(error: &Interrupted) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown")
}
