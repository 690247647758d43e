//! What the leader was asked to do and has not ended yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Instant, SystemTime};

use grey_proto::sync::SyncRun;
use grey_sync::{Action, MAX_RUNS, Request, timestamp};

use super::{Sync, status};

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

impl Sync {
    /// Begins to carry out a request.
    pub(super) fn request(&mut self, request: Request, now: Instant) {
        if self.requested.open.len() >= MAX_OPEN {
            self.parts.desk.handled(&request, Err(format!("{MAX_OPEN} requests are under way")));
            return;
        }
        let waiting: BTreeSet<usize> = match &request.action {
            Action::Trigger => (0..self.followed.len()).collect(),
            Action::Accept(change) => {
                if let Err(unknown) = self.parts.mirror.accept(change, now) {
                    self.parts.desk.handled(&request, Err(unknown.to_string()));
                    return;
                }
                self.changed(now);
                BTreeSet::new()
            }
        };
        waiting.iter().for_each(|source| self.followed.ask_again(*source));
        let began = (now, SystemTime::now());
        self.requested.open.push(Open { request, began, waiting, failed: BTreeMap::new() });
    }

    /// Ends the requests whose effect is written, or which take too long.
    pub(super) fn carry_out(&mut self, now: Instant) {
        let written = self.parts.mirror.is_written();
        let patience = self.parts.pace.trigger_timeout;
        let ended = self.requested.open.extract_if(.., |open| {
            (open.waiting.is_empty() && written) || now.saturating_duration_since(open.began.0) >= patience
        });
        let ended: Vec<Open> = ended.collect();
        let mut handled = Vec::new();
        for open in ended {
            let outcome = self.outcome(&open, written);
            if open.request.action == Action::Trigger {
                let elapsed = now.saturating_duration_since(open.began.0);
                let run = SyncRun {
                    began_at: Some(timestamp(open.began.1)),
                    elapsed: Some(elapsed.into()),
                    error: outcome.clone().err().unwrap_or_default(),
                    counts: status::by_state(self.parts.mirror.counts()),
                };
                self.requested.runs.push_front(run);
                self.requested.runs.truncate(MAX_RUNS);
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

    fn outcome(&self, open: &Open, written: bool) -> Result<(), String> {
        let sources = self.parts.mirror.sources();
        let name = |at: &usize| sources.get(*at).map_or("", |source| source.name.as_str());
        let mut faults: Vec<String> =
            open.failed.iter().map(|(at, why)| format!("{}: {why}", name(at))).collect();
        faults.extend(open.waiting.iter().map(|at| format!("{}: no answer in time", name(at))));
        if faults.is_empty() && !written {
            faults.push("not everything could be written in time".to_owned());
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}
