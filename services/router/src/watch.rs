//! Watch streams: the table, then each change, for clients that decide by themselves.
//!
//! Frames are made on the control runtime and reach the connection's thread through a short channel, so a
//! snapshot of a million tenants does not delay a decision. A client that reads slowly falls behind the
//! updates and gets a fresh snapshot instead of a queue that grows.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::Stream;
use grey_core::change::{Epoch, Event, Position, Revision};
use grey_core::error::Reason;
use grey_core::ids::ServiceId;
use grey_proto::convert::InvalidMessage;
use grey_proto::router::{WatchRequest, WatchResponse, watch_response::Frame};
use grey_proto::status::ApiError;
use grey_state::feed::{FeedEntry, FeedRead};
use grey_state::follower::Update;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::frames;
use crate::grpc::draining;
use crate::selection::Selection;
use crate::shared::Shared;

/// Frames on their way to a connection: one that is being sent, and the next one. Events may be large.
const FRAMES: usize = 2;
/// How long a client may take nothing at all before its stream ends.
const STALL: Duration = Duration::from_secs(60);
/// Most services in one selection.
const MAX_SERVICES: usize = 1_000;
/// Most changes of an event that is sent as such.
const MAX_CHANGES: usize = 5_000;
/// Most events that are sent instead of a snapshot.
const MAX_RESUMED: u64 = 10_000;
/// Most events that are read at once, and how many changes they should have together: what was read waits in memory
/// until the client has taken it.
const RESUME_BATCH: usize = 512;
const RESUME_CHANGES: usize = 1_000;
/// How long one read may take; the events are there already.
const RESUME_WAIT: Duration = Duration::from_millis(100);
const RESUME_DEADLINE: Duration = Duration::from_secs(2);

type Frames = mpsc::Sender<Result<WatchResponse, Status>>;

/// Starts watch streams. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Watchers {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    jobs: mpsc::Sender<Job>,
}

/// Runs them.
pub(crate) struct Hub {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
}

/// Whether the event fits a message that clients take by default, 4 MiB. Of a larger one the table is sent anew.
fn is_small(event: &Event) -> bool {
    event.changes.len() <= MAX_CHANGES
}

/// One stream.
struct Job {
    shared: Arc<Shared>,
    selection: Selection,
    /// What the client has already.
    held: Option<Position>,
    frames: Frames,
    _slot: OwnedSemaphorePermit,
}

/// The client is gone, or does not read.
struct Gone;

impl Hub {
    pub(crate) fn new(shared: Arc<Shared>) -> (Self, Watchers) {
        let limit = shared.limits.watchers;
        let (sender, jobs) = mpsc::channel(limit.max(1));
        let slots = Arc::new(Semaphore::new(limit));
        (Self { shared: Arc::clone(&shared), jobs }, Watchers { shared, slots, jobs: sender })
    }

    /// Runs streams until the drain begins.
    pub(crate) async fn run(mut self, draining: CancellationToken) {
        let mut running = JoinSet::new();
        loop {
            self.shared.gauges.watchers.store(running.len() as u64, Relaxed);
            tokio::select! {
                () = draining.cancelled() => break,
                Some(job) = self.jobs.recv() => {
                    running.spawn(job.run(draining.clone()));
                }
                Some(ended) = running.join_next() => {
                    if let Err(panic) = ended {
                        tracing::error!(error = %panic, "watch stream failed");
                    }
                }
            }
        }
        // Each ends by itself now that its token is cancelled.
        while running.join_next().await.is_some() {}
    }
}

impl Watchers {
    /// Opens a stream.
    pub(crate) fn watch(
        &self,
        request: &WatchRequest,
    ) -> Result<impl Stream<Item = Result<WatchResponse, Status>> + Send + use<>, ApiError> {
        let selection = selection(request)?;
        if !self.shared.tables.status().ready {
            let message = "the router has no routing table yet; retry later";
            return Err(ApiError::new(Reason::Unavailable, message));
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            let limit = self.shared.limits.watchers;
            let message = format!("{limit} watchers are connected, no more are allowed; try another router");
            ApiError::new(Reason::RateLimited, message)
        })?;
        let held = (request.epoch != 0)
            .then_some(Position { epoch: Epoch(request.epoch), revision: Revision(request.revision) });
        let (frames, received) = mpsc::channel(FRAMES);
        let shared = Arc::clone(&self.shared);
        let job = Job { shared, selection, held, frames, _slot: slot };
        self.jobs.try_send(job).map_err(|_| ApiError::new(Reason::Unavailable, "the router is draining"))?;
        Ok(ReceiverStream::new(received))
    }
}

