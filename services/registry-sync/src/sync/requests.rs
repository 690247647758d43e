//! What the leader was asked to do and has not ended yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Instant, SystemTime};

use grey_proto::sync::SyncRun;
use grey_sync::{Action, MAX_RUNS, Request, timestamp};

use super::{Parts, Sync};
use crate::mirror::Mirror;

/// Most requests under way.
const MAX_OPEN: usize = 1_000;

/// Requests under way, and the syncs that have ended under this lead.
#[derive(Default)]
pub(super) struct Requested {
    open: Vec<Open>,
    /// Newest first.
    runs: VecDeque<SyncRun>,
}

/// A request under way.
struct Open {
    request: Request,
    began: (Instant, SystemTime),
    /// Sources that have not answered yet.
    waiting: BTreeSet<usize>,
    /// Why sources could not be read, by source.
    failed: BTreeMap<usize, String>,
}

impl Requested {
    /// The syncs that have ended, newest first.
    pub(super) fn runs(&self) -> Vec<SyncRun> {
        self.runs.iter().cloned().collect()
    }

    /// A source has told everything, or could not be read.
    pub(super) fn answered(&mut self, source: usize, answer: &Result<(), String>) {
        for open in &mut self.open {
            if open.waiting.remove(&source)
                && let Err(why) = answer
            {
                open.failed.insert(source, why.clone());
            }
        }
    }
}

impl Open {
    /// Why it ended without its effect, if it did.
    fn outcome(&self, mirror: &Mirror, written: bool) -> Result<(), String> {
        let failed = self.failed.iter().map(|(at, why)| format!("{}: {why}", mirror.source_name(*at)));
        let late = self.waiting.iter().map(|at| format!("{}: no answer in time", mirror.source_name(*at)));
        match failed.chain(late).collect::<Vec<_>>() {
            faults if !faults.is_empty() => Err(faults.join("; ")),
            _ if !written => Err("not everything could be written in time".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Sync {
    /// Begins to carry out a request.
    pub(super) fn request(&mut self, request: Request, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        let Parts { mirror, desk, .. } = &mut self.parts;
        if leading.requested.open.len() >= MAX_OPEN {
            desk.handled(&request, Err(format!("{MAX_OPEN} requests are under way")));
            return;
        }
        let waiting: BTreeSet<usize> = match &request.action {
            Action::Trigger => (0..self.followed.len()).collect(),
            Action::Accept(change) => {
                if let Err(unknown) = mirror.accept(change, now) {
                    desk.handled(&request, Err(unknown.to_string()));
                    return;
                }
                BTreeSet::new()
            }
        };
        waiting.iter().for_each(|source| self.followed.ask_again(*source));
        let began = (now, SystemTime::now());
        leading.requested.open.push(Open { request, began, waiting, failed: BTreeMap::new() });
        self.changed(now);
    }

    /// Ends the requests whose effect is written, or which take too long.
    pub(super) fn carry_out(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        let Parts { mirror, pace, .. } = &self.parts;
        let Requested { open, runs } = &mut leading.requested;
        let written = mirror.is_written();
        let mut handled = Vec::new();
        let is_over = |open: &mut Open| {
            let elapsed = now.saturating_duration_since(open.began.0);
            (open.waiting.is_empty() && written) || elapsed >= pace.trigger_timeout
        };
        for open in open.extract_if(.., is_over) {
            let outcome = open.outcome(mirror, written);
            if open.request.action == Action::Trigger {
                let run = SyncRun {
                    began_at: Some(timestamp(open.began.1)),
                    elapsed: Some(now.saturating_duration_since(open.began.0).into()),
                    error: outcome.clone().err().unwrap_or_default(),
                    counts: mirror.counts(),
                };
                runs.push_front(run);
                runs.truncate(MAX_RUNS);
            }
            handled.push((open.request, outcome));
        }
        if !handled.is_empty() {
            // Whoever hears of an end finds its effect in the status.
            self.tell_now(now);
        }
        for (request, outcome) in handled {
            self.parts.desk.handled(&request, outcome);
        }
    }
}
