//! The loop around the mirror: registries in, lists out, and what the leader is asked to do.
//!
//! Every replica follows the registries, so that one that takes the lead knows what they say. Only the leader writes,
//! probes, carries out requests and tells how the mirror stands. Nothing here waits for the outside: whatever takes
//! time is a task whose end the loop is told.

mod follow;
mod lead;
mod requests;
mod status;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use grey_runtime::Health;
use grey_state::{FencingToken, State};
use grey_sync::{Desk, Gauges, Lead, Request, Tenure, stand_by};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::follow::Followed;
use self::lead::Leading;
use self::requests::Requested;
use self::work::Done;
use crate::config::Pace;
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::probe::Prober;
use crate::registry::{Registry, Sighting};

/// How often is looked at what is due by time alone.
const TICK: Duration = Duration::from_millis(250);
/// Changes so close together are written together.
const COALESCE: Duration = Duration::from_millis(10);
/// Sightings taken in before anything else is looked at.
const BURST: usize = 256;
/// What the loop is made of.
pub struct Parts {
    /// What is believed.
    pub mirror: Mirror,
    /// Where it comes from, in the order of the mirror's sources.
    pub registries: Vec<Box<dyn Registry>>,
    /// Where it goes.
    pub state: State,
    /// Whether this replica leads.
    pub lead: Lead,
    /// Where requests come from, and the status goes.
    pub desk: Desk,
    /// Asks instances themselves.
    pub prober: Prober,
    /// How fast.
    pub pace: Pace,
    /// What is counted.
    pub metrics: Metrics,
    /// What the status says, as metrics.
    pub gauges: Gauges,
    /// Whether this replica does its work.
    pub health: Health,
}

/// The loop.
pub struct Sync {
    parts: Parts,
    followed: Followed,
    work: JoinSet<Done>,
    leading: Option<Leading>,
    requested: Requested,
    /// When changes that were seen are written.
    write_at: Option<Instant>,
    /// Shared state has answered.
    reached: Arc<AtomicBool>,
}

impl Sync {
    /// A mirror that follows nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            followed: Followed::default(),
            work: JoinSet::new(),
            leading: None,
            requested: Requested::default(),
            write_at: None,
            reached: Arc::default(),
        }
    }

    /// Mirrors until `token` is cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        let registries = std::mem::take(&mut self.parts.registries);
        let (followed, mut sightings) = Followed::start(registries, &token);
        self.followed = followed;
        let reached = Arc::clone(&self.reached);
        let Parts { desk, gauges, lead, .. } = &self.parts;
        let reached = move || reached.store(true, Ordering::Relaxed);
        let mut standing_by = JoinSet::new();
        standing_by.spawn(stand_by(desk.clone(), gauges.clone(), lead.clone(), reached));
        loop {
            let now = Instant::now();
            let wake = self.write_due().map_or(now + TICK, |at| at.min(now + TICK));
            tokio::select! {
                () = token.cancelled() => break,
                lead = self.parts.lead.changed() => self.lead_changed(lead),
                Some((source, sighting)) = sightings.recv() => {
                    self.seen(source, sighting);
                    for _ in 1..BURST {
                        let Ok((source, sighting)) = sightings.try_recv() else { break };
                        self.seen(source, sighting);
                    }
                }
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                    // Aborted with the lead.
                    Err(_) => {}
                },
                requests = asked(&mut self.leading) => {
                    requests.into_iter().for_each(|request| self.request(request, Instant::now()));
                }
                Some(()) = self.followed.ended() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            self.advance();
        }
    }

    fn seen(&mut self, source: usize, sighting: Sighting) {
        let now = Instant::now();
        let answer = match &sighting {
            Sighting::All(_) => Some(Ok(())),
            Sighting::Failed(why) => Some(Err(why.clone())),
            Sighting::Some(_) | Sighting::Unread { .. } => None,
        };
        self.parts.mirror.observe(source, sighting, now);
        if let Some(answer) = answer {
            self.requested.answered(source, &answer);
            self.status_changed();
        }
        self.changed(now);
    }

    /// The mirror may have changed.
    fn changed(&mut self, now: Instant) {
        if !self.parts.mirror.is_written() {
            self.write_at.get_or_insert(now + COALESCE);
        }
        self.status_changed();
    }

    /// The status that the leader publishes may have changed.
    fn status_changed(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.news = true;
        }
    }

    fn lead_changed(&mut self, token: Option<FencingToken>) {
        self.step_down();
        if let Some(token) = token {
            let Parts { desk, gauges, lead, mirror, .. } = &self.parts;
            let status = status::of(mirror, Vec::new(), Instant::now());
            self.leading = Some(Leading::new(Tenure::begin(desk, gauges, lead, token, status)));
        }
    }

    fn step_down(&mut self) {
        self.leading = None;
        self.requested = Requested::default();
    }

    /// Starts whatever is due.
    fn advance(&mut self) {
        let now = Instant::now();
        let token = self.parts.lead.token();
        if self.leading.as_ref().is_some_and(|leading| Some(leading.token()) != token) {
            self.step_down();
        }
        self.lead(now);
        self.ready();
    }

    fn ready(&self) {
        let adopted = self.leading.as_ref().map(Leading::has_adopted);
        let health = &self.parts.health;
        match adopted {
            Some(false) if !self.parts.mirror.has_seen_all() => {
                health.set_not_ready("leading, and neither shared state nor every registry has been read");
            }
            _ if self.reached.load(Ordering::Relaxed) => health.set_ready(true),
            _ => health.set_not_ready("shared state has not answered yet"),
        }
    }
}

/// Waits for what is asked of the leader.
async fn asked(leading: &mut Option<Leading>) -> Vec<Request> {
    match leading {
        Some(leading) if leading.has_adopted() => leading.tenure.asked().await,
        _ => std::future::pending().await,
    }
}

/// Wakes a registry.
type Again = Arc<tokio::sync::Notify>;
