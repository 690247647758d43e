//! How far a run is, as callers see it: what the executor tells, turned into steps.

use crate::jobs::{Progress, UpgradeLabels};
use crate::plan::Direction;
use crate::run;
use crate::tenant::Error;
use grey_core::schema::SchemaVersion;
use grey_proto::schema::{StepState, UpgradeStep};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Shared by the run, which writes it, and by whoever saves it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracker {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    labels: UpgradeLabels,
    direction: Direction,
    progress: Progress,
    begun: HashMap<SchemaVersion, Instant>,
    /// What was told since it was last saved.
    unsaved: Unsaved,
    touched: bool,
}

/// How soon a change has to be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsaved {
    /// Nothing has changed.
    Nothing,
    /// A statement or some rows.
    Detail,
    /// A step's state.
    State,
}

impl Tracker {
    /// Of an upgrade that goes in `direction` and is this far.
    #[must_use]
    pub fn new(labels: UpgradeLabels, direction: Direction, progress: Progress) -> Self {
        let inner = Inner {
            labels,
            direction,
            progress,
            begun: HashMap::new(),
            unsaved: Unsaved::Nothing,
            touched: false,
        };
        Self { inner: Arc::new(Mutex::new(inner)), changed: Arc::default() }
    }

    /// Takes what the executor tells.
    pub fn hear(&self, told: run::Progress) {
        let unsaved = self.with(|inner| {
            let unsaved = inner.hear(told);
            inner.unsaved = inner.unsaved.max(unsaved);
            unsaved
        });
        if unsaved > Unsaved::Nothing {
            self.changed.notify_one();
        }
    }

    /// Resolves once something has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How far it is.
    #[must_use]
    pub fn snapshot(&self) -> Progress {
        self.with(|inner| inner.progress.clone())
    }

    /// How far it is, and how soon that has to be saved; from now on it counts as saved.
    #[must_use]
    pub fn take(&self) -> (Progress, Unsaved) {
        self.with(|inner| (inner.progress.clone(), std::mem::replace(&mut inner.unsaved, Unsaved::Nothing)))
    }

    /// How soon the present changes have to be saved.
    #[must_use]
    pub fn unsaved(&self) -> Unsaved {
        self.with(|inner| inner.unsaved)
    }

    /// Whether a migration was begun, so that the database may have changed.
    #[must_use]
    pub fn touched(&self) -> bool {
        self.with(|inner| inner.touched)
    }

