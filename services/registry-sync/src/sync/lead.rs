//! What the leader does besides: it takes over, writes, verifies, probes, takes requests and tells.

mod watch;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use grey_core::ids::ServiceId;
use grey_proto::sync::SyncStatus;
use grey_state::instances::{Damaged, Loaded};
use grey_state::{Error, FencingToken};
use grey_sync::Tenure;
use tokio::task::{JoinError, JoinSet};

use super::Sync;
use super::requests::Requested;
use super::work::{Next, probe};
use crate::mirror::{Clock, Write};

/// Lists written at the same time.
const WRITERS: usize = 16;
/// Instances probed in one go.
const PROBES: usize = 512;
/// How long one look for doubts lasts.
const TAKE: Duration = Duration::from_secs(2);
/// How often the status is made anew without any change, and how soon after one.
const TELL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(100));
/// Pauses between readings of everything for a reason, doubling while nothing is found to be mended.
const REREADS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Pauses after failures, doubling.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The lead, and what is going on under it; that ends with it.
pub(super) struct Leading {
    tenure: Tenure,
    work: JoinSet<Next>,
    pub(super) requested: Requested,
    adopted: bool,
    loading: bool,
    load_at: Instant,
    /// When everything may be read again for a reason, and the pause after that.
    reread_at: (Instant, Duration),
    watching: bool,
    watch_at: Instant,
    doubting: bool,
    /// Lists whose writing was begun.
    writes: u64,
    /// Services whose list is being written.
    writing: BTreeSet<ServiceId>,
    /// Services that were written while everything was being read: what was read of them may be older.
    touched: BTreeSet<ServiceId>,
    failures: u32,
    resume_at: Instant,
    probing: bool,
    /// The status may have changed since it was told.
    pub(super) news: bool,
    told_at: Instant,
}

impl Leading {
    pub(super) fn new(tenure: Tenure) -> Self {
        let now = Instant::now();
        Self {
            tenure,
            work: JoinSet::new(),
            requested: Requested::default(),
            adopted: false,
            loading: false,
            load_at: now,
            reread_at: (now, REREADS.0),
            watching: false,
            watch_at: now,
            doubting: false,
            writes: 0,
            writing: BTreeSet::new(),
            touched: BTreeSet::new(),
            failures: 0,
            resume_at: now,
            probing: false,
            news: false,
            told_at: now,
        }
    }

    /// Whether what was published by the leader before has been taken over.
    pub(super) fn has_adopted(&self) -> bool {
        self.adopted
    }

    /// What fences writes under it.
    pub(super) fn token(&self) -> FencingToken {
        self.tenure.token()
    }

    /// Waits for what comes next.
    pub(super) async fn next(&mut self) -> Next {
        tokio::select! {
            Some(ended) = self.work.join_next() => match ended.map_err(JoinError::try_into_panic) {
                Ok(next) => next,
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                // The process ends.
                Err(Err(_)) => std::future::pending().await,
            },
            asked = self.tenure.asked(), if self.adopted => Next::Asked(asked),
            else => std::future::pending().await,
        }
    }

    /// There is a reason to read everything.
    fn reread(&mut self) {
        self.load_at = self.load_at.min(self.reread_at.0);
    }

    /// Puts writes off; for how long, unless they are put off already.
    fn put_off(&mut self, now: Instant) -> Option<Duration> {
        if now < self.resume_at {
            return None;
        }
        let pause = PAUSES.0.saturating_mul(1 << self.failures.min(10)).min(PAUSES.1);
        self.failures += 1;
        self.resume_at = now + pause;
        Some(pause)
    }
}

impl Sync {
    /// Starts whatever is due in the lead.
    pub(super) fn lead(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        if !leading.loading && leading.load_at <= now {
            (leading.loading, leading.touched) = (true, leading.writing.clone());
            let pause = leading.reread_at.1;
            leading.reread_at = (now + pause, (pause * 2).min(REREADS.1));
            let instances = self.parts.state.instances.clone();
            leading.work.spawn(async move { Next::Loaded(instances.load().await) });
        }
        if leading.adopted {
            self.write(now);
            self.watch(now);
            self.probe(now);
            self.carry_out(now);
        }
        self.tell(now);
    }

    /// When the next list can be written; none: not before something else has ended.
    pub(super) fn write_due(&self) -> Option<Instant> {
        let leading = self.leading.as_ref().filter(|leading| leading.adopted)?;
        let at = self.write_at.filter(|_| leading.writing.len() < WRITERS)?;
        Some(at.max(leading.resume_at))
    }

