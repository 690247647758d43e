//! One upgrade on this replica: run while its lease is kept, saved as it goes on, and ended.

mod provision;

use super::lease::{Ended, Lease, Progress, Taken};
use super::observed::Seen;
use super::queue::Queue;
use super::record::Job;
use super::{Options, UpgradeLabels};
use crate::control::is_transient;
use crate::files::{Dialect, Scripts};
use crate::metrics::Metrics;
use crate::plan::Direction;
use crate::prepare::{Grounds, Registered};
use crate::progress::{Tracker, Unsaved};
use crate::run::{self, MigrateError, Migration, Outcome, migrate};
use crate::tenant::{Error, Stop};
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use grey_proto::schema::{Upgrade, UpgradeDirection, UpgradeState};
use grey_proto::status::ApiError;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Before something that may be there again soon is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Time between two saves of steps that begin or end.
const SOON: Duration = Duration::from_millis(250);

/// What every execution needs.
pub(super) struct Surroundings {
    pub(super) name: String,
    pub(super) queue: Queue,
    pub(super) grounds: Grounds,
    pub(super) options: Options,
    pub(super) metrics: Metrics,
}

/// Why an upgrade stops before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Someone asked.
    Asked,
    /// This replica drains.
    Drain,
    /// Another replica has it.
    Lost,
}

/// One upgrade that was taken.
pub(super) struct Execution {
    around: Arc<Surroundings>,
    job: Job,
    lease: Lease,
    /// It was begun before, by whomever, and something may be half done.
    resumed: bool,
    direction: Direction,
    tracker: Tracker,
    token: CancellationToken,
    cause: OnceLock<Cause>,
    halt: CancellationToken,
}

/// What became of a run.
struct Verdict {
    state: UpgradeState,
    error: String,
    reason: Option<Reason>,
    schema: Option<SchemaVersion>,
    seen: Option<Seen>,
    dialect: Option<Dialect>,
}

/// What a run needs, found anew whenever it begins.
struct Found {
    registered: Registered,
    scripts: Arc<Scripts>,
    goal: run::Goal,
    options: crate::plan::Options,
}

impl Execution {
    pub(super) fn new(around: Arc<Surroundings>, taken: Taken, halt: CancellationToken) -> Self {
        let Taken { job, lease, .. } = taken;
        let upgrade = &job.upgrade;
        let labels = UpgradeLabels {
            upgrade: upgrade.id.clone(),
            tenant: upgrade.tenant.clone(),
            service: upgrade.service.clone(),
        };
        let direction = match upgrade.direction() {
            UpgradeDirection::Down => Direction::Down,
            _ => Direction::Up,
        };
        let progress = Progress {
            from: upgrade.from_schema.clone(),
            schema: upgrade.schema.clone(),
            steps: upgrade.steps.clone(),
            backup: upgrade.backup.clone(),
        };
        let resumed = upgrade.attempts > 1;
        let tracker = Tracker::new(labels, direction, progress);
        let token = CancellationToken::new();
        Self { around, job, lease, resumed, direction, tracker, token, cause: OnceLock::new(), halt }
    }

    pub(super) async fn run(self) {
        let began = Instant::now();
        let verdict = tokio::select! {
            verdict = Box::pin(self.execute()) => verdict,
            never = self.keep() => match never {},
            never = self.save() => match never {},
            never = self.drain() => match never {},
        };
        let stopped = verdict.state == UpgradeState::Cancelled;
        match self.cause.get() {
            Some(Cause::Lost) => {
                self.around.metrics.lease_lost();
                tracing::warn!(upgrade.id = self.lease.id, "another replica has taken the upgrade over");
            }
            Some(Cause::Drain) if stopped => self.put_back().await,
            _ => self.end(verdict, began.elapsed()).await,
        }
    }

    fn stop_for(&self, cause: Cause) {
        // The first cause counts.
        if self.cause.set(cause).is_ok() {
            self.token.cancel();
        }
    }

    /// Renews the lease, and hears of it when someone asks to stop.
    async fn keep(&self) -> Infallible {
        let Surroundings { queue, options, .. } = &*self.around;
        let mut renewed = Instant::now();
        loop {
            sleep(options.heartbeat).await;
            match queue.renew(&self.lease, options.lease).await {
                Ok(Some(cancelling)) => {
                    renewed = Instant::now();
                    // What is half done has to be picked up before it can be taken back.
                    if cancelling && (!self.resumed || self.tracker.touched()) {
                        self.stop_for(Cause::Asked);
                    }
                }
                Ok(None) => self.stop_for(Cause::Lost),
                Err(error) => {
                    tracing::warn!(upgrade.id = self.lease.id, error = ?error, "lease is not renewed");
                    if renewed.elapsed() >= options.lease {
                        self.stop_for(Cause::Lost);
                    }
                }
            }
        }
    }

