//! Runs plans on a tenant's database: up, down, and back to where it was when something fails.
//!
//! A migration that may run in one transaction does, together with its checks and its row in the history: a crash
//! leaves all of it or nothing. Any other migration keeps a journal, step by step; see [`crate::tenant::Record`].
//! After a crash [`recover`] finishes what was half done, or undoes it, before anything else is run.
//!
//! A failure takes everything back that the same upgrade has done, newest first, by undo files. Whether undoing half a
//! migration worked is not believed but compared: the catalog must be as it was when the migration was begun.

mod back;
mod begin;
mod check;
mod commit_mode;
mod invalid;
mod mysql;
mod repeat;
mod script;
mod steps;
mod whole;

pub use whole::{Goal, MigrateError, Migration, migrate, plan_on};

use crate::files::{Dialect, Scripts};
use crate::plan::{Direction, Plan};
use crate::tenant::{Connection, Error, Stop};
use crate::{backfill, backup, external};
use grey_core::schema::SchemaVersion;
use script::Script;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// On whose behalf something runs, with which files, and until when.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The upgrade; what it has applied is known by this, also after a crash. At most 64 bytes.
    pub upgrade: &'a str,
    /// Who asked for it.
    pub actor: &'a str,
    /// The files.
    pub scripts: &'a Scripts,
    /// When to stop.
    pub stop: Stop,
    /// How long taking everything back may take, once the job has failed or was stopped.
    pub undo_time: Duration,
    /// Whether the database is backed up before anything is run.
    pub backup: bool,
    /// What it is run with.
    pub tooling: &'a Tooling,
}

/// What migrations are run with besides the database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tooling {
    /// Tools that may be run.
    pub tools: external::Tools,
    /// How backfills give way to others.
    pub pacing: backfill::Pacing,
    /// How backups are made; without it none can be.
    pub backups: Option<backup::Options>,
    /// Whether what the catalog is like is not kept at the end, so that drift cannot be told.
    pub skips_catalog: bool,
}

/// What is going on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The database is backed up.
    BackedUp {
        /// The file.
        path: PathBuf,
    },
    /// A migration is begun, or gone on with.
    Begun {
        /// Its version.
        version: SchemaVersion,
        /// Whether it is applied or undone.
        direction: Direction,
        /// How many steps it has.
        steps: u32,
    },
    /// A step is begun.
    Step {
        /// The migration's version.
        version: SchemaVersion,
        /// Whether it is applied or undone.
        direction: Direction,
        /// The step, counted from 1.
        step: u32,
    },
    /// A step is done; in a transaction that is not committed yet, if the migration is one.
    StepDone {
        /// The migration's version.
        version: SchemaVersion,
        /// Whether it is applied or undone.
        direction: Direction,
        /// The step, counted from 1.
        step: u32,
    },
    /// A backfill has come this far.
    Rows {
        /// The migration's version.
        version: SchemaVersion,
        /// The step, counted from 1.
        step: u32,
        /// Rows that are done.
        done: u64,
        /// Rows that there are, by estimate.
        total: u64,
    },
    /// The history is about to tell that the migration is applied or undone.
    Recording {
        /// Its version.
        version: SchemaVersion,
        /// Whether it is applied or undone.
        direction: Direction,
    },
    /// The history tells it.
    Ended {
        /// Its version.
        version: SchemaVersion,
        /// Whether it is applied or undone.
        direction: Direction,
    },
    /// A repeatable file was run, or failed.
    Repeated {
        /// What it is called.
        description: String,
        /// Why it failed.
        error: Option<Error>,
    },
    /// A migration failed; what the upgrade has done is about to be taken back.
    Failed {
        /// Its version.
        version: SchemaVersion,
        /// Why.
        error: Error,
    },
}

/// Is told what is going on; it must not block for long.
pub type Listener<'a> = &'a mut (dyn FnMut(Progress) + Send + Sync);

/// How a run ended, and where the database is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Where the database is.
    pub schema: Option<SchemaVersion>,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything of the plan is done.
    Succeeded,
    /// A migration failed and nothing is half done: the database is at the schema that it was at before the upgrade, or, where
    /// the upgrade had applied a migration that cannot be undone, at that one.
    Failed(Failure),
    /// Someone asked to stop, and the database is at the schema that it was at before the upgrade.
    Cancelled,
    /// A migration failed and is half done: the journal says what is applied.
    NeedsRepair(Failure),
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {error}{}", if .left.is_empty() { String::new() } else { format!("; {}", .left) })]
pub struct Failure {
    /// The migration that failed.
    pub version: SchemaVersion,
    /// Its file.
    pub file: String,
    /// What went wrong.
    pub error: Error,
    /// What is left of it, in words; empty: nothing.
    pub left: String,
}