    fn write(&mut self, now: Instant) {
        if self.write_due().is_none_or(|at| now < at) {
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        let room = WRITERS.saturating_sub(leading.writing.len());
        for Write { list, since } in self.parts.mirror.pending(&leading.writing, room) {
            leading.writing.insert(list.service.clone());
            leading.writes += 1;
            if leading.loading {
                leading.touched.insert(list.service.clone());
            }
            let (token, instances) = (leading.token(), self.parts.state.instances.clone());
            leading.work.spawn(async move {
                let result = instances.replace(token, &list).await;
                Next::Wrote { list, since, result }
            });
        }
        // All the rest is on its way; what fails or changes meanwhile sets the time again.
        if leading.writing.len() < WRITERS {
            self.write_at = None;
        }
    }

    fn probe(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        for source in self.parts.mirror.rereads(now) {
            self.followed.ask_again(source);
        }
        if leading.probing {
            return;
        }
        let targets = self.parts.mirror.probes(now, PROBES);
        if !targets.is_empty() {
            leading.probing = true;
            let prober = self.parts.prober.clone();
            leading.work.spawn(async move { Next::Probed(probe(&prober, targets).await) });
        }
    }

    fn tell(&mut self, now: Instant) {
        let Some(leading) = &self.leading else { return };
        let pause = if leading.news { TELL.1 } else { TELL.0 };
        if now.saturating_duration_since(leading.told_at) >= pause {
            self.tell_now(now);
        }
    }

    pub(super) fn tell_now(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        (leading.news, leading.told_at) = (false, now);
        let status =
            SyncStatus { runs: leading.requested.runs(), ..self.parts.mirror.status(Clock::at(now)) };
        leading.tenure.tell(|told| *told = status);
    }

    /// Takes in what came under the lead.
    pub(super) fn take(&mut self, next: Next) {
        let now = Instant::now();
        let Some(leading) = &mut self.leading else { return };
        match next {
            Next::Asked(requests) => requests.into_iter().for_each(|request| self.request(request, now)),
            Next::Loaded(result) => self.loaded(result, now),
            Next::Wrote { list, since, result } => {
                self.parts.metrics.wrote(&result, now.saturating_duration_since(since));
                leading.writing.remove(&list.service);
                match result {
                    Ok(()) => {
                        leading.failures = 0;
                        self.parts.mirror.written(list, now);
                    }
                    Err(error) => {
                        self.parts.mirror.write_failed(&list.service, now);
                        self.failed(&error, now);
                    }
                }
                self.changed(now);
            }
            Next::Probed(answers) => {
                leading.probing = false;
                for (_, verdict) in &answers {
                    self.parts.metrics.probed(verdict);
                }
                self.parts.mirror.probed(&answers, now);
                self.changed(now);
            }
            Next::Watched(writes, result) => self.watched(writes, result, now),
            Next::Doubted(result) => self.doubted(result, now),
        }
    }

    fn loaded(&mut self, result: Result<Loaded, Error>, now: Instant) {
        let seen_all = self.parts.mirror.has_seen_all();
        let Some(leading) = &mut self.leading else { return };
        leading.loading = false;
        let (lists, damaged) = match result {
            Ok(loaded) => (loaded.lists, loaded.damaged),
            // Lists that do not read are written again, once it is known what belongs there.
            Err(error @ Error::Corrupt { .. }) if seen_all => {
                (Vec::new(), vec![Damaged { service: None, why: error.to_string() }])
            }
            Err(error) => {
                self.failed(&error, now);
                if let Some(leading) = &mut self.leading {
                    leading.load_at = leading.resume_at;
                }
                return;
            }
        };
        leading.load_at = now + self.parts.pace.verify;
        self.reached.store(true, Ordering::Relaxed);
        let found_damage = !damaged.is_empty();
        let except = std::mem::take(&mut leading.touched);
        if leading.adopted {
            self.parts.mirror.verify(lists, &damaged, &except, now);
        } else {
            leading.adopted = true;
            tracing::info!(
                fencing.token = leading.token().0,
                lists.count = lists.len(),
                "instance lists taken over"
            );
            self.parts.mirror.adopt(lists, &damaged, now);
        }
        for Damaged { service, why } in damaged {
            // What is being written meanwhile may have been announced by now.
            if service.as_ref().is_none_or(|service| !except.contains(service)) {
                self.parts.metrics.damaged();
                tracing::error!(error = why, "instances in shared state are damaged, written again");
            }
        }
        if found_damage || !self.parts.mirror.is_written() {
            leading.reread_at = (now + REREADS.0, REREADS.0);
        }
        self.changed(now);
    }

    /// Shared state has refused something.
    fn failed(&mut self, error: &Error, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        if let Error::Fenced { newest, .. } = error {
            tracing::warn!(fencing.token = leading.token().0, %error, "a newer leader has written, stepping down");
            self.leading = None;
            self.parts.lead.fenced(FencingToken(*newest));
            return;
        }
        let Some(pause) = leading.put_off(now) else { return };
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(%error, cause, retry_ms = pause.as_millis(), "shared state failed");
    }
}