    /// How far it came: what had been begun and not ended is as if it had never been.
    #[must_use]
    pub fn finish(&self, schema: Option<&SchemaVersion>) -> Progress {
        self.with(|inner| {
            if let Some(schema) = schema {
                inner.progress.schema = schema.to_string();
            }
            for step in &mut inner.progress.steps {
                if step.state() == StepState::Running {
                    step.set_state(StepState::Waiting);
                    (step.statements_done, step.rows_done) = (0, 0);
                }
            }
            inner.progress.clone()
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn hear(&mut self, told: run::Progress) -> Unsaved {
        match told {
            run::Progress::BackedUp { path } => {
                self.progress.backup = path.display().to_string();
                Unsaved::State
            }
            run::Progress::Begun { version, direction, steps } => {
                self.touched = true;
                let onward = direction == self.direction;
                self.begun.insert(version.clone(), Instant::now());
                let step = self.step(&version);
                if onward {
                    step.set_state(StepState::Running);
                    step.statements = steps;
                    (step.statements_done, step.rows_done) = (0, 0);
                    step.error.clear();
                }
                self.log(&version, if onward { "running" } else { "taking back" }, None);
                Unsaved::State
            }
            run::Progress::Step { .. } | run::Progress::Recording { .. } => Unsaved::Nothing,
            run::Progress::StepDone { version, direction, step } => {
                let (onward, elapsed) = (direction == self.direction, self.elapsed(&version));
                let it = self.step(&version);
                it.elapsed = Some(elapsed.into());
                if onward {
                    it.statements_done = it.statements_done.max(step);
                }
                Unsaved::Detail
            }
            run::Progress::Rows { version, done, total, .. } => {
                let elapsed = self.elapsed(&version);
                let it = self.step(&version);
                it.elapsed = Some(elapsed.into());
                (it.rows_done, it.rows_total) = (done, total);
                Unsaved::Detail
            }
            run::Progress::Ended { version, direction } => {
                let (onward, elapsed) = (direction == self.direction, self.elapsed(&version));
                let it = self.step(&version);
                let state = if onward { StepState::Done } else { StepState::Undone };
                it.set_state(state);
                it.elapsed = Some(elapsed.into());
                if onward {
                    it.statements_done = it.statements;
                }
                if direction == Direction::Up {
                    self.progress.schema = version.to_string();
                }
                self.log(&version, if onward { "done" } else { "undone" }, None);
                Unsaved::State
            }
            run::Progress::Repeated { description, error } => {
                self.touched = true;
                let of_it =
                    |step: &&mut UpgradeStep| step.schema.is_empty() && step.description == description;
                if let Some(step) = self.progress.steps.iter_mut().find(of_it) {
                    step.error = error.as_ref().map(ToString::to_string).unwrap_or_default();
                    step.statements_done = if error.is_none() { step.statements } else { 0 };
                    step.set_state(if error.is_none() { StepState::Done } else { StepState::Failed });
                }
                Unsaved::State
            }
            run::Progress::Failed { version, error } => {
                let elapsed = self.elapsed(&version);
                let it = self.step(&version);
                it.set_state(StepState::Failed);
                it.error = error.to_string();
                it.elapsed = Some(elapsed.into());
                self.log(&version, "failed", Some(&error));
                Unsaved::State
            }
        }
    }

    fn elapsed(&self, version: &SchemaVersion) -> Duration {
        self.begun.get(version).map(Instant::elapsed).unwrap_or_default()
    }

    /// The step of `version`; one that was not planned is what an earlier upgrade has left half done.
    fn step(&mut self, version: &SchemaVersion) -> &mut UpgradeStep {
        let schema = version.to_string();
        let steps = &mut self.progress.steps;
        let known = steps.iter().position(|step| step.schema == schema);
        let index = known.unwrap_or_else(|| {
            steps.push(UpgradeStep { schema, ..UpgradeStep::default() });
            steps.len() - 1
        });
        steps.get_mut(index).expect("the index is of a step that is there")
    }

    fn log(&self, version: &SchemaVersion, state: &'static str, error: Option<&Error>) {
        let UpgradeLabels { upgrade, tenant, service } = &self.labels;
        let duration_ms = u64::try_from(self.elapsed(version).as_millis()).unwrap_or(u64::MAX);
        let class = error.map(|error| error.reason().as_str()).unwrap_or_default();
        let error = error.map(ToString::to_string).unwrap_or_default();
        tracing::info!(
            tenant.id = %tenant,
            service.id = %service,
            upgrade.id = %upgrade,
            schema.version = %version,
            step.state = state,
            duration_ms,
            error.class = class,
            error = %error,
            "migration step"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    fn version(text: &str) -> SchemaVersion {
        SchemaVersion::new(text).unwrap()
    }

    fn tracker() -> Tracker {
        let labels = UpgradeLabels { upgrade: "u".into(), tenant: "acme".into(), service: "orders".into() };
        let step =
            |schema: &str| UpgradeStep { schema: schema.into(), statements: 2, ..UpgradeStep::default() };
        let progress = Progress { steps: vec![step("1"), step("2")], ..Progress::default() };
        Tracker::new(labels, Direction::Up, progress)
    }

    fn states(progress: &Progress) -> Vec<StepState> {
        progress.steps.iter().map(UpgradeStep::state).collect()
    }

    #[test]
    fn a_step_runs_counts_and_ends() {
        let tracker = tracker();
        let (up, one) = (Direction::Up, version("1"));
        assert!(!tracker.touched());
        tracker.hear(run::Progress::Begun { version: one.clone(), direction: up, steps: 2 });
        assert_eq!(tracker.take().1, Unsaved::State);
        assert_eq!(states(&tracker.snapshot()), [StepState::Running, StepState::Unspecified]);
        tracker.hear(run::Progress::StepDone { version: one.clone(), direction: up, step: 1 });
        assert_eq!(tracker.unsaved(), Unsaved::Detail);
        assert_eq!(tracker.snapshot().steps.first().unwrap().statements_done, 1);
        tracker.hear(run::Progress::Ended { version: one, direction: up });
        let (progress, unsaved) = tracker.take();
        assert_eq!((unsaved, progress.schema.as_str()), (Unsaved::State, "1"));
        assert_eq!(states(&progress), [StepState::Done, StepState::Unspecified]);
        assert!(tracker.touched());
    }

    #[test]
    fn what_is_taken_back_is_undone_and_what_failed_says_why() {
        let tracker = tracker();
        let (up, down) = (Direction::Up, Direction::Down);
        tracker.hear(run::Progress::Begun { version: version("1"), direction: up, steps: 2 });
        tracker.hear(run::Progress::Ended { version: version("1"), direction: up });
        tracker.hear(run::Progress::Begun { version: version("2"), direction: up, steps: 2 });
        let error = Error::Conflict("no".into());
        tracker.hear(run::Progress::Failed { version: version("2"), error });
        tracker.hear(run::Progress::Begun { version: version("1"), direction: down, steps: 1 });
        tracker.hear(run::Progress::Ended { version: version("1"), direction: down });
        let progress = tracker.finish(None);
        assert_eq!(states(&progress), [StepState::Undone, StepState::Failed]);
        assert_eq!(progress.steps.get(1).unwrap().error, "no");
    }

    #[test]
    fn what_was_under_way_at_the_end_waits_again() {
        let tracker = tracker();
        tracker.hear(run::Progress::Begun { version: version("1"), direction: Direction::Up, steps: 2 });
        let progress = tracker.finish(Some(&version("0.9")));
        assert_eq!(progress.steps.first().unwrap().state(), StepState::Waiting);
        assert_eq!(progress.schema, "0.9");
    }
}
