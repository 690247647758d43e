//! Where requests are left for the leader, and where it tells how it stands.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use grey_core::error::Reason;
use grey_core::ids::Name;
use grey_proto::status::ApiError;
use grey_proto::sync::{HandledRequest, SyncStatus};
use grey_state::{Error, FencingToken, State};
use prost::Message;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::api::MAX_WAIT;
use crate::request::{Action, Request};
use crate::status::{MAX_HANDLED, bound};
use crate::time::timestamp;

/// A leader that has not published for so long is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// How often the status is looked at while someone waits, however many wait.
const POLL: Duration = Duration::from_millis(100);

/// Where a service's replicas meet its leader. Cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    state: State,
    service: &'static str,
    name: Name,
    /// What is kept for the next leader.
    memory: Name,
    replica: String,
    /// Newest first.
    handled: Mutex<VecDeque<HandledRequest>>,
    last_look: tokio::sync::Mutex<Option<Look>>,
    news: Notify,
}

/// What was seen last by those who wait.
struct Look {
    ended: Instant,
    status: Result<Arc<SyncStatus>, ApiError>,
}

impl Desk {
    /// The desk of `service`, `registry-sync` or `tenant-sync`, at this `replica`.
    #[must_use]
    pub fn new(state: &State, service: &'static str, replica: String) -> Self {
        Self(Arc::new(Inner {
            state: state.clone(),
            service,
            name: Name::new(service).expect("a service is called by a valid name"),
            memory: Name::new(&format!("{service}-memory")).expect("a service is called by a short name"),
            replica,
            handled: Mutex::default(),
            last_look: tokio::sync::Mutex::default(),
            news: Notify::new(),
        }))
    }

    // === the leader's side ===

    /// Tells how the mirror stands. Fills in service, leader, time and the requests carried out, and shortens lists
    /// to what the contract allows. To be called every few seconds and after every change; after 30 s of silence nobody
    /// is thought to lead.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has told its own; otherwise when the store is away.
    pub async fn publish(&self, token: FencingToken, status: SyncStatus) -> Result<(), Error> {
        let desk = &self.0;
        let mut status = SyncStatus {
            service: desk.service.to_owned(),
            leader: desk.replica.clone(),
            answered_by: String::new(),
            reported_at: Some(timestamp(SystemTime::now())),
            handled: self.handled_requests().iter().cloned().collect(),
            ..status
        };
        bound(&mut status);
        desk.state.statuses.publish(&desk.name, token, &status.encode_to_vec(), FORGOTTEN_AFTER).await
    }