fn selection(request: &WatchRequest) -> Result<Selection, InvalidMessage> {
    if request.services.len() > MAX_SERVICES {
        let why = format!("has {} entries, at most {MAX_SERVICES} are allowed", request.services.len());
        return Err(InvalidMessage::new("services", why));
    }
    let read = |(i, id): (usize, &String)| {
        ServiceId::new(id).map_err(|why| InvalidMessage::new(format!("services[{i}]"), why.to_string()))
    };
    request.services.iter().enumerate().map(read).collect::<Result<_, _>>().map(Selection::new)
}

impl Job {
    async fn run(self, draining_token: CancellationToken) {
        tokio::select! {
            () = draining_token.cancelled() => {
                // A client that takes no frames notices the end of its connection.
                drop(self.frames.try_send(Err(draining())));
            }
            _gone = self.follow() => {}
            () = self.frames.closed() => {}
        }
    }

    async fn follow(&self) -> Result<(), Gone> {
        let mut updates = self.shared.tables.updates();
        let mut at = match self.resume().await? {
            Some(revision) => revision,
            None => self.snapshot().await?,
        };
        loop {
            match updates.recv().await {
                Ok(Update::Event(event)) if event.revision <= at => {}
                Ok(Update::Event(event)) if event.revision == at.next() && is_small(&event) => {
                    self.send(frames::response(Frame::Event(self.selection.event(&event)))).await?;
                    at = event.revision;
                }
                Ok(Update::Instances(list)) => {
                    if self.selection.has(&list.service) {
                        let list = (&list.service, list.instances.as_slice()).into();
                        self.send(frames::response(Frame::Instances(list))).await?;
                    }
                }
                Ok(Update::Event(_) | Update::Reloaded) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    updates = self.shared.tables.updates();
                    at = self.snapshot().await?;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Sends what happened since the client's position; none if that is out of reach.
    async fn resume(&self) -> Result<Option<Revision>, Gone> {
        let Some(mut at) = self.held else { return Ok(None) };
        let table = self.shared.tables.load_full();
        let present = table.position();
        let missed = present.revision.0.checked_sub(at.revision.0);
        if at.epoch != present.epoch || missed.is_none_or(|missed| missed > MAX_RESUMED) {
            return Ok(None);
        }
        let mut batch = 1;
        while at.revision < present.revision {
            let level = self.shared.tables.status().level;
            let read = self.shared.state.feed.read(&at, level, batch, RESUME_WAIT);
            // Whatever was sent by then, a snapshot may follow it.
            let read = match timeout(RESUME_DEADLINE, read).await {
                Ok(Ok(FeedRead::Entries(read))) if !read.is_empty() => read,
                _ => return Ok(None),
            };
            let changes: usize = read.iter().map(|entry| entry.event.changes.len()).sum();
            for FeedEntry { event, .. } in read {
                if !is_small(&event) {
                    return Ok(None);
                }
                self.send(frames::response(Frame::Event(self.selection.event(&event)))).await?;
                at.revision = event.revision;
            }
            batch = (batch * RESUME_CHANGES / changes.max(1)).clamp(1, (batch * 2).min(RESUME_BATCH));
        }
        // Replacements of instances have no revision, so the client gets them all.
        for frame in frames::instances(&table, &self.selection) {
            self.send(frame).await?;
        }
        Ok(Some(at.revision))
    }

    async fn snapshot(&self) -> Result<Revision, Gone> {
        let table = self.shared.tables.load_full();
        self.shared.gauges.watch_snapshots.fetch_add(1, Relaxed);
        for frame in frames::snapshot(&table, &self.selection) {
            self.send(frame).await?;
        }
        Ok(table.position().revision)
    }

    async fn send(&self, frame: WatchResponse) -> Result<(), Gone> {
        match timeout(STALL, self.frames.send(Ok(frame))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}