    /// Saves how far it is: steps soon, statements and rows now and then. What ends at once is saved with its end.
    async fn save(&self) -> Infallible {
        let Surroundings { queue, options, .. } = &*self.around;
        let mut saved = Instant::now();
        loop {
            self.tracker.changed().await;
            loop {
                let detail = self.tracker.unsaved() == Unsaved::Detail;
                let due = saved + if detail { options.save_every } else { options.save_every.min(SOON) };
                tokio::select! {
                    () = tokio::time::sleep_until(due) => break,
                    () = self.tracker.changed() => {}
                }
            }
            let (progress, unsaved) = self.tracker.take();
            if unsaved == Unsaved::Nothing {
                continue;
            }
            saved = Instant::now();
            match queue.save(&self.lease, &progress).await {
                Ok(true) => {}
                Ok(false) => self.stop_for(Cause::Lost),
                Err(error) => {
                    tracing::warn!(upgrade.id = self.lease.id, error = ?error, "progress is not saved");
                }
            }
        }
    }

    async fn drain(&self) -> Infallible {
        self.halt.cancelled().await;
        self.stop_for(Cause::Drain);
        std::future::pending().await
    }

    async fn execute(&self) -> Verdict {
        let options = &self.around.options;
        let asked = self.job.options.timeout.and_then(|timeout| Duration::try_from(timeout).ok());
        let timeout = asked.unwrap_or(options.timeout).min(options.max_timeout);
        let stop = Stop::within(timeout, self.token.clone());
        match &self.job.upgrade.provision {
            None => self.upgrade(&stop, None).await,
            Some(provision) => Box::pin(self.provision(provision.clone(), &stop)).await,
        }
    }

    /// Upgrades the database that is registered, or one that was `made` and is not registered yet.
    async fn upgrade(&self, stop: &Stop, made: Option<&Registered>) -> Verdict {
        let options = &self.around.options;
        let found = match self.find(stop, made).await {
            Ok(found) => found,
            Err(verdict) => return *verdict,
        };
        let upgrade = &self.job.upgrade;
        let migration = Migration {
            target: &found.registered.target,
            timeouts: *self.around.grounds.timeouts(),
            goal: found.goal.clone(),
            options: found.options.clone(),
        };
        let job = run::Job {
            upgrade: &upgrade.id,
            actor: &upgrade.actor,
            scripts: &found.scripts,
            stop: stop.clone(),
            undo_time: options.undo_timeout,
            backup: self.job.options.backup,
            tooling: self.around.grounds.tooling(),
        };
        let dialect = Some(found.registered.target.dialect);
        loop {
            let result = Box::pin(migrate(&migration, &job, &mut |told| self.tracker.hear(told))).await;
            match result {
                // The session of the replica that died may still be there.
                Err(MigrateError::Database(Error::Locked { .. })) if self.resumed && stop.check().is_ok() => {
                    sleep(PAUSE).await;
                }
                Ok(ended) => return self.ended(ended, &found.scripts, dialect),
                Err(error) => return self.failed(&error, dialect),
            }
        }
    }

