//! Watch streams: the table, then each change, for clients that decide by themselves.
//!
//! Frames are made and encoded on the control runtime, once for all watchers of the same selection; a connection's thread
//! passes bytes on. What waits for a client is bounded: one that reads slowly is sent what is kept, or read, or a fresh
//! snapshot instead.

mod channel;
mod channels;
mod outbox;
mod recent;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grey_core::change::{Epoch, Position, Revision};
use grey_core::error::Reason;
use grey_proto::router::{WatchHeartbeat, WatchRequest, WatchResponse, watch_response::Frame};
use grey_proto::status::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::config;
use crate::frames;
use crate::grpc::draining;
use crate::selection::Selection;
use crate::shared::Shared;
use channel::{Channel, MAX_BEHIND, Next, Place};
use channels::{Channels, Open};
use outbox::{Gone, Outbox};
pub(crate) use outbox::{Outlet, PassedOn};

/// How long a client may take nothing at all before its stream ends.
const STALL: Duration = Duration::from_secs(60);

/// Starts watch streams. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Watchers {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    asked: mpsc::Sender<Asked>,
    /// How long a client may take nothing at all before its stream ends.
    stall: Duration,
}

/// Runs them.
pub(crate) struct Hub {
    shared: Arc<Shared>,
    asked: mpsc::Receiver<Asked>,
    channels: Channels,
    heartbeat: Duration,
}

/// A stream that is to be run.
struct Asked {
    selection: Selection,
    /// What the client has already.
    held: Option<Position>,
    outbox: Outbox,
    slot: OwnedSemaphorePermit,
}

/// One that runs.
struct Job {
    shared: Arc<Shared>,
    open: Arc<Open>,
    held: Option<Position>,
    heartbeat: Duration,
}

/// Why a stream has ended by itself.
enum Ended {
    Gone(Gone),
    /// Nothing is announced any more.
    Silent,
}

impl From<Gone> for Ended {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl Hub {
    pub(crate) fn new(shared: Arc<Shared>, options: &config::Watch) -> (Self, Watchers) {
        let limit = shared.limits.watchers;
        let (sender, asked) = mpsc::channel(limit.max(1));
        let slots = Arc::new(Semaphore::new(limit));
        let channels = Channels::new(Arc::clone(&shared), options.recent_bytes);
        let hub = Self { shared: Arc::clone(&shared), asked, channels, heartbeat: options.heartbeat };
        (hub, Watchers { shared, slots, asked: sender, stall: STALL })
    }

    /// Runs streams until the drain begins.
    pub(crate) async fn run(mut self, drained: CancellationToken) {
        let mut running = JoinSet::new();
        loop {
            self.shared.gauges.watchers.store(running.len() as u64, Relaxed);
            tokio::select! {
                () = drained.cancelled() => break,
                Some(asked) = self.asked.recv() => {
                    let Asked { selection, held, outbox, slot } = asked;
                    let (shared, open) = (Arc::clone(&self.shared), self.channels.open(selection));
                    let job = Job { shared, open, held, heartbeat: self.heartbeat };
                    running.spawn(job.run(outbox, slot, drained.clone()));
                }
                Some(ended) = running.join_next() => {
                    if let Err(panic) = ended {
                        tracing::error!(error = %panic, "watch stream failed");
                    }
                    self.channels.forget_unwatched();
                }
            }
        }
        self.asked.close();
        while let Some(asked) = self.asked.recv().await {
            asked.outbox.end(draining());
        }
        // Each ends by itself now that its token is cancelled.
        while running.join_next().await.is_some() {}
    }
}

impl Watchers {
    /// Opens a stream.
    pub(crate) fn watch(&self, request: &WatchRequest) -> Result<Outlet, ApiError> {
        let selection = Selection::read(request)?;
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
        let (outbox, outlet) =
            outbox::outbox(Arc::clone(&self.shared.gauges.watch_waiting_bytes), self.stall);
        let asked = Asked { selection, held, outbox, slot };
        self.asked
            .try_send(asked)
            .map_err(|_| ApiError::new(Reason::Unavailable, "the router is draining"))?;
        Ok(outlet)
    }
}

impl Job {
    async fn run(self, outbox: Outbox, slot: OwnedSemaphorePermit, drained: CancellationToken) {
        let end = tokio::select! {
            () = drained.cancelled() => Some(draining()),
            Err(ended) = self.follow(&outbox) => ended.status(),
            () = outbox.left() => None,
        };
        if let Some(end) = end {
            outbox.end(end);
        }
        drop(slot);
    }

    async fn follow(&self, outbox: &Outbox) -> Result<Infallible, Ended> {
        let channel = &self.open.channel;
        let mut news = self.open.news.clone();
        let mut place = match self.resume(channel, outbox).await? {
            Some(place) => place,
            None => self.snapshot(channel, outbox).await?,
        };
        let mut beat = Instant::now();
        loop {
            if Instant::now() >= beat {
                outbox.send(frames::encoded(&self.heartbeat())).await?;
                beat = Instant::now() + self.heartbeat;
            }
            news.borrow_and_update();
            match channel.next(&mut place).await {
                Next::Frame(frame) => outbox.send(frame).await?,
                Next::StartOver => place = self.snapshot(channel, outbox).await?,
                Next::Nothing => match timeout_at(beat, news.changed()).await {
                    Ok(Ok(())) | Err(_) => {}
                    Ok(Err(_)) => return Err(Ended::Silent),
                },
            }
        }
    }

    /// The place of a client that can continue from where it is; none if that is out of reach.
    async fn resume(&self, channel: &Channel, outbox: &Outbox) -> Result<Option<Place>, Gone> {
        let Some(held) = self.held else { return Ok(None) };
        let mut place = channel.place();
        let table = self.shared.tables.load_full();
        let present = table.position();
        let missed = present.revision.0.checked_sub(held.revision.0);
        if held.epoch != present.epoch || missed.is_none_or(|missed| missed > MAX_BEHIND) {
            return Ok(None);
        }
        // Replacements of instances have no revision, so the client gets them all.
        for frame in frames::instances(&table, channel.selection()) {
            outbox.send(frames::encoded(&frame)).await?;
        }
        place.position = held;
        Ok(Some(place))
    }

    async fn snapshot(&self, channel: &Channel, outbox: &Outbox) -> Result<Place, Gone> {
        let mut place = channel.place();
        let table = self.shared.tables.load_full();
        self.shared.gauges.watch_snapshots.fetch_add(1, Relaxed);
        for frame in frames::snapshot(&table, channel.selection()) {
            outbox.send(frames::encoded(&frame)).await?;
        }
        place.position = table.position();
        Ok(place)
    }

    fn heartbeat(&self) -> WatchResponse {
        let status = self.shared.tables.status();
        frames::response(Frame::Heartbeat(WatchHeartbeat {
            epoch: status.position.epoch.0,
            revision: status.position.revision.0,
            current: status.is_current(),
            age: status.age.map(Into::into),
        }))
    }
}

impl Ended {
    /// What the client is told, if it is still there.
    fn status(self) -> Option<Status> {
        let message = match self {
            Self::Gone(Gone::Left) => return None,
            Self::Gone(Gone::Stalled) => {
                format!("nothing was taken of the stream for {} s; connect again", STALL.as_secs())
            }
            Self::Silent => {
                "the router does not follow its table any more; connect to another one".to_owned()
            }
        };
        Some(ApiError::new(Reason::Unavailable, message).into())
    }
}

#[cfg(test)]
mod tests;
