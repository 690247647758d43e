//! The follower: turns feed, projection and instances into a routing table, and keeps it up to date.
//!
//! It loads the projection once, then applies the feed event by event. Whatever happens to the store,
//! the last good table stays in use: a follower never goes back within a generation, never to an older
//! generation, and never takes a lost store for proof that instances are gone.

mod load;
mod tables;

pub use tables::{Status, Tables, Update};

use crate::feed::FeedRead;
use crate::instances::{Cursor, InstancesRead};
use crate::{Error, State};
use grey_core::table::Table;
use load::Loaded;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Loads in a row that may fail their comparison before one is taken all the same.
///
/// Damage is mended long before. What lasts is a publisher of another release that reckons digests in
/// another way, and no router starting at all would be worse than one that cannot compare.
const UNVERIFIED_LOADS: u32 = 20;

/// First and longest pause between loads while the table differs from the publisher's: a load reads everything.
const DRIFT_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// How a follower works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tables of past revisions kept for explaining.
    pub history: usize,
    /// Most events taken from the feed at once.
    pub batch: usize,
    /// How long one read waits for news; also how soon a wiped store is noticed.
    pub wait: Duration,
    /// Without contact for this long the table counts as stale.
    pub stale_after: Duration,
    /// First and longest pause between attempts while the store is away or cannot be loaded.
    pub backoff: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: 64,
            batch: 512,
            wait: Duration::from_secs(1),
            stale_after: Duration::from_secs(10),
            backoff: (Duration::from_millis(20), Duration::from_secs(1)),
        }
    }
}

/// Follows shared state. See the module's documentation.
pub struct Follower {
    state: State,
    options: Options,
    tables: Tables,
}

impl Follower {
    /// A follower without a table, and the handle through which its tables are read.
    #[must_use]
    pub fn new(state: State, options: Options) -> (Self, Tables) {
        let tables = Tables::new(options.history, options.stale_after);
        (Self { state, options, tables: tables.clone() }, tables)
    }

    /// Starts from a table that was saved earlier; it counts as stale until the store confirms it.
    #[must_use]
    pub fn with_table(self, table: Table) -> Self {
        self.tables.restore(table);
        self
    }

    /// Follows until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let follow = async { tokio::join!(self.follow_events(), self.follow_instances()) };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = follow => {}
        }
    }

    async fn follow_events(&self) {
        let mut pause = Pause::new(self.options.backoff);
        let mut drift = Drift::default();
        loop {
            match self.next_events(&mut drift).await {
                Ok(true) => pause.reset(),
                Ok(false) => pause.wait("routing table cannot be brought up to date yet", None).await,
                Err(error) => {
                    pause.wait("shared state is away; the last good table stays in use", Some(&error)).await;
                }
            }
        }
    }

    /// One step along the feed; false if the store is there but cannot be followed yet.
    async fn next_events(&self, drift: &mut Drift) -> Result<bool, Error> {
        if drift.is_due() {
            // Whatever comes of it, the feed is followed on, from wherever the table is then.
            drift.tried();
            self.load(drift).await?;
        }
        let Some(position) = self.tables.loaded_position() else {
            return self.load(drift).await;
        };
        match self.state.feed.read(&position, self.options.batch, self.options.wait).await? {
            FeedRead::Idle => {
                self.tables.contact();
                self.compare(drift).await?;
                Ok(true)
            }
            FeedRead::Entries(entries) => {
                if !self.tables.apply(&entries) {
                    self.drifted(drift);
                }
                self.tables.contact();
                Ok(true)
            }
            FeedRead::Lost => self.load(drift).await,
        }
    }

    /// Compares the table with what the publisher has at the same revision. Without an event to tell, this is how a
    /// table is found wrong whose revision came to mean something else: the log and the store were both restored.
    async fn compare(&self, drift: &mut Drift) -> Result<(), Error> {
        let projected = self.state.projection.status().await?;
        let differs = projected.is_some_and(|projected| self.tables.differs_from(&projected));
        if differs && drift.due.is_none() {
            self.tables.count_drift();
            self.drifted(drift);
        }
        Ok(())
    }

    fn drifted(&self, drift: &mut Drift) {
        tracing::warn!(table.revision = %self.tables.load().position().revision, "table has drifted from the publisher's");
        drift.noticed();
    }

    async fn load(&self, drift: &mut Drift) -> Result<bool, Error> {
        match load::load(&self.state, self.options.batch).await? {
            Loaded::Complete(table) => {
                *drift = Drift::default();
                Ok(self.tables.replace(*table))
            }
            Loaded::Unverified(table) => {
                drift.unverified += 1;
                if drift.unverified < UNVERIFIED_LOADS {
                    return Ok(false);
                }
                tracing::error!("projection keeps differing from its digest; taking it all the same");
                drift.unverified = 0;
                Ok(self.tables.replace(*table))
            }
            Loaded::NotYet(why) => {
                tracing::debug!(why, "projection cannot be loaded yet");
                Ok(false)
            }
        }
    }

    async fn follow_instances(&self) {
        let mut pause = Pause::new(self.options.backoff);
        let mut cursor = None;
        loop {
            match self.next_instances(cursor.clone()).await {
                Ok(next) => {
                    cursor = next;
                    pause.reset();
                }
                Err(error) => {
                    pause.wait("instances are away; the last good ones stay in use", Some(&error)).await;
                }
            }
        }
    }

    async fn next_instances(&self, cursor: Option<Cursor>) -> Result<Option<Cursor>, Error> {
        let Some(cursor) = cursor else {
            let (lists, cursor) = self.state.instances.load().await?;
            self.tables.set_instances(lists);
            self.tables.instances_loaded();
            return Ok(Some(cursor));
        };
        match self.state.instances.read(&cursor, self.options.wait).await? {
            InstancesRead::Replaced(lists, next) => {
                self.tables.set_instances(lists);
                Ok(Some(next))
            }
            InstancesRead::Idle => Ok(Some(cursor)),
            InstancesRead::Lost => Ok(None),
        }
    }
}

/// A table that differs from the publisher's, until one was loaded that does not.
#[derive(Default)]
struct Drift {
    /// When to load next, and how long to wait after that.
    due: Option<(Instant, Duration)>,
    /// Loads in a row that could not be verified.
    unverified: u32,
}

impl Drift {
    fn noticed(&mut self) {
        self.due.get_or_insert((Instant::now(), DRIFT_PAUSE.0));
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|(at, _)| at <= Instant::now())
    }

    fn tried(&mut self) {
        self.due = self.due.map(|(_, pause)| (Instant::now() + pause, (pause * 2).min(DRIFT_PAUSE.1)));
    }
}

/// Exponential backoff that logs the first of a run of failures.
struct Pause {
    limits: (Duration, Duration),
    next: Duration,
}

impl Pause {
    fn new(limits: (Duration, Duration)) -> Self {
        Self { limits, next: limits.0 }
    }

    fn reset(&mut self) {
        self.next = self.limits.0;
    }

    async fn wait(&mut self, message: &'static str, error: Option<&Error>) {
        if self.next == self.limits.0 {
            tracing::warn!(error = error.map(chain), "{message}");
        }
        // Jitter keeps a fleet of routers from coming back in step.
        let jitter = rand::random_range(0.5..1.0);
        tokio::time::sleep(self.next.mul_f64(jitter)).await;
        self.next = (self.next * 2).min(self.limits.1);
    }
}

fn chain(error: &Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