    /// Keeps for `ttl` what the next leader has to know, in place of what was kept before.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn keep(&self, token: FencingToken, memory: &[u8], ttl: Duration) -> Result<(), Error> {
        self.0.state.statuses.publish(&self.0.memory, token, memory, ttl).await
    }

    /// What a leader has kept.
    ///
    /// # Errors
    /// [`Reason::Unavailable`] if the store is away.
    pub async fn kept(&self) -> Result<Option<Vec<u8>>, ApiError> {
        self.0.state.statuses.read(&self.0.memory).await.map_err(|error| unavailable(&error))
    }

    /// Takes the requests that wait, oldest first, waiting up to `wait` for the first. For the leader alone: what it
    /// takes is given to nobody else.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn take(&self, wait: Duration) -> Result<Vec<Request>, Error> {
        let mut fresh: Vec<Request> = Vec::new();
        for bytes in self.0.state.requests.take(&self.0.name, wait).await? {
            match Request::read(&bytes, SystemTime::now()) {
                // A cluster's client may have left it twice.
                Ok((request, _)) if fresh.contains(&request) || self.knows(&request) => {}
                Ok((request, false)) => fresh.push(request),
                Ok((request, true)) => {
                    tracing::warn!(request.id = %request.id, "request waited for too long, left aside");
                    self.handled(&request, Err("it waited for too long".to_owned()));
                }
                Err(error) => tracing::warn!(%error, "request does not read, left aside"),
            }
        }
        Ok(fresh)
    }

    /// Notes how a request ended, which goes out with the next [`Self::publish`].
    pub fn handled(&self, request: &Request, outcome: Result<(), String>) {
        let error = outcome.err().unwrap_or_default();
        match error.as_str() {
            "" => tracing::info!(request.id = %request.id, caller.name = %request.by, "request carried out"),
            _ => {
                tracing::warn!(request.id = %request.id, caller.name = %request.by, error, "request failed");
            }
        }
        let mut handled = self.handled_requests();
        handled.push_front(HandledRequest { request: request.id.clone(), error });
        handled.truncate(MAX_HANDLED);
        drop(handled);
        self.0.news.notify_one();
    }

    /// Waits until a request has ended since the last wait.
    pub(crate) async fn news(&self) {
        self.0.news.notified().await;
    }

    fn knows(&self, request: &Request) -> bool {
        self.handled_requests().iter().any(|handled| handled.request == request.id)
    }

    fn handled_requests(&self) -> MutexGuard<'_, VecDeque<HandledRequest>> {
        // Every update is finished before anything in it can panic.
        self.0.handled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // === every replica's side ===

    /// Asks the leader for a full sync, on behalf of `by`; answers the request's id.
    ///
    /// # Errors
    /// [`Reason::Unavailable`] if no replica leads or the store is away, [`Reason::RateLimited`] if too many requests
    /// wait.
    pub async fn trigger(&self, by: &str) -> Result<String, ApiError> {
        self.led().await?;
        self.post(Action::Trigger, by).await
    }

    /// Asks the leader to apply a held change, on behalf of `by`; answers the request's id.
    ///
    /// # Errors
    /// [`Reason::UnknownChange`] if no such change is listed; otherwise as [`Self::trigger`].
    pub async fn accept(&self, change: &str, by: &str) -> Result<String, ApiError> {
        let status = self.led().await?;
        if !status.held.iter().any(|held| held.id == change) {
            return Err(ApiError::new(Reason::UnknownChange, "no change of this id is held")
                .with("change", change.chars().take(100).collect::<String>()));
        }
        self.post(Action::Accept(change.to_owned()), by).await
    }

    /// How the mirror stands, as the leader told last; without a leader if there is none.
    ///
    /// # Errors
    /// [`Reason::Unavailable`] if the store is away, [`Reason::Internal`] if what it holds does not read.
    pub async fn status(&self) -> Result<SyncStatus, ApiError> {
        let desk = &self.0;
        let told = desk.state.statuses.read(&desk.name).await.map_err(|error| unavailable(&error))?;
        let status = match told {
            None => SyncStatus { service: desk.service.to_owned(), ..SyncStatus::default() },
            Some(bytes) => SyncStatus::decode(bytes.as_slice())
                .map_err(|error| ApiError::new(Reason::Internal, format!("read the status: {error}")))?,
        };
        Ok(SyncStatus { answered_by: desk.replica.clone(), ..status })
    }

    /// How a request ended, waiting for that up to `wait`, at most [`MAX_WAIT`]; none: it has not ended, or the leader that took it is gone.
    ///
    /// # Errors
    /// As [`Self::status`], if the last look fails. Looks before that may fail unnoticed.
    pub async fn outcome(&self, request: &str, wait: Duration) -> Result<Option<HandledRequest>, ApiError> {
        let end = Instant::now() + wait.min(MAX_WAIT);
        loop {
            let looked = self.look().await;
            let found = looked.map(|status| {
                let mut handled = status.handled.iter();
                handled.find(|handled| handled.request == request).cloned()
            });
            let now = Instant::now();
            if matches!(found, Ok(Some(_))) || now >= end {
                return found;
            }
            sleep_until(end.min(now + POLL)).await;
        }
    }

    /// The status, as of a moment ago at most: those who wait at the same time share their looks.
    async fn look(&self) -> Result<Arc<SyncStatus>, ApiError> {
        let mut last = self.0.last_look.lock().await;
        if let Some(look) = last.as_ref().filter(|look| look.ended.elapsed() < POLL) {
            return look.status.clone();
        }
        let status = self.status().await.map(Arc::new);
        *last = Some(Look { ended: Instant::now(), status: status.clone() });
        status
    }

    async fn led(&self) -> Result<SyncStatus, ApiError> {
        let status = self.status().await?;
        if status.leader.is_empty() {
            return Err(ApiError::new(Reason::Unavailable, "no replica leads; retry later"));
        }
        Ok(status)
    }

    async fn post(&self, action: Action, by: &str) -> Result<String, ApiError> {
        let request = Request { id: Uuid::now_v7().to_string(), action, by: by.to_owned() };
        let bytes = request.to_bytes(SystemTime::now());
        self.0.state.requests.post(&self.0.name, &bytes).await.map_err(|error| match error {
            Error::Full { .. } => ApiError::new(Reason::RateLimited, "too many requests wait for the leader"),
            error => unavailable(&error),
        })?;
        tracing::info!(request.id = %request.id, caller.name = by, action = ?request.action, "request left for the leader");
        Ok(request.id)
    }
}

/// The store's failure as callers see it; the log has the cause.
fn unavailable(error: &Error) -> ApiError {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "shared state failed");
    ApiError::new(Reason::Unavailable, "the shared state does not answer; retry later")
}
