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
use std::time::Duration;
use tokio_util::sync::CancellationToken;

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
        loop {
            match self.next_events().await {
                Ok(true) => pause.reset(),
                Ok(false) => pause.wait("routing table cannot be brought up to date yet", None).await,
                Err(error) => {
                    pause.wait("shared state is away; the last good table stays in use", Some(&error)).await
                }
            }
        }
    }

    /// One step along the feed; false if the store is there but cannot be followed yet.
    async fn next_events(&self) -> Result<bool, Error> {
        let read = match self.tables.loaded_position() {
            Some(position) => self.state.feed.read(&position, self.options.batch, self.options.wait).await?,
            None => FeedRead::Lost,
        };
        match read {
            FeedRead::Idle => {
                self.tables.contact();
                Ok(true)
            }
            FeedRead::Entries(entries) => {
                let in_step = self.tables.apply(&entries);
                if in_step {
                    self.tables.contact();
                } else {
                    tracing::warn!(table.revision = %self.tables.load().position().revision, "table has drifted from the feed; loading the projection");
                    return self.load().await;
                }
                Ok(true)
            }
            FeedRead::Lost => self.load().await,
        }
    }

    async fn load(&self) -> Result<bool, Error> {
        match load::load(&self.state, self.options.batch).await? {
            Loaded::Complete(table) => Ok(self.tables.replace(*table)),
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
                    pause.wait("instances are away; the last good ones stay in use", Some(&error)).await
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
