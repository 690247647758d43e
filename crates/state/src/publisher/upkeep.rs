//! What is done beside the publishing, one work at a time: comparing the projection with the log, and rebuilding it.

use super::check::Findings;
use super::{EventLog, Interrupted};
use crate::projection::ProjectionStatus;
use crate::{Error, FencingToken, State};
use grey_core::change::{FormatLevel, Position};
use grey_core::table::Table;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Longest time that a work may take.
const DEADLINE: Duration = Duration::from_secs(600);
/// First and longest pause after a work that came to nothing.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A work. The later one includes the earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Work {
    /// Compare every record and index of the projection with the log.
    Check,
    /// Write the whole projection anew.
    Rebuild,
}

/// What a work came to.
pub(super) enum Done {
    /// The projection is what it should be.
    Sound,
    /// It is not; this is what it should be.
    Damaged(Findings),
    /// It is not, and cannot be mended piece by piece.
    BeyondRepair(String),
    /// It is rebuilt.
    Rebuilt(ProjectionStatus),
    /// It cannot be compared at the moment.
    NotYet(&'static str),
}

/// What a work needs.
pub(super) struct Beside {
    pub(super) state: State,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) token: FencingToken,
    pub(super) level: FormatLevel,
    pub(super) batch: usize,
    /// A table at the feed's end when the work began.
    pub(super) mirror: Table,
    pub(super) reached: watch::Receiver<Position>,
}

impl Beside {
    /// Waits until the feed holds the log up to `position`: only then may the projection.
    pub(super) async fn feed_reaches(&mut self, position: Position) -> Result<(), Error> {
        let reached = self.reached.wait_for(|reached| *reached >= position).await;
        // The lead is over.
        reached
            .map(drop)
            .map_err(|_| Error::Timeout { attempted: "wait for the feed", deadline: Duration::ZERO })
    }
}

/// Which works are wanted, and the one under way. It ends with its owner.
#[derive(Default)]
pub(super) struct Upkeep {
    wanted: Option<Work>,
    running: JoinSet<Result<Done, Interrupted>>,
    work: Option<Work>,
    done: Option<Result<Done, Interrupted>>,
    /// Works up to this one wait until then.
    not_before: Option<(Work, Instant)>,
    pause: Duration,
    /// Repairs since the projection was last found sound.
    pub(super) repairs_in_row: u32,
}

impl Upkeep {
    /// Has a work done as soon as possible.
    pub(super) fn want(&mut self, work: Work) {
        self.wanted = self.wanted.max(Some(work));
    }

    /// What is to be started now.
    pub(super) fn next(&mut self) -> Option<Work> {
        let waits = |work| self.not_before.is_some_and(|(failed, at)| work <= failed && at > Instant::now());
        if self.work.is_some() || self.wanted.is_none_or(waits) { None } else { self.wanted.take() }
    }

    pub(super) fn start(
        &mut self,
        work: Work,
        doing: impl Future<Output = Result<Done, Interrupted>> + Send + 'static,
    ) {
        self.work = Some(work);
        self.running.spawn(async move {
            let attempted = match work {
                Work::Check => "compare the projection with the log",
                Work::Rebuild => "rebuild the projection",
            };
            let late = |_| Err(Error::Timeout { attempted, deadline: DEADLINE }.into());
            timeout(DEADLINE, doing).await.unwrap_or_else(late)
        });
    }

    /// What the work under way came to, if it has ended.
    pub(super) fn finished(&mut self) -> Option<Result<Done, Interrupted>> {
        if self.done.is_none() {
            self.done = self.running.try_join_next().map(outcome);
        }
        let done = self.done.take()?;
        let work = self.work.take();
        if matches!(done, Ok(Done::NotYet(_)) | Err(_)) {
            self.pause = (self.pause * 2).clamp(PAUSE.0, PAUSE.1);
            self.not_before = work.map(|work| (work, Instant::now() + self.pause));
            self.wanted = self.wanted.max(work);
        } else {
            self.pause = Duration::ZERO;
        }
        Some(done)
    }

    /// Waits until the work under way has ended; for ever, if there is none.
    pub(super) async fn wait(&mut self) {
        if self.done.is_some() {
            return;
        }
        match self.running.join_next().await {
            Some(joined) => self.done = Some(outcome(joined)),
            None => std::future::pending().await,
        }
    }
}

fn outcome(joined: Result<Result<Done, Interrupted>, tokio::task::JoinError>) -> Result<Done, Interrupted> {
    joined.unwrap_or_else(|error| Err(Interrupted::Fault(error.to_string())))
}