    /// Finds database, files and goal; the control plane may be away for a while.
    async fn find(&self, stop: &Stop, made: Option<&Registered>) -> Result<Found, Box<Verdict>> {
        loop {
            let error = match Box::pin(self.find_once(made)).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            if let Err(stopped) = stop.check() {
                let told =
                    if is_transient(&error) { error } else { crate::prepare::database_error(&stopped) };
                let verdict = self.nothing_done(&told);
                let cancelled = matches!(stopped, Error::Cancelled);
                let state = if cancelled { UpgradeState::Cancelled } else { verdict.state };
                return Err(Box::new(Verdict { state, ..verdict }));
            }
            if !is_transient(&error) {
                return Err(Box::new(self.nothing_done(&error)));
            }
            tracing::warn!(upgrade.id = self.lease.id, error = %error, "an upgrade cannot begin yet");
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = stop.token.cancelled() => {}
                () = tokio::time::sleep_until(stop.deadline) => {}
            }
        }
    }

    async fn find_once(&self, made: Option<&Registered>) -> Result<Found, ApiError> {
        let (upgrade, grounds) = (&self.job.upgrade, &self.around.grounds);
        let (tenant, service) = self.names()?;
        let registered = match made {
            Some(made) => made.clone(),
            None => grounds.registered(&tenant, &service).await?,
        };
        let scripts = grounds.scripts(&service, registered.target.dialect).await?.for_tenant(&tenant);
        let target = upgrade.target.clone().unwrap_or_default();
        let goal = grounds.goal(&service, upgrade.direction(), &target).await?;
        let options = grounds.options(&self.job.options)?;
        Ok(Found { registered, scripts, goal, options })
    }

    /// Whose database it is.
    fn names(&self) -> Result<(TenantId, ServiceId), ApiError> {
        let unreadable = |why: String| ApiError::new(Reason::Internal, why);
        let Upgrade { tenant, service, .. } = &self.job.upgrade;
        let tenant = TenantId::new(tenant).map_err(|error| unreadable(error.to_string()))?;
        Ok((tenant, ServiceId::new(service).map_err(|error| unreadable(error.to_string()))?))
    }

    fn nothing_done(&self, error: &ApiError) -> Verdict {
        // Something may be half done by an earlier attempt, which only the journal knows.
        let state = if self.resumed { UpgradeState::NeedsRepair } else { UpgradeState::Failed };
        let (error, reason) = (error.message.clone(), Some(error.reason));
        Verdict { state, error, reason, schema: None, seen: None, dialect: None }
    }

    fn ended(&self, ended: run::Ended, scripts: &Scripts, dialect: Option<Dialect>) -> Verdict {
        let run::Ended { outcome, schema } = ended;
        let (state, error, reason) = match outcome {
            Outcome::Succeeded => (UpgradeState::Succeeded, String::new(), None),
            Outcome::Cancelled => (UpgradeState::Cancelled, "cancelled".to_owned(), None),
            Outcome::Failed(failure) => {
                (UpgradeState::Failed, failure.to_string(), Some(failure.error.reason()))
            }
            Outcome::NeedsRepair(failure) => {
                (UpgradeState::NeedsRepair, failure.to_string(), Some(failure.error.reason()))
            }
        };
        let newer = |migration: &&Arc<crate::files::Migration>| {
            schema.as_ref().is_none_or(|schema| migration.schema > *schema)
        };
        let seen = Seen {
            schema: schema.as_ref().map(ToString::to_string).unwrap_or_default(),
            fingerprint: scripts.fingerprint().to_string(),
            pending: u32::try_from(scripts.migrations.iter().filter(newer).count()).unwrap_or(u32::MAX),
        };
        Verdict { state, error, reason, schema, seen: Some(seen), dialect }
    }

    /// A run that ended without knowing where the database is.
    fn failed(&self, error: &MigrateError, dialect: Option<Dialect>) -> Verdict {
        let reason = Some(error.reason());
        let touched = self.tracker.touched() || self.resumed;
        let state = match error {
            MigrateError::Database(Error::Cancelled) if !touched => UpgradeState::Cancelled,
            MigrateError::Refused(_) => UpgradeState::Failed,
            MigrateError::Database(_) if touched && self.cause.get() == Some(&Cause::Drain) => {
                // The next attempt picks up what is half done.
                UpgradeState::Cancelled
            }
            MigrateError::Database(_) if touched => UpgradeState::NeedsRepair,
            MigrateError::Database(_) => UpgradeState::Failed,
        };
        let mut text = error.to_string();
        if state == UpgradeState::NeedsRepair {
            text.push_str(
                "; something may be half done, which the next upgrade of this database goes on with",
            );
        }
        Verdict { state, error: text, reason, schema: None, seen: None, dialect }
    }

    /// Notes the end; if the migrator's database stays away, the upgrade is taken again once its lease has run out, and
    /// then finds that everything is done.
    async fn end(&self, verdict: Verdict, took: Duration) {
        let Surroundings { queue, options, metrics, .. } = &*self.around;
        let mut progress = self.tracker.finish(verdict.schema.as_ref());
        // One that was made for it and did not come to be used is gone.
        let known = verdict.seen.is_some() || self.job.upgrade.provision.is_some();
        if known && verdict.schema.is_none() {
            progress.schema.clear();
        }
        let ended = Ended {
            state: verdict.state,
            progress,
            error: verdict.error,
            reason: verdict.reason,
            seen: verdict.seen,
        };
        metrics.ended(ended.state, verdict.dialect, ended.reason, took);
        let upgrade = &self.job.upgrade;
        tracing::info!(
            tenant.id = upgrade.tenant,
            service.id = upgrade.service,
            upgrade.id = upgrade.id,
            upgrade.state = ended.state.as_str_name(),
            upgrade.direction = %self.direction,
            schema.version = ended.progress.schema,
            error.class = ended.reason.map(Reason::as_str).unwrap_or_default(),
            error = ended.error,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "upgrade ended"
        );
        let give_up = Instant::now() + options.lease;
        while Instant::now() < give_up {
            match queue.end(&self.job, &self.lease, &ended).await {
                Ok(true) => return,
                Ok(false) => {
                    metrics.lease_lost();
                    tracing::warn!(upgrade.id = upgrade.id, "another replica has taken the upgrade over");
                    return;
                }
                Err(error) => {
                    tracing::warn!(upgrade.id = upgrade.id, error = ?error, "the end of an upgrade is not noted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn put_back(&self) {
        let upgrade = self.job.upgrade.id.as_str();
        match self.around.queue.put_back(&self.lease).await {
            Ok(true) => tracing::info!(upgrade.id = upgrade, "upgrade is put back"),
            Ok(false) => tracing::warn!(upgrade.id = upgrade, "another replica has taken the upgrade over"),
            Err(error) => tracing::warn!(upgrade.id = upgrade, error = ?error, "upgrade is not put back"),
        }
    }
}
