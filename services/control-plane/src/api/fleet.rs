//! The routers that follow this control plane.

use std::sync::Arc;
use std::time::Duration;

use grey_core::change::{Position, Revision};
use grey_core::error::Reason;
use grey_edge::Caller;
use grey_proto::control::{
    ListRoutersRequest, ListRoutersResponse, RouterProgress, RouterState, WaitForRoutersRequest,
    WaitForRoutersResponse,
};
use grey_proto::status::ApiError;
use grey_state::Heartbeats;
use grey_state::heartbeats::Heartbeat;
use pbjson_types::Duration as WireDuration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{Api, unavailable, wait};

/// How often routers are looked at while someone waits, however many wait.
const POLL: Duration = Duration::from_millis(10);
/// For one look.
const DEADLINE: Duration = Duration::from_secs(3);
/// The wait if the request does not say.
const USUAL_WAIT: Duration = Duration::from_secs(5);

/// Looks at the routers' heartbeats.
pub(super) struct Fleet {
    heartbeats: Arc<dyn Heartbeats>,
    last: Mutex<Option<(Instant, Arc<Vec<Heartbeat>>)>>,
}

/// Why the routers could not be looked at.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Error {
    #[error("read the routers' heartbeats: {0}")]
    State(Arc<str>),
    #[error("read the routers' heartbeats: no answer within {DEADLINE:?}")]
    Timeout,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        tracing::warn!(error = %error, "routers could not be watched");
        unavailable("the routers' heartbeats cannot be read; retry later")
    }
}

impl Fleet {
    pub(super) fn new(heartbeats: Arc<dyn Heartbeats>) -> Self {
        Self { heartbeats, last: Mutex::new(None) }
    }

    /// The live routers, as of a moment ago at most.
    async fn live(&self) -> Result<Arc<Vec<Heartbeat>>, Error> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        // Whoever waited for the lock while another looked takes what that one saw.
        if let Some((at, live)) = last.as_ref().filter(|(at, _)| *at >= asked) {
            tracing::trace!(age = ?at.elapsed(), "shared a look at the routers");
            return Ok(Arc::clone(live));
        }
        let at = Instant::now();
        let live = match timeout(DEADLINE, self.heartbeats.live()).await {
            Ok(Ok(live)) => Arc::new(live),
            Ok(Err(error)) => return Err(Error::State(crate::command::chain(&error).into())),
            Err(_) => return Err(Error::Timeout),
        };
        *last = Some((at, Arc::clone(&live)));
        Ok(live)
    }

    /// Waits until every live router has applied `target`, at most for `limit`.
    pub(super) async fn wait(&self, target: &Position, limit: Duration) -> Result<RouterProgress, Error> {
        let begun = Instant::now();
        loop {
            let looked = self.live().await;
            let late = begun.elapsed() >= limit;
            match looked {
                Ok(live) => {
                    let progress = progress(&live, target, begun.elapsed());
                    if late || progress.behind.is_empty() {
                        return Ok(progress);
                    }
                }
                Err(error) if late => return Err(error),
                Err(_) => {}
            }
            sleep(POLL).await;
        }
    }
}

fn progress(live: &[Heartbeat], target: &Position, elapsed: Duration) -> RouterProgress {
    let reached = |router: &Heartbeat| {
        router.position.generation == target.generation && router.position.revision >= target.revision
    };
    let behind: Vec<RouterState> = live.iter().filter(|router| !reached(router)).map(state_of).collect();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    RouterProgress {
        applied: count(live.len() - behind.len()),
        total: count(live.len()),
        behind,
        elapsed: Some(WireDuration {
            seconds: i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(elapsed.subsec_nanos()).unwrap_or_default(),
        }),
    }
}

fn state_of(router: &Heartbeat) -> RouterState {
    RouterState {
        id: router.router.clone(),
        address: router.address.clone(),
        region: router.region.clone(),
        zone: router.zone.clone(),
        generation: router.position.generation.to_string(),
        revision: router.position.revision.0,
        digest: router.digest,
        stale: router.stale,
    }
}

impl Api {
    /// Lists live routers by id.
    ///
    /// # Errors
    /// When the shared state is away.
    pub async fn list_routers(
        &self,
        _: &Caller,
        _: ListRoutersRequest,
    ) -> Result<ListRoutersResponse, ApiError> {
        let live = self.0.fleet.live().await?;
        Ok(ListRoutersResponse { routers: live.iter().map(state_of).collect() })
    }

    /// Waits until every live router has applied a revision; names those that have not.
    ///
    /// # Errors
    /// A timeout out of range, a revision beyond the log, or database or shared state are away.
    pub async fn wait_for_routers(
        &self,
        _: &Caller,
        request: WaitForRoutersRequest,
    ) -> Result<WaitForRoutersResponse, ApiError> {
        let limit = match request.timeout {
            None => USUAL_WAIT,
            Some(given) => wait(Some(given), "timeout")?.unwrap_or_default(),
        };
        let mut target = self.0.database.head().await?;
        if request.revision > target.revision.0 {
            let message =
                format!("the log ends at revision {}, before {}", target.revision, request.revision);
            return Err(ApiError::new(Reason::RevisionUnavailable, message));
        }
        if request.revision > 0 {
            target.revision = Revision(request.revision);
        }
        let progress = self.0.fleet.wait(&target, limit).await?;
        Ok(WaitForRoutersResponse { progress: Some(progress) })
    }
}
