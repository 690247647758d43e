//! Carries commands out, one after another.

use std::sync::Arc;
use std::time::Duration;

use grey_core::change::Position;
use grey_runtime::config::{Faults, Validate, duration};
use grey_state::follower::Tables;
use grey_state::{Heartbeats, publisher};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Error, chain};
use super::head::HeadTable;
use super::proposal::{Command, Committed};
use super::transaction;
use crate::database::Database;
use crate::metrics::Metrics;

/// How commands queue.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Commands that may wait for those before them; more are refused.
    pub queue: usize,
    /// How long a command may wait before it is begun.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// How long it may take once begun.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// How long one that selects many tenants may take once begun.
    #[serde(with = "duration")]
    pub bulk_timeout: Duration,
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        faults.check((1..=100_000).contains(&self.queue), "queue", "must be between 1 and 100000");
        faults.check(!self.wait.is_zero(), "wait", "must be longer than nothing");
        faults.check(!self.timeout.is_zero(), "timeout", "must be longer than nothing");
        faults.check(self.bulk_timeout >= self.timeout, "bulk_timeout", "must not be shorter than timeout");
    }
}

struct Job {
    command: Command,
    begin_by: Instant,
    reply: oneshot::Sender<Result<Committed, Error>>,
}

/// Takes commands. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Commands {
    queue: mpsc::Sender<Job>,
    head: watch::Receiver<Position>,
    wait: Duration,
}

/// The other end of [`Commands`].
pub struct Writer {
    database: Database,
    table: HeadTable,
    queue: mpsc::Receiver<Job>,
    head: watch::Sender<Position>,
    options: Options,
    publisher: publisher::Handle,
    heartbeats: Arc<dyn Heartbeats>,
    metrics: Metrics,
}

impl Commands {
    /// Carries a command out. It goes on even if the caller stops waiting for it.
    ///
    /// # Errors
    /// As [`Error`] says; only [`Error::Unknown`] leaves open whether something was changed.
    pub async fn execute(&self, command: Command) -> Result<Committed, Error> {
        command.validate()?;
        let (reply, answer) = oneshot::channel();
        let job = Job { command, begin_by: Instant::now() + self.wait, reply };
        self.queue.try_send(job).map_err(|full| match full {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Where the log was when this replica committed last. Another replica may be ahead.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }
}

impl Writer {
    /// A writer to `database`, whose log is at `position`, and its handle. Each commit wakes `publisher`. What commands
    /// would do is seen on the tables of a follower, which may be behind; what not every router of `heartbeats` obeys is
    /// refused.
    #[must_use]
    pub fn new(
        database: Database,
        position: Position,
        tables: Tables,
        options: Options,
        publisher: publisher::Handle,
        heartbeats: Arc<dyn Heartbeats>,
        metrics: Metrics,
    ) -> (Self, Commands) {
        let (jobs, queue) = mpsc::channel(options.queue);
        let head = watch::Sender::new(position);
        let commands = Commands { queue: jobs, head: head.subscribe(), wait: options.wait };
        let table = HeadTable::new(database.clone(), tables);
        (Self { database, table, queue, head, options, publisher, heartbeats, metrics }, commands)
    }

    /// Carries commands out until `token` is cancelled; those taken by then are still carried out.
    pub async fn run(mut self, token: CancellationToken) {
        loop {
            let job = tokio::select! {
                job = self.queue.recv() => job,
                () = token.cancelled() => break,
            };
            let Some(job) = job else { return };
            self.carry_out(job).await;
        }
        self.queue.close();
        while let Some(job) = self.queue.recv().await {
            self.carry_out(job).await;
        }
    }

    async fn carry_out(&mut self, job: Job) {
        let begun = Instant::now();
        let result = if begun > job.begin_by {
            Err(Error::Late(self.options.wait))
        } else {
            let is_bulk = job.command.is_bulk();
            let deadline = if is_bulk { self.options.bulk_timeout } else { self.options.timeout };
            let heartbeats = Arc::clone(&self.heartbeats);
            transaction::carry_out(&self.database, &mut self.table, &*heartbeats, &job.command, deadline)
                .await
        };
        self.metrics.command(&result, begun.elapsed());
        if let Ok(committed) = &result {
            self.publisher.notify();
            self.head.send_if_modified(|head| {
                let moved = *head != committed.position;
                *head = committed.position;
                moved
            });
        }
        if let Err(Error::Database(error) | Error::Unknown(error)) = &result {
            self.database.note(error);
        }
        if let Err(Error::Unknown(error)) = &result {
            tracing::error!(error = %chain(error), "commit with unknown outcome");
        }
        // A caller that has gone needs no answer.
        drop(job.reply.send(result));
    }
}
