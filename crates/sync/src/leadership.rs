//! Who leads: a campaign for a lease, and the handle that knows of its outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use grey_core::ids::Name;
use grey_state::{FencingToken, State};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Shorter leases would be lost to a busy machine.
const SHORTEST: Duration = Duration::from_millis(100);
/// For giving the lease up at the end; after that it expires by itself.
const RELEASE: Duration = Duration::from_secs(1);

/// A replica's campaign for a lease.
pub struct Leadership {
    state: State,
    lease: Name,
    holder: String,
    /// How long each renewal lasts, for the store as well as here.
    lasts: Duration,
    renew_every: Duration,
    stand_by_every: Duration,
    held: watch::Sender<Option<Held>>,
    fenced: Arc<Fenced>,
}

/// The greatest token that has fenced this replica off. What carries it may outlive the lease that it was given by.
#[derive(Debug, Default)]
struct Fenced {
    by: AtomicU64,
    news: Notify,
}

/// A lease that was held when last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    token: FencingToken,
    /// When the lead ends if it is not renewed.
    until: Instant,
}

impl Held {
    fn now(held: Option<Self>) -> Option<Self> {
        held.filter(|held| held.until > Instant::now())
    }
}

/// Knows whether this replica leads.
#[derive(Debug, Clone)]
pub struct Lead {
    held: watch::Receiver<Option<Held>>,
    fenced: Arc<Fenced>,
    /// What [`Self::changed`] answered last.
    told: Option<FencingToken>,
}

impl Leadership {
    /// A campaign of `holder`, which must name this process and no other, for `lease`; and the handle on its outcome.
    ///
    /// Within `ttl` (at least 100 ms) after a leader died, another one leads: each renewal of the lease lasts three
    /// quarters of it, a leader renews every quarter, and whoever stands by or could not renew tries every eighth.
    #[must_use]
    pub fn new(state: &State, lease: Name, holder: String, ttl: Duration) -> (Self, Lead) {
        let ttl = ttl.max(SHORTEST);
        let (sender, held) = watch::channel(None);
        let fenced = Arc::<Fenced>::default();
        let leadership = Self {
            state: state.clone(),
            lease,
            holder,
            lasts: ttl * 3 / 4,
            renew_every: ttl / 4,
            stand_by_every: ttl / 8,
            held: sender,
            fenced: Arc::clone(&fenced),
        };
        (leadership, Lead { held, fenced, told: None })
    }

    /// Campaigns until `stop`, then gives the lease up so that another replica leads at once.
    ///
    /// What the leader does must have ended before `stop` is cancelled: afterwards, another one may do the same.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.campaign() => {}
        }
        self.note(None);
        let release = self.state.leases.release(&self.lease, &self.holder);
        if !matches!(timeout(RELEASE, release).await, Ok(Ok(()))) {
            tracing::warn!(lease.name = %self.lease, "lease could not be given up; it expires by itself");
        }
    }

    async fn campaign(&self) {
        loop {
            let asked = Instant::now();
            let above = FencingToken(self.fenced.by.load(Relaxed));
            let acquire = self.state.leases.acquire_above(&self.lease, &self.holder, self.lasts, above);
            // The store sets the deadline, and must be let come to it: only then it looks for a better connection.
            // Meanwhile the lead runs out by itself.
            let (held, pause) = match acquire.await {
                Ok(Some(token)) => (Some(Held { token, until: asked + self.lasts }), self.renew_every),
                Ok(None) => (None, self.stand_by_every),
                Err(error) => {
                    tracing::debug!(lease.name = %self.lease, %error, "lease is out of reach");
                    (*self.held.borrow(), self.stand_by_every)
                }
            };
            self.note(Held::now(held));
            tokio::select! {
                () = sleep_until(asked + pause) => {}
                () = self.fenced.news.notified() => {}
            }
        }
    }

    fn note(&self, held: Option<Held>) {
        let before = self.held.send_replace(held);
        let (before, now) = (before.map(|held| held.token), held.map(|held| held.token));
        match (before, now) {
            (before, Some(token)) if before != now => {
                tracing::info!(lease.name = %self.lease, fencing.token = token.0, "leading");
            }
            (Some(token), None) => {
                tracing::warn!(lease.name = %self.lease, fencing.token = token.0, "no longer leading");
            }
            _ => {}
        }
    }
}

impl Lead {
    /// The token to write with while this replica leads. Gone as soon as the last renewal has run out, even if the
    /// campaign itself is stuck or was killed.
    #[must_use]
    pub fn token(&self) -> Option<FencingToken> {
        Held::now(*self.held.borrow()).map(|held| held.token)
    }

    /// Notes that `newest` has fenced this replica off: if the lease is still its own, it gets a greater token at once.
    pub fn fenced(&self, newest: FencingToken) {
        if self.fenced.by.fetch_max(newest.0, Relaxed) < newest.0 {
            self.fenced.news.notify_one();
        }
    }

    /// Waits until [`Self::token`] is another than this handle was told last, at first none, and answers it. Waits
    /// forever once the campaign is over and its loss was told.
    pub async fn changed(&mut self) -> Option<FencingToken> {
        loop {
            let held = Held::now(*self.held.borrow_and_update());
            let token = held.map(|held| held.token);
            if token != self.told {
                self.told = token;
                return token;
            }
            let ends = async {
                match held {
                    Some(held) => sleep_until(held.until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Once the campaign is over, nothing changes any more but that what is held runs out.
                Ok(()) = self.held.changed() => {}
                () = ends => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
