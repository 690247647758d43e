//! The follower: turns feed, projection and instances into a routing table, and keeps it up to date.
//!
//! It loads the projection once, then applies the feed event by event. Whatever happens to the store,
//! the last good table stays in use: a follower never goes back within an epoch, never to an older
//! epoch, and never takes a lost store for proof that instances are gone.

mod events;
mod instances;
mod status;
mod tables;
mod updates;
mod watch;

pub use status::{InstancesStatus, NotCurrent, Status};
pub use tables::Tables;
pub use updates::{Step, Update};

use crate::{Error, State};
use grey_core::change::FormatLevel;
use grey_core::table::Table;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// First and longest pause between loads while the table differs from the publisher's.
const DRIFT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// A pause is at least so many times as long as the load before it, which reads everything: the store of a large table
/// is not kept busy by it.
const LOADS_PER_PAUSE: u32 = 4;

/// Shortest time between requests for a check of the projection.
const ASK_PAUSE: Duration = Duration::from_millis(500);

/// How a follower works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tables of past revisions kept for explaining.
    pub history: usize,
    /// Most events taken from the feed at once.
    pub batch: usize,
    /// How long one read waits for news; also how soon a wiped store is noticed.
    pub wait: Duration,
    /// Time between looks at the publisher's sign of life.
    pub look: Duration,
    /// Without a sign of life for this long the table is not current.
    pub stale_after: Duration,
    /// How long a store in which no instances were ever announced is taken for one that lost them and is being filled.
    pub unannounced: Duration,
    /// The format level of the events that it obeys.
    pub level: FormatLevel,
    /// First and longest pause between attempts while the store is away or cannot be loaded.
    pub backoff: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: 64,
            batch: 512,
            wait: Duration::from_secs(1),
            look: Duration::from_millis(500),
            stale_after: Duration::from_secs(10),
            unannounced: Duration::from_secs(1),
            level: FormatLevel::CURRENT,
            backoff: (Duration::from_millis(20), Duration::from_millis(500)),
        }
    }
}

/// Follows shared state. See the module's documentation.
pub struct Follower {
    state: State,
    options: Options,
    tables: Tables,
    asked: Asked,
}

impl Follower {
    /// A follower without a table, and the handle through which its tables are read.
    #[must_use]
    pub fn new(state: State, options: Options) -> (Self, Tables) {
        let tables = Tables::new(options.history, options.level, options.stale_after);
        (Self { state, options, tables: tables.clone(), asked: Asked::default() }, tables)
    }

    /// Starts from a table that was saved earlier; it is not current until the publisher confirms it.
    #[must_use]
    pub fn with_table(self, table: Table) -> Self {
        self.tables.restore(table);
        self
    }

    /// Follows until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let follow =
            async { tokio::join!(self.follow_events(), self.watch_publisher(), self.follow_instances()) };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = follow => {}
        }
    }
}

/// When the publisher was last asked for a check.
#[derive(Default)]
struct Asked(Mutex<Option<Instant>>);

impl Asked {
    /// Whether it may be asked again; it then counts as asked.
    fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() >= ASK_PAUSE);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

/// A table that differs from the publisher's, until one was loaded that does not.
#[derive(Default)]
struct Drift {
    /// When to load next, and how long to wait after that.
    due: Option<(Instant, Duration)>,
}

impl Drift {
    fn noticed(&mut self) {
        self.due.get_or_insert_with(|| (Instant::now(), DRIFT_PAUSE.0));
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|(at, _)| at <= Instant::now())
    }

    /// How long a read may wait for news.
    fn wait(&self, longest: Duration) -> Duration {
        self.due.map_or(longest, |(at, _)| at.saturating_duration_since(Instant::now()).min(longest))
    }

    fn tried(&mut self, took: Duration) {
        let least = took.saturating_mul(LOADS_PER_PAUSE);
        self.due =
            self.due.map(|(_, pause)| (Instant::now() + pause.max(least), (pause * 2).min(DRIFT_PAUSE.1)));
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
