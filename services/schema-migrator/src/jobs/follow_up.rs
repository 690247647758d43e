//! What comes after a run: the control plane is told where the database is, then the tenant is pinned. Both are noted
//! with the end of the upgrade, so that no crash loses them, and are tried until the control plane has answered.

use super::database::Error;
use super::observed::Observed;
use super::queue::Queue;
use super::record::{Job, timestamp};
use crate::control::{Control, is_transient};
use crate::metrics::Metrics;
use grey_core::error::Reason;
use grey_core::version::Version;
use grey_proto::control::{ObservedSchema, Pin, WriteOptions};
use grey_proto::schema::{Flip, FlipState};
use grey_proto::status::ApiError;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long what one replica does is left alone by the others.
const CLAIM: Duration = Duration::from_secs(120);

/// Schemas that the control plane is told of at once at most.
const REPORTS: u32 = 100;

/// While many upgrades end, what ends within this time is reported together: each report is an event of its own. The first
/// one does not wait.
const GATHER: Duration = Duration::from_millis(200);

/// How often what is queued is counted and what is old is forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Tells the control plane what came of upgrades, and forgets old ones.
pub struct FollowUp {
    queue: Queue,
    control: Control,
    metrics: Metrics,
    /// Before the control plane is asked again.
    pause: Duration,
    retention: Duration,
}

impl FollowUp {
    /// Follows up what is in `queue`.
    #[must_use]
    pub fn new(
        queue: Queue,
        control: Control,
        metrics: Metrics,
        pause: Duration,
        retention: Duration,
    ) -> Self {
        Self { queue, control, metrics, pause, retention }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        loop {
            let began = Instant::now();
            if let Err(error) = self.work(&stop).await {
                tracing::warn!(error = ?error, "the migrator's database did not answer");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(began + GATHER) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.queue.followed_up() => {}
                () = tokio::time::sleep(self.pause) => {}
                _ = housekeeping.tick() => self.keep_house().await,
            }
        }
    }

    async fn keep_house(&self) {
        let kept = async {
            let (queued, running) = self.queue.depth().await?;
            self.metrics.depth(queued, running);
            self.queue.forget(self.retention).await
        };
        match kept.await {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(upgrades = forgotten, "forgot old upgrades"),
            Err(error) => tracing::warn!(error = ?error, "the migrator's database did not answer"),
        }
    }

    async fn work(&self, stop: &CancellationToken) -> Result<(), Error> {
        while !stop.is_cancelled() {
            let observed = self.queue.take_reports(CLAIM, REPORTS).await?;
            if observed.is_empty() {
                break;
            }
            self.report(&observed, stop).await?;
        }
        while !stop.is_cancelled() {
            let Some(job) = self.queue.take_flip(CLAIM).await? else { break };
            self.flip(&job).await?;
        }
        Ok(())
    }

    /// Reports schemas together, or each by itself if one of them is refused.
    async fn report(&self, observed: &[Observed], stop: &CancellationToken) -> Result<(), Error> {
        let every: Vec<_> = observed.iter().map(message).collect();
        match self.control.observe(every).await {
            Ok(()) => return self.queue.reported(observed).await,
            Err(error) if is_transient(&error) => return self.put_off(observed, &error).await,
            Err(error) => {
                if let [one] = observed {
                    return self.refused(one, &error).await;
                }
            }
        }
        for (index, one) in observed.iter().enumerate() {
            let rest = observed.get(index..).unwrap_or_default();
            if stop.is_cancelled() {
                return self.queue.report_later(rest, self.pause).await;
            }
            match self.control.observe(vec![message(one)]).await {
                Ok(()) => self.queue.reported(std::slice::from_ref(one)).await?,
                Err(error) if is_transient(&error) => return self.put_off(rest, &error).await,
                Err(error) => self.refused(one, &error).await?,
            }
        }
        Ok(())
    }

    async fn put_off(&self, observed: &[Observed], error: &ApiError) -> Result<(), Error> {
        tracing::warn!(schemas = observed.len(), error = %error, "schemas are not reported yet");
        observed.iter().for_each(|_| self.metrics.put_off());
        self.queue.report_later(observed, self.pause).await
    }

    /// The tenant or the service is gone: nobody waits for it.
    async fn refused(&self, observed: &Observed, error: &ApiError) -> Result<(), Error> {
        let Observed { tenant, service, .. } = observed;
        tracing::warn!(tenant.id = tenant, service.id = service, error = %error, "schema is not reported");
        self.queue.reported(std::slice::from_ref(observed)).await
    }

    async fn flip(&self, job: &Job) -> Result<(), Error> {
        let upgrade = &job.upgrade;
        let Some(flip) = &upgrade.flip else { return Ok(()) };
        let mut pin = flip.pin.clone().unwrap_or_default();
        pin.tenant.clone_from(&upgrade.tenant);
        pin.service.clone_from(&upgrade.service);
        let reason = match upgrade.reason.as_str() {
            "" => format!("upgrade of the database to {}", upgrade.schema),
            reason => reason.to_owned(),
        };
        let write = WriteOptions {
            expected_revision: flip.expected_revision,
            expected_epoch: flip.expected_epoch,
            reason,
            cause: format!("upgrade/{}", upgrade.id),
            ..WriteOptions::default()
        };
        let answer = self.control.pin(&job.asker, pin.clone(), write).await;
        let (state, error) = match answer {
            Ok(()) => (FlipState::Done, String::new()),
            Err(error) if is_transient(&error) => return self.flip_later(job, &error.to_string()).await,
            Err(error) if error.reason == Reason::RevisionMismatch => {
                // An answer that was lost leaves the pin as it should be.
                match self.control.pinned(&upgrade.tenant, &upgrade.service).await {
                    Ok(Some(present)) if same(&present, &pin) => (FlipState::Done, String::new()),
                    Ok(_) => (FlipState::Refused, describe(&error)),
                    Err(error) => return self.flip_later(job, &error.to_string()).await,
                }
            }
            Err(error) => (FlipState::Refused, describe(&error)),
        };
        tracing::info!(
            tenant.id = upgrade.tenant,
            service.id = upgrade.service,
            upgrade.id = upgrade.id,
            pin.version = pin.version,
            pin.state = state.as_str_name(),
            error = error,
            "tenant was to be pinned"
        );
        let flip = Flip { state: state.into(), error, ..flip.clone() };
        self.queue.end_flip(&upgrade.id, &flip).await
    }

    async fn flip_later(&self, job: &Job, error: &str) -> Result<(), Error> {
        let upgrade = &job.upgrade;
        tracing::warn!(
            tenant.id = upgrade.tenant,
            upgrade.id = upgrade.id,
            error,
            "tenant is not pinned yet"
        );
        self.metrics.put_off();
        self.queue.flip_later(&upgrade.id, self.pause).await
    }
}

fn message(observed: &Observed) -> ObservedSchema {
    ObservedSchema {
        tenant: observed.tenant.clone(),
        service: observed.service.clone(),
        schema: observed.seen.schema.clone(),
        observed_at: Some(timestamp(observed.at_ms)),
        revision: 0,
    }
}

fn same(present: &Pin, wanted: &Pin) -> bool {
    let version = |pin: &Pin| Version::new(&pin.version).ok();
    version(present) == version(wanted) && present.locked == wanted.locked
}

fn describe(error: &ApiError) -> String {
    format!("{}: {}", error.reason.as_str(), error.message)
}
