//! The routers: which of them count, and how far each is.
//!
//! A router that was seen counts until it says goodbye, is dismissed by a person, or provably answers no more. Which ones
//! count is kept in the control database, fed from their heartbeats by every replica, so that shared state may be wiped or
//! away without a router being forgotten that still serves.

mod members;
mod probe;
mod progress;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use grey_core::change::Position;
use grey_core::error::Reason;
use grey_proto::control::{RouterProgress, RouterState};
use grey_proto::status::ApiError;
use grey_state::Heartbeats;
use grey_state::heartbeats::{Goodbye, Heartbeat};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::command::now_ms;
use crate::database::Database;

use members::{Member, Standing};
pub use probe::Options;
pub(crate) use probe::Prober;
use progress::Known;
pub(crate) use progress::missing;
pub(crate) use watch::Watch;

/// How often routers are looked at while someone waits, however many wait.
const POLL: Duration = Duration::from_millis(10);
/// How often someone who waits reads again which routers count.
const REREAD: Duration = Duration::from_millis(500);
/// For one look, however little time whoever waits has left.
const LEAST_LOOK: Duration = Duration::from_millis(500);
/// For one look.
const DEADLINE: Duration = Duration::from_secs(3);

/// What shared state tells of the routers at one moment.
#[derive(Debug, Default)]
struct Look {
    /// Before it was asked.
    at_ms: u64,
    live: BTreeMap<String, Heartbeat>,
    left: BTreeSet<Goodbye>,
}

/// Looks at the routers. Shared by everyone who asks.
pub(crate) struct Fleet {
    database: Database,
    heartbeats: Arc<dyn Heartbeats>,
    last: Mutex<Option<(Instant, Arc<Look>)>>,
}

/// Why the routers could not be looked at.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    #[error("read the routers' heartbeats: {0}")]
    State(Arc<str>),
    #[error("read the routers' heartbeats: no answer in time")]
    Timeout,
    #[error(transparent)]
    Database(#[from] crate::database::Error),
}

impl Error {
    /// What whoever waits is told.
    fn told(&self) -> &'static str {
        match self {
            Self::State(_) | Self::Timeout => "shared state does not answer",
            Self::Database(_) => "the control database does not answer",
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        tracing::warn!(error = %error, "routers could not be looked at");
        Self::new(Reason::Unavailable, format!("{}; retry later", error.told()))
    }
}

impl Fleet {
    pub(crate) fn new(database: Database, heartbeats: Arc<dyn Heartbeats>) -> Self {
        Self { database, heartbeats, last: Mutex::new(None) }
    }

