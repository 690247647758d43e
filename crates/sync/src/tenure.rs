//! What a replica does for its mirror besides mirroring, whether it leads or not.

use std::time::Duration;

use grey_proto::sync::SyncStatus;
use grey_state::{Error, FencingToken};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::{Desk, Gauges, Lead, Request};

/// How often the status is told, and looked at by who does not lead, without any change.
const EVERY: Duration = Duration::from_secs(2);
/// The least time between two tellings: changes come in crowds.
const GAP: Duration = Duration::from_millis(100);
/// Longest wait for a request in one go.
const TAKE: Duration = Duration::from_secs(2);
/// After shared state was out of reach.
const PAUSE: Duration = Duration::from_millis(500);
/// Requests taken and not yet begun.
const REQUESTS: usize = 100;

/// One lead, from its beginning until it is dropped: the status is told after each change and every few seconds, and
/// what is asked of the leader is taken.
pub struct Tenure {
    token: FencingToken,
    gauges: Gauges,
    status: watch::Sender<SyncStatus>,
    requests: mpsc::Receiver<Request>,
    /// They end with it: requests that wait belong to whoever leads next.
    _tasks: JoinSet<()>,
}

impl Tenure {
    /// Begins to lead by `token`; `status` is told at first.
    #[must_use]
    pub fn begin(desk: &Desk, gauges: &Gauges, lead: &Lead, token: FencingToken, status: SyncStatus) -> Self {
        let (status, told) = watch::channel(status);
        let (taken, requests) = mpsc::channel(REQUESTS);
        let mut tasks = JoinSet::new();
        tasks.spawn(publish(desk.clone(), gauges.clone(), lead.clone(), token, told));
        tasks.spawn(take(desk.clone(), taken));
        Self { token, gauges: gauges.clone(), status, requests, _tasks: tasks }
    }

    /// What fences writes under this lead.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Changes what is told of the mirror.
    pub fn tell(&self, change: impl FnOnce(&mut SyncStatus)) {
        self.status.send_modify(change);
    }

    /// Waits for requests, oldest first. None is lost if this is dropped.
    pub async fn asked(&mut self) -> Vec<Request> {
        let mut asked = Vec::new();
        if self.requests.recv_many(&mut asked, REQUESTS).await == 0 {
            std::future::pending::<()>().await;
        }
        asked
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.gauges.observe(&SyncStatus { answered_by: "this replica".to_owned(), ..SyncStatus::default() });
    }
}

async fn publish(
    desk: Desk,
    gauges: Gauges,
    lead: Lead,
    token: FencingToken,
    mut told: watch::Receiver<SyncStatus>,
) {
    loop {
        let status = told.borrow_and_update().clone();
        gauges.observe(&status);
        let pause = match desk.publish(token, status).await {
            Ok(()) => GAP,
            Err(error) => {
                if let Error::Fenced { newest, .. } = error {
                    lead.fenced(FencingToken(newest));
                }
                tracing::warn!(%error, "status was not published");
                PAUSE
            }
        };
        sleep(pause).await;
        tokio::select! {
            changed = told.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = desk.news() => {}
            () = sleep(EVERY) => {}
        }
    }
}

async fn take(desk: Desk, requests: mpsc::Sender<Request>) {
    loop {
        match desk.take(TAKE).await {
            Ok(taken) => {
                for request in taken {
                    if requests.send(request).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "requests cannot be taken");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Shows what the leader tells while this replica does not lead, and says `reached` whenever shared state has
/// answered. Never ends.
pub async fn stand_by(desk: Desk, gauges: Gauges, lead: Lead, reached: impl Fn() + Send) {
    loop {
        match desk.status().await {
            Ok(status) => {
                reached();
                if lead.token().is_none() {
                    gauges.observe(&status);
                }
            }
            Err(error) => tracing::debug!(%error, "status is out of reach"),
        }
        sleep(EVERY).await;
    }
}
