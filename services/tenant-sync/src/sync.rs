//! The leader's work: read the tenant API, compare, apply; again and again, and whenever someone asks.
//!
//! One replica leads. What it has found out (who has been missing for how long, what is held back, what was accepted)
//! lasts as long as its lead: the next leader finds out by itself, which only makes it more careful. Who left within the window
//! is noted in shared state, since not to know it would make the next leader less careful.

mod board;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use grey_core::ids::TenantId;
use grey_proto::sync::SyncRun;
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate};
use grey_sync::{Action, Desk, Gauges, Lead, Request, Tenure, stand_by, timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::apply::{self, Applied, Done, chain};
use crate::control::{Control, Known};
use crate::diff::{self, Facts, Kind, Lately, Loss, Missing, Plan, Rules};
use crate::metrics::Metrics;
use crate::source::{self, Roster, Source};

/// How far an interval varies, as a share, so that several deployments do not read the tenant API in step.
const JITTER: f64 = 0.1;

/// When to sync.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Between two syncs that nobody asked for.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// After a sync that failed; twice as long after each further one, up to `interval`.
    #[serde(with = "duration")]
    pub retry: Duration,
    /// Between the beginnings of two syncs at least, however many are asked for.
    #[serde(with = "duration")]
    pub min_gap: Duration,
    /// The value of the label `managed-by` of the tenants that come from the tenant API.
    pub managed_by: String,
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        for (key, value) in [("interval", self.interval), ("retry", self.retry)] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
        faults.check(self.retry <= self.interval, "retry", "must be at most interval");
        faults.check(self.min_gap <= self.interval, "min_gap", "must be at most interval");
        let fits = (1..=grey_core::tenant::MAX_LABEL_VALUE).contains(&self.managed_by.len());
        faults.check(fits, "managed_by", "must have between 1 and 128 bytes");
    }
}

/// The service without its ports.
pub(crate) struct Engine {
    pub(crate) source: Source,
    pub(crate) control: Control,
    pub(crate) rules: Rules,
    pub(crate) options: Options,
    pub(crate) desk: Desk,
    pub(crate) lead: Lead,
    pub(crate) gauges: Gauges,
    pub(crate) metrics: Metrics,
}

/// Why a sync failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The tenant API cannot be read: nothing was changed.
    #[error("{}", chain(.0))]
    Source(source::Error),
    /// The control plane was not brought to what the tenant API says, or not entirely.
    #[error("{}", chain(.0))]
    Apply(apply::Error),
}

impl Engine {
    /// Works whenever this replica leads, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { source, control, rules, options, desk, mut lead, gauges, metrics } = self;
        let (known, roster, lately) = (Known::default(), Roster::default(), Lately::default());
        let mut mirror = Mirror { source, control, rules, metrics, known, roster, lately };
        let mut token = None;
        loop {
            token = match token {
                None => {
                    let standing_by = stand_by(desk.clone(), gauges.clone(), lead.clone(), || {});
                    tokio::select! {
                        token = lead.changed() => token,
                        () = stop.cancelled() => return,
                        () = standing_by => None,
                    }
                }
                Some(leading) => {
                    let tenure = Tenure::begin(&desk, &gauges, &lead, leading, board::pending());
                    let term = Term::new(&mut mirror, &options, &desk, tenure);
                    // Whatever is under way ends with the lead: a batch is applied as a whole or not at all.
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        token = lead.changed() => token,
                        () = Box::pin(term.run()) => None,
                    }
                }
            };
        }
    }
}

/// What lasts from one lead to the next, because it is compared with the outside each time.
struct Mirror {
    source: Source,
    control: Control,
    rules: Rules,
    metrics: Metrics,
    known: Known,
    /// The last complete reading.
    roster: Roster,
    /// Who left within the window.
    lately: Lately,
}

