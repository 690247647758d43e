//! Upgrades, followed until they have ended.

use std::time::Duration;

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use grey_core::error::Reason;
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::schema::{FlipState, GetUpgradeResponse, Upgrade, UpgradeState, WatchUpgradeRequest};
use grey_proto::status::ApiError;

use super::super::Failure;
use super::super::session::{Connection, Session, failure_of};
use super::progress::Progress;
use super::text;

/// Upgrades that are followed at once; the migrator runs fewer.
const AT_ONCE: usize = 32;
/// How often the stream may break before anything new was heard.
const ATTEMPTS: u32 = 8;
/// Before a broken stream is opened again.
const BACKOFF: Duration = Duration::from_millis(500);

/// An upgrade.
#[derive(Debug, Args)]
pub struct Watch {
    /// The upgrade, from `grey migrate status`
    #[arg(value_name = "UPGRADE")]
    id: String,
}

impl Watch {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let upgrade = alone(session, &self.id).await?;
        let response = GetUpgradeResponse { upgrade: Some(upgrade) };
        if session.json() {
            session.show(&response, String::new)?;
        }
        succeeded(response.upgrade.as_slice())
    }
}

/// Follows the upgrade that a pin waits for, for at most `wait`, and prints the outcome.
///
/// # Errors
/// The tenant is not pinned; what was to be printed was printed.
pub(in super::super) async fn pinned(
    session: &Session,
    id: &str,
    wait: Duration,
    done: &str,
) -> Result<(), Failure> {
    let followed = tokio::time::timeout(wait, Box::pin(alone(session, id)));
    let Ok(upgrade) = followed.await else {
        return Err(Failure::Unwatched { running: 1, why: format!("{wait:?} are over") });
    };
    let response = GetUpgradeResponse { upgrade: Some(upgrade?) };
    let upgrade = response.upgrade.as_ref();
    let flip = upgrade.and_then(|upgrade| upgrade.flip.as_ref());
    let flipped = flip.is_some_and(|flip| flip.state() == FlipState::Done);
    session.show(&response, || if flipped { format!("{done}\n") } else { String::new() })?;
    succeeded(response.upgrade.as_slice())?;
    match flip {
        Some(flip) if !flipped => {
            let error = ApiError::new(Reason::InUse, flip.error.clone());
            Err(Failure::Refused { attempted: "pin after the upgrade, which succeeded".to_owned(), error })
        }
        _ => Ok(()),
    }
}

/// Follows one upgrade.
pub(super) async fn alone(session: &Session, id: &str) -> Result<Upgrade, Failure> {
    let mut client = session.schemas().await?;
    let progress = Progress::new(session, 1);
    let ended = tokio::select! {
        ended = one(session, &mut client, id, &progress) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::Unwatched { running: 1, why: "interrupted".to_owned() }),
    };
    progress.end();
    ended
}

/// Follows upgrades until all have ended; they are returned as they ended.
pub(super) async fn all(
    session: &Session,
    upgrades: Vec<Upgrade>,
    progress: &Progress,
) -> Result<Vec<Upgrade>, Failure> {
    let client = session.schemas().await?;
    let running = upgrades.len();
    let follow = |upgrade: Upgrade| {
        let mut client = client.clone();
        async move {
            if text::ended(&upgrade) {
                progress.row().end(&upgrade)?;
                return Ok(upgrade);
            }
            one(session, &mut client, &upgrade.id, progress).await
        }
    };
    let upgrades: Vec<_> = upgrades.into_iter().map(follow).collect();
    let ended = futures::stream::iter(upgrades).buffer_unordered(AT_ONCE).try_collect();
    let ended = tokio::select! {
        ended = ended => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::Unwatched { running, why: "interrupted".to_owned() }),
    };
    progress.end();
    ended
}

/// Follows one upgrade, over a stream that is opened again when it breaks.
async fn one(
    session: &Session,
    client: &mut SchemaServiceClient<Connection>,
    id: &str,
    progress: &Progress,
) -> Result<Upgrade, Failure> {
    let attempted = format!("follow upgrade `{id}`");
    let mut row = progress.row();
    let mut broken = 0;
    loop {
        let request = WatchUpgradeRequest { id: id.to_owned() };
        // No deadline on the stream itself: it lasts as long as the upgrade. The connection is probed.
        let failure = match session.call(&attempted, client.watch_upgrade(request)).await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(response)) => {
                        broken = 0;
                        let upgrade = response.upgrade.unwrap_or_default();
                        if text::ended(&upgrade) && !flipping(&upgrade) {
                            row.end(&upgrade)?;
                            return Ok(upgrade);
                        }
                        row.update(&upgrade);
                    }
                    Ok(None) => {
                        let error = ApiError::new(Reason::Unavailable, "the stream ended early");
                        break Failure::Refused { attempted: attempted.clone(), error };
                    }
                    Err(status) => {
                        let error = failure_of(&status);
                        break Failure::Refused { attempted: attempted.clone(), error };
                    }
                }
            },
            Err(failure) => failure,
        };
        broken += 1;
        if failure.reason() != Reason::Unavailable || broken >= ATTEMPTS {
            return Err(failure);
        }
        tokio::time::sleep(BACKOFF).await;
    }
}

/// Whether a pin still waits for an upgrade that has succeeded.
fn flipping(upgrade: &Upgrade) -> bool {
    let pending = |state| matches!(state, FlipState::Unspecified | FlipState::Pending);
    upgrade.state() == UpgradeState::Succeeded
        && upgrade.flip.as_ref().is_some_and(|flip| pending(flip.state()))
}

/// Fails if one of the upgrades has not succeeded.
pub(super) fn succeeded(upgrades: &[Upgrade]) -> Result<(), Failure> {
    let bad: Vec<_> = upgrades.iter().filter(|upgrade| upgrade.state() != UpgradeState::Succeeded).collect();
    match bad.as_slice() {
        [] => Ok(()),
        bad => Err(Failure::Upgrades {
            tenants: bad.iter().map(|upgrade| upgrade.tenant.clone()).collect(),
            total: upgrades.len(),
        }),
    }
}
