//! The loop around the mirror: registries in, lists out, and what the leader is asked to do.
//!
//! Every replica follows the registries, so that one that takes the lead knows what they say. Only the leader writes,
//! probes, carries out requests and tells how the mirror stands. Nothing here waits for the outside: whatever takes
//! time is a task whose end the loop is told.

mod follow;
mod lead;
mod requests;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use grey_runtime::Health;
use grey_state::{FencingToken, State};
use grey_sync::{Desk, Gauges, Lead, Tenure, stand_by};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::follow::Followed;
use self::lead::Leading;
use self::work::Next;
use crate::config::Pace;
use crate::metrics::Metrics;
use crate::mirror::{Clock, Mirror};
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
    leading: Option<Leading>,
    /// When changes that were seen are written.
    write_at: Option<Instant>,
    /// Shared state has answered.
    reached: Arc<AtomicBool>,
}

impl Sync {
    /// A mirror that follows nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts, followed: Followed::default(), leading: None, write_at: None, reached: Arc::default() }
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
                Some((source, sighting)) = sightings.next() => {
                    self.seen(source, sighting);
                    for _ in 1..BURST {
                        let Some(Some((source, sighting))) = sightings.next().now_or_never() else { break };
                        self.seen(source, sighting);
                    }
                }
                next = next(&mut self.leading) => self.take(next),
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
        if let (Some(answer), Some(leading)) = (answer, &mut self.leading) {
            leading.requested.answered(source, &answer);
        }
        self.changed(now);
    }

    /// The mirror may have changed.
    fn changed(&mut self, now: Instant) {
        if !self.parts.mirror.is_written() {
            self.write_at.get_or_insert(now + COALESCE);
        }
        if let Some(leading) = &mut self.leading {
            leading.news = true;
        }
    }

    fn lead_changed(&mut self, token: Option<FencingToken>) {
        // One tenure ends before another begins.
        self.leading = None;
        let Parts { desk, gauges, lead, mirror, .. } = &self.parts;
        self.leading = token.map(|token| {
            let status = mirror.status(Clock::at(Instant::now()));
            Leading::new(Tenure::begin(desk, gauges, lead, token, status))
        });
    }

    /// Starts whatever is due.
    fn advance(&mut self) {
        let now = Instant::now();
        let token = self.parts.lead.token();
        self.leading.take_if(|leading| Some(leading.token()) != token);
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

/// Waits for what comes next under the lead.
async fn next(leading: &mut Option<Leading>) -> Next {
    match leading {
        Some(leading) => leading.next().await,
        None => std::future::pending().await,
    }
}

/// Wakes a registry.
type Again = Arc<tokio::sync::Notify>;