/// Runs a plan that was made under the lock, which the connection must still hold, from the history that is there. Its
/// tables are there, and nothing may be half done: see [`recover`].
///
/// # Errors
/// With [`Error::Unreachable`] when the connection is lost, which leaves something half done; with any other when
/// nothing was begun.
async fn run(
    connection: &Connection,
    job: &Job<'_>,
    plan: &Plan,
    listener: Listener<'_>,
) -> Result<Ended, Error> {
    let mut worker = Worker::new(connection, job, listener);
    for planned in &plan.steps {
        let Some(script) = Script::of(&planned.migration, plan.direction) else {
            let text = format!("run a plan: {} has no undo file", planned.migration.schema);
            return Err(Error::Conflict(text));
        };
        if let Err(error) = Box::pin(worker.apply(&script, &[])).await {
            return Box::pin(worker.back_out(&script, error)).await;
        }
    }
    let none = || SchemaVersion::new("0").map_err(|error| Error::Conflict(error.to_string()));
    for repeatable in &plan.repeatables {
        let schema = plan.to.clone().map_or_else(none, Ok)?;
        if let Err(error) = Box::pin(worker.repeat(repeatable, &schema)).await {
            return Box::pin(worker.not_repeated(repeatable, &schema, error)).await;
        }
    }
    Ok(Ended { outcome: Outcome::Succeeded, schema: plan.to.clone() })
}

/// Finishes what a crash has left half done, or takes it back. The connection must hold the lock.
///
/// `None`: nothing was half done. [`Outcome::Succeeded`]: it is done now, and the job may go on to a new plan. Otherwise
/// the database is where it was before the upgrade that crashed, or needs repair.
///
/// # Errors
/// As [`run`].
pub async fn recover(
    connection: &Connection,
    job: &Job<'_>,
    listener: Listener<'_>,
) -> Result<Option<Ended>, Error> {
    connection.verify_lock().await?;
    connection.prepare().await?;
    let mut ended = None;
    loop {
        let records = connection.unfinished().await?;
        let Some(first) = records.first() else { return Ok(ended) };
        let version = first.version.clone();
        let records: Vec<_> = records.iter().filter(|it| it.version == version).cloned().collect();
        let mut worker = Worker::new(connection, job, &mut *listener);
        worker.upgrade.clone_from(&first.upgrade);
        worker.actor.clone_from(&first.actor);
        let one = Box::pin(worker.recover(&version, &records)).await?;
        let over = one.outcome != Outcome::Succeeded;
        ended = Some(one);
        if over {
            return Ok(ended);
        }
    }
}

/// Runs migrations on one connection.
struct Worker<'a> {
    connection: &'a Connection,
    job: &'a Job<'a>,
    /// In a lock only so that the worker can be lent to other threads.
    listener: Mutex<Listener<'a>>,
    /// When to stop: the job's, until something is taken back.
    stop: Stop,
    /// Whose migrations it runs: the job's, or those of the upgrade that crashed.
    upgrade: String,
    actor: String,
}

impl<'a> Worker<'a> {
    fn new(connection: &'a Connection, job: &'a Job<'a>, listener: Listener<'a>) -> Self {
        let (upgrade, actor) = (job.upgrade.to_owned(), job.actor.to_owned());
        Self { connection, job, listener: Mutex::new(listener), stop: job.stop.clone(), upgrade, actor }
    }

    fn tell(&mut self, progress: Progress) {
        (self.listener())(progress);
    }

    fn listener(&mut self) -> &mut Listener<'a> {
        self.listener.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn dialect(&self) -> Dialect {
        self.connection.dialect()
    }

    /// From now on the job's cancellation and deadline do not count: what is taken back has time of its own.
    fn take_time(&mut self) {
        self.stop = Stop::within(self.job.undo_time, CancellationToken::new());
    }

    async fn ended(&self, outcome: Outcome) -> Result<Ended, Error> {
        let history = self.connection.history().await?;
        Ok(Ended { outcome, schema: history.present().cloned() })
    }
}