/// One lead, from its beginning to its end.
struct Term<'a> {
    mirror: &'a mut Mirror,
    options: &'a Options,
    desk: &'a Desk,
    tenure: Tenure,
    began: Instant,
    missing: Missing,
    /// What was held back and may now be applied; kept until a sync has succeeded.
    accepted: BTreeMap<TenantId, Loss>,
    /// What the last plan held back.
    held: Option<diff::Hold>,
    /// Syncs that failed one after the other.
    failures: u32,
    /// What the last sync ended with, if comparing again can find nothing else unless something changes.
    settled: Option<Settled>,
}

/// The end of a sync that left nothing open.
struct Settled {
    /// What the control plane had.
    version: u64,
    plan: Plan,
    /// When someone has been gone for long.
    next_removal: Option<SystemTime>,
}

impl<'a> Term<'a> {
    fn new(mirror: &'a mut Mirror, options: &'a Options, desk: &'a Desk, tenure: Tenure) -> Self {
        Self {
            mirror,
            options,
            desk,
            tenure,
            began: Instant::now(),
            missing: Missing::default(),
            accepted: BTreeMap::new(),
            held: None,
            failures: 0,
            settled: None,
        }
    }

    /// Works forever.
    async fn run(mut self) {
        match self.desk.kept().await {
            Ok(noted) => self.mirror.lately.take_over(&noted.unwrap_or_default()),
            Err(error) => tracing::warn!(error = %error.message, "who left before this lead is not known"),
        }
        let mut due = Instant::now();
        loop {
            let asked = tokio::select! {
                // Whatever waits is answered by one sync.
                asked = self.tenure.asked() => asked,
                () = sleep_until(due) => Vec::new(),
            };
            let begun = Instant::now();
            let asked = self.admit(asked);
            let outcome = self.sync().await;
            for request in &asked {
                self.desk.handled(request, outcome.as_ref().map(drop).map_err(ToString::to_string));
            }
            due = begun + self.pause(outcome.is_ok());
            sleep_until(begun + self.options.min_gap).await;
        }
    }

    /// Notes what was accepted; answers the requests that a sync can carry out.
    fn admit(&mut self, asked: Vec<Request>) -> Vec<Request> {
        let held = self.held.as_ref();
        let mut admitted = Vec::new();
        for request in asked {
            if let Action::Accept(change) = &request.action {
                let Some(hold) = held.filter(|hold| hold.id == *change) else {
                    self.desk.handled(
                        &request,
                        Err("the change is not held any more, or not like that".to_owned()),
                    );
                    continue;
                };
                tracing::info!(change.id = %hold.id, caller.name = %request.by, "held change accepted");
                self.accepted.extend(hold.losses.iter().map(|(id, loss)| (id.clone(), *loss)));
            }
            admitted.push(request);
        }
        admitted
    }

    /// Until the next sync that nobody asks for.
    fn pause(&self, succeeded: bool) -> Duration {
        let interval = self.options.interval;
        if !succeeded {
            let doublings = self.failures.saturating_sub(1).min(16);
            let pause = (self.options.retry * 2_u32.pow(doublings)).min(interval);
            return pause.max(self.mirror.source.patience().unwrap_or_default());
        }
        if self.missing.is_open(&self.mirror.rules) {
            return self.mirror.rules.recheck.min(interval);
        }
        interval.mul_f64(1.0 + JITTER * (rand::random::<f64>() * 2.0 - 1.0))
    }

    /// One sync.
    async fn sync(&mut self) -> Result<(), Failure> {
        let (began_at, begun) = (SystemTime::now(), Instant::now());
        let mut done = Done::default();
        let outcome = match self.pull().await {
            Ok(()) => self.apply(&mut done).await.map_err(Failure::Apply),
            Err(error) => Err(Failure::Source(error)),
        };
        let elapsed = begun.elapsed();
        let mut run = SyncRun {
            began_at: Some(timestamp(began_at)),
            elapsed: Some(elapsed.into()),
            error: outcome.as_ref().err().map(ToString::to_string).unwrap_or_default(),
            counts: Kind::ALL
                .map(|kind| (kind.done().to_owned(), done.counts.get(&kind).copied().unwrap_or_default()))
                .into(),
        };
        match outcome {
            Ok(applied) => {
                self.failures = 0;
                self.settle(applied, &mut run);
                self.report(&run, elapsed);
                self.tenure.tell(|status| board::ran(status, run));
                Ok(())
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.mirror.metrics.ran("failed");
                tracing::warn!(error = %failure, sync.failures = self.failures, "sync failed");
                self.tenure.tell(|status| board::ran(status, run));
                Err(failure)
            }
        }
    }