    /// What shared state tells, as of a moment ago at most.
    async fn look(&self) -> Result<Arc<Look>, Error> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        // Whoever waited for the lock while another looked takes what that one saw.
        if let Some((_, look)) = last.as_ref().filter(|(at, _)| *at >= asked) {
            return Ok(Arc::clone(look));
        }
        let (at, at_ms) = (Instant::now(), now_ms());
        let both = async { tokio::try_join!(self.heartbeats.live(), self.heartbeats.left()) };
        let look = match timeout(DEADLINE, both).await {
            Ok(Ok((live, left))) => {
                let live = live.into_iter().map(|beat| (beat.router.clone(), beat)).collect();
                Arc::new(Look { at_ms, live, left: left.into_iter().collect() })
            }
            Ok(Err(error)) => return Err(Error::State(crate::command::chain(&error).into())),
            Err(_) => return Err(Error::Timeout),
        };
        *last = Some((at, Arc::clone(&look)));
        Ok(look)
    }

    /// Waits until every router that may still answer has applied `target`, at most for `limit`. What could not be looked
    /// at has applied nothing.
    pub(crate) async fn wait(&self, target: &Position, limit: Duration) -> RouterProgress {
        let begun = Instant::now();
        let mut known = Known::default();
        let mut reread = begun;
        loop {
            let looked = self.look_for(&mut known, &mut reread, patience(limit, begun.elapsed())).await;
            let late = begun.elapsed() >= limit;
            if let Err(error) = &looked {
                tracing::debug!(error = %error, "routers could not be looked at");
            }
            let fault = looked.err().map(|error| error.told());
            let mut progress = known.progress(target, begun.elapsed(), fault);
            if progress.complete {
                let fault = self.read_again(&mut known).await.err().map(|error| error.told());
                progress = known.progress(target, begun.elapsed(), fault);
            }
            if late || progress.complete {
                return progress;
            }
            sleep(POLL).await;
        }
    }

    async fn look_for(
        &self,
        known: &mut Known,
        reread: &mut Instant,
        patience: Duration,
    ) -> Result<(), Error> {
        let look = timeout(patience, self.look()).await.unwrap_or(Err(Error::Timeout));
        match &look {
            Ok(look) => known.see(look),
            Err(_) => known.see_nobody(),
        }
        let now = Instant::now();
        if now >= *reread {
            self.read_again(known).await?;
            *reread = now + REREAD;
        }
        look.map(drop)
    }

    /// Takes over what every replica has noted, and notes who is live and was not.
    async fn read_again(&self, known: &mut Known) -> Result<(), Error> {
        known.read(self.database.routers().await?);
        self.note_newcomers(known).await
    }

    /// Writes down who is live and not noted as a member, before anyone is told of it: it counts from then on, even if
    /// shared state is lost before the next look of [`Watch`].
    async fn note_newcomers(&self, known: &mut Known) -> Result<(), Error> {
        let newcomers = known.newcomers();
        if newcomers.is_empty() {
            return Ok(());
        }
        self.database.put_routers(newcomers).await?;
        known.read(self.database.routers().await?);
        Ok(())
    }

    /// The routers that count, and why nothing is known of how far they are, if so; with `former`, also those that did
    /// count.
    pub(crate) async fn list(&self, former: bool) -> Result<(Vec<RouterState>, Option<&'static str>), Error> {
        let (look, mut known) = (self.look().await, Known::default());
        if let Ok(look) = &look {
            known.see(look);
        }
        self.read_again(&mut known).await?;
        let fault = look.err().map(|error| error.told());
        Ok((known.states(&self.database.head().await?, former), fault))
    }

    /// Stops counting a router that fell silent.
    ///
    /// # Errors
    /// The router is live, or unknown, or the database is away.
    pub(crate) async fn dismiss(&self, id: &str, remark: String) -> Result<RouterState, ApiError> {
        let members = self.database.routers().await?;
        let live = self.look().await.is_ok_and(|look| look.live.contains_key(id));
        if live {
            let message =
                format!("router `{id}` is live; stop it, which tells the fleet, instead of dismissing it");
            return Err(ApiError::new(Reason::InUse, message).with("router", id));
        }
        let Some(member) = members.into_iter().find(|member| member.id == id) else {
            let message = format!("router `{id}` is not known; see `grey routers list --all`");
            return Err(ApiError::new(Reason::UnknownRouter, message).with("router", id));
        };
        let last_seen_ms = now_ms().max(member.last_seen_ms);
        let dismissed = Member { standing: Standing::Dismissed, last_seen_ms, remark, ..member };
        self.database.dismiss_router(&dismissed).await?;
        Ok(progress::silent(&dismissed, Standing::Dismissed))
    }
}

/// How long someone who waits for `limit` and has done so for `waited` may be kept by one look.
fn patience(limit: Duration, waited: Duration) -> Duration {
    limit.saturating_sub(waited).clamp(LEAST_LOOK, DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_briefly_is_not_kept_by_shared_state_that_does_not_answer() {
        let ms = Duration::from_millis;
        assert_eq!(patience(ms(1), Duration::ZERO), LEAST_LOOK);
        assert_eq!(patience(ms(2_000), ms(500)), ms(1_500));
        assert_eq!(patience(ms(60_000), ms(59_000)), ms(1_000));
        assert_eq!(patience(ms(60_000), ms(70_000)), LEAST_LOOK);
        assert_eq!(patience(ms(60_000), Duration::ZERO), DEADLINE);
    }
}
