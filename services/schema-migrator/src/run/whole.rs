//! A whole run on one tenant's database: connected, locked, recovered, planned, refused or run.

use super::{Ended, Job, Listener, Outcome, Progress, recover, run};
use crate::backup::backup;
use crate::files::Scripts;
use crate::plan::{self, Facts, History, Plan, Refused, plan, plan_undo};
use crate::tenant::{Connection, Error, Stop, Target, Timeouts};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use grey_core::error::Reason;
use grey_core::schema::SchemaVersion;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First wait after a lost connection; each further one is twice as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Where a run should lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Forward.
    Up(plan::Target),
    /// Back to this version; `None`: to before the first migration.
    Down(Option<SchemaVersion>),
}

/// What is to be done on which database.
#[derive(Clone, Debug)]
pub struct Migration<'a> {
    /// The database.
    pub target: &'a Target,
    /// How long is waited for it.
    pub timeouts: Timeouts,
    /// Where to.
    pub goal: Goal,
    /// What is allowed.
    pub options: plan::Options,
}

/// Why a run came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MigrateError {
    /// The database did not do what was asked.
    #[error(transparent)]
    Database(#[from] Error),
    /// What would be run is not allowed; nothing was.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl MigrateError {
    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Database(error) => error.reason(),
            Self::Refused(refused) => refused.reason(),
        }
    }
}

/// Brings a tenant's database where the migration's goal says.
///
/// A lost connection is made again after longer and longer waits, and what was half done is recovered; nothing else is
/// tried twice.
///
/// # Errors
/// With [`MigrateError::Refused`] when the plan may not be run. With [`MigrateError::Database`] when the database cannot
/// be reached until the job's deadline, refuses the connection or is locked by another session.
pub async fn migrate(
    migration: &Migration<'_>,
    job: &Job<'_>,
    listener: Listener<'_>,
) -> Result<Ended, MigrateError> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .with_jitter()
        .without_max_times();
    let mut waits = backoff.build();
    let (mut lost, mut begun) = (false, false);
    loop {
        let mut notice = |progress: Progress| {
            begun |= matches!(progress, Progress::Begun { .. });
            listener(progress);
        };
        let error = match Box::pin(once(migration, job, &mut notice)).await {
            Err(MigrateError::Database(error)) => error,
            result => return result,
        };
        // The server may not have noticed yet that the session with the lock is gone.
        let again = error.is_unreachable() || (lost && matches!(error, Error::Locked { .. }));
        lost |= error.is_unreachable();
        let wait = waits.next().unwrap_or(LONGEST_WAIT);
        // What was begun has to be taken back, for which there is time of its own.
        let limit = job.stop.deadline + if begun { job.undo_time } else { Duration::ZERO };
        if !again || Instant::now() + wait >= limit {
            return Err(error.into());
        }
        tracing::warn!(tenant.id = %migration.target.tenant, error = %error, "database is away, trying again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = job.stop.token.cancelled(), if !begun => return Err(error.into()),
        }
    }
}

async fn once(
    migration: &Migration<'_>,
    job: &Job<'_>,
    listener: Listener<'_>,
) -> Result<Ended, MigrateError> {
    let mut connection = Connection::open(migration.target, &migration.timeouts).await?;
    // A job that was stopped still has to recover what it has left.
    connection.lock(&Stop::within(migration.timeouts.lock * 2, CancellationToken::new())).await?;
    let mut history = connection.prepared_history().await?;
    if !history.leftovers.is_empty() {
        if let Some(ended) = Box::pin(recover(&connection, job, &mut *listener)).await?
            && ended.outcome != Outcome::Succeeded
        {
            keep(&connection, job, &ended).await;
            return Ok(ended);
        }
        history = connection.history().await?;
        keep(&connection, job, &Ended { outcome: Outcome::Succeeded, schema: None }).await;
    }
    let (goal, options) = (&migration.goal, &migration.options);
    let plan = Box::pin(plan_on(&connection, job.scripts, &history, goal, options)).await?;
    plan.verdict()?;
    if plan.is_empty() {
        return Ok(Ended { outcome: Outcome::Succeeded, schema: plan.from });
    }
    if job.backup {
        let options = job.tooling.backups.as_ref().ok_or_else(|| {
            Error::Conflict("back the tenant's database up: no folder for backups is configured".to_owned())
        })?;
        let path = Box::pin(backup(&connection, options, job.upgrade, &job.stop)).await?;
        listener(Progress::BackedUp { path });
        // A backup takes long enough for someone to have changed the history by hand.
        if connection.history().await? != history {
            let text = "run a plan: the history has changed while the database was backed up";
            return Err(Error::Conflict(text.to_owned()).into());
        }
    }
    let ended = Box::pin(run(&connection, job, &plan, listener)).await?;
    keep(&connection, job, &ended).await;
    Ok(ended)
}

/// Keeps what the catalog is like at the end, by which drift is found; without it there is only nothing to compare with.
async fn keep(connection: &Connection, job: &Job<'_>, ended: &Ended) {
    if job.tooling.skips_catalog || matches!(ended.outcome, Outcome::NeedsRepair(_)) {
        return;
    }
    if let Err(error) = Box::pin(connection.keep_catalog()).await {
        let tenant = &connection.target().tenant;
        tracing::warn!(tenant.id = %tenant, error = %error, "what the catalog is like is not kept");
    }
}

/// Plans by `history`, with what the database tells of the tables that would be touched.
///
/// # Errors
/// When the database does not answer.
pub async fn plan_on(
    connection: &Connection,
    scripts: &Scripts,
    history: &History,
    goal: &Goal,
    options: &plan::Options,
) -> Result<Plan, Error> {
    let first = goal.plan(scripts, history, options, &Facts::default());
    if first.is_empty() {
        return Ok(first);
    }
    let mut facts = connection.facts(&first.names()).await?;
    if history.is_blank() {
        facts.contents = connection.contents().await?;
    }
    Ok(goal.plan(scripts, history, options, &facts))
}

impl Goal {
    /// What leads there.
    #[must_use]
    pub fn plan(&self, scripts: &Scripts, history: &History, options: &plan::Options, facts: &Facts) -> Plan {
        match self {
            Self::Up(to) => plan(scripts, history, to, options, facts),
            Self::Down(to) => plan_undo(scripts, history, to.as_ref(), options, facts),
        }
    }
}