    /// Reads the tenant API.
    async fn pull(&mut self) -> Result<(), source::Error> {
        let begun = Instant::now();
        self.tenure.tell(board::reading);
        let pulled = Box::pin(self.mirror.source.pull()).await;
        let outcome = pulled.as_ref().map_or_else(source::Error::kind, |_| "read");
        self.mirror.metrics.pulled(outcome, begun.elapsed());
        let error = pulled.as_ref().err().map(|error| chain(error));
        self.tenure.tell(|status| board::read(status, error.as_deref()));
        let roster = pulled?;
        if roster != self.mirror.roster {
            self.mirror.roster = roster;
            self.settled = None;
        }
        Ok(())
    }

    /// Brings the control plane to what was read.
    async fn apply(&mut self, done: &mut Done) -> Result<Applied, apply::Error> {
        let Mirror { control, rules, metrics, known, roster, lately, .. } = &mut *self.mirror;
        known.catch_up(control).await?;
        let now = SystemTime::now();
        self.settled = self.settled.take().filter(|settled| {
            known.version() == settled.version && settled.next_removal.is_none_or(|at| now < at)
        });
        if let Some(Settled { plan, .. }) = &self.settled {
            return Ok(Applied { plan: plan.clone(), unchanged: plan.unchanged });
        }
        self.missing.count(known, roster, rules, self.began.elapsed());
        let (missing, accepted) = (&self.missing, &self.accepted);
        let in_service = diff::in_service(known, roster, rules);
        lately.forget(known, rules, now);
        let facts = Facts { rules, roster, missing, in_service, lately: lately.count(), accepted, now };
        let applied = Box::pin(apply::apply(control, known, facts, done, metrics)).await;
        if !done.left.is_empty() {
            lately.note(done.left.drain(..), now);
            let kept = self.desk.keep(self.tenure.token(), &lately.to_bytes(), rules.window).await;
            if let Err(error) = kept {
                tracing::warn!(%error, "who left is not noted for the next leader");
            }
        }
        applied
    }

    /// Takes over what a sync that succeeded has found.
    fn settle(&mut self, applied: Applied, run: &mut SyncRun) {
        let Applied { plan, unchanged } = applied;
        let Mirror { rules, known, roster, .. } = &*self.mirror;
        self.accepted.clear();
        self.held.clone_from(&plan.hold);
        let held = plan.hold.as_ref().map_or(0, |hold| diff::count(&hold.losses));
        let unfit = diff::count(&plan.unfit);
        for (what, number) in [
            ("unchanged", unchanged),
            ("missing", plan.missing),
            ("held", held),
            ("invalid", roster.invalid_total + unfit),
            ("duplicates", roster.duplicates),
        ] {
            run.counts.insert(what.to_owned(), number);
        }
        if self.settled.is_some() {
            return;
        }
        self.missing.settle(known);
        let census = diff::census(known, rules);
        self.tenure.tell(|status| board::settled(status, census, &plan, roster));
        // What the control plane refused may be taken the next time.
        if plan.hold.is_none() && plan.unfit.is_empty() && !self.missing.is_any() {
            let next_removal = diff::next_removal(known, rules);
            self.settled = Some(Settled { version: known.version(), plan, next_removal });
        }
    }

    fn report(&self, run: &SyncRun, elapsed: Duration) {
        self.mirror.metrics.ran(if self.held.is_some() { "held" } else { "done" });
        let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let changes: u64 = Kind::ALL.iter().filter_map(|kind| run.counts.get(kind.done())).sum();
        tracing::info!(changes, duration_ms, "synced");
        if let Some(hold) = &self.held {
            tracing::error!(change.id = %hold.id, reason = %hold.summary(), "changes are held back, accept them or mend the tenant API");
        }
    }
}
