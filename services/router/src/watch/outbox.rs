//! What waits for one watcher: frames that were encoded and that its connection has not taken yet, bounded by bytes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use grey_core::error::Reason;
use grey_proto::status::ApiError;
use http::HeaderMap;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tonic::Status;

/// Bytes that may wait for one watcher. A larger frame waits alone.
pub(super) const WINDOW: u32 = 256 << 10;
/// How many frames may.
const FRAMES: usize = 64;

/// Why nothing more can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gone {
    /// The client has left.
    Left,
    /// It has taken nothing for too long; what waited is given up.
    Stalled,
}

/// Where frames are put.
pub(super) struct Outbox {
    frames: mpsc::Sender<Waiting>,
    /// The outlet's, so that what waits can be given up although nobody takes it.
    queue: Queue,
    room: Arc<Semaphore>,
    end: Arc<OnceLock<Status>>,
    total: Arc<AtomicU64>,
    stall: Duration,
    pace: Mutex<Pace>,
}

type Queue = Arc<Mutex<mpsc::Receiver<Waiting>>>;

/// How the client gets on.
struct Pace {
    /// Frames that were put.
    put: usize,
    /// Frames that had been taken of them when somebody last looked, and since when.
    taken: usize,
    since: Instant,
}

/// Where a connection takes them from: the body of an answer, in which only bytes are passed on.
pub(crate) struct Outlet {
    queue: Queue,
    end: Arc<OnceLock<Status>>,
    ended: bool,
}

/// On its way to an answer's body through the extensions of a response, which must be able to be cloned.
#[derive(Clone)]
pub(crate) struct PassedOn(Arc<Mutex<Option<Outlet>>>);

/// A frame that waits.
struct Waiting {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
    /// Bytes that wait for all watchers there are.
    total: Arc<AtomicU64>,
}

/// Where frames are put, and where they are taken. `total` counts the bytes in between; `stall` is how long a client may
/// take nothing.
pub(super) fn outbox(total: Arc<AtomicU64>, stall: Duration) -> (Outbox, Outlet) {
    let (sender, frames) = mpsc::channel(FRAMES);
    let (room, end) = (Arc::new(Semaphore::new(WINDOW as usize)), Arc::default());
    let queue = Arc::new(Mutex::new(frames));
    let outlet = Outlet { queue: Arc::clone(&queue), end: Arc::clone(&end), ended: false };
    let pace = Mutex::new(Pace { put: 0, taken: 0, since: Instant::now() });
    (Outbox { frames: sender, queue, room, end, total, stall, pace }, outlet)
}

impl Outbox {
    /// Waits until there is room.
    pub(super) async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let put = if self.has_stalled() { None } else { timeout(self.stall, self.put(bytes)).await.ok() };
        put.unwrap_or_else(|| {
            give_up(&self.queue);
            Err(Gone::Stalled)
        })
    }

    /// Whether something waits of which nothing was taken for too long: of a small table, all that there is has room.
    fn has_stalled(&self) -> bool {
        let mut pace = lock(&self.pace);
        let waiting = self.frames.max_capacity() - self.frames.capacity();
        let taken = pace.put.saturating_sub(waiting);
        if waiting == 0 || taken != pace.taken {
            (pace.taken, pace.since) = (taken, Instant::now());
        }
        pace.since.elapsed() >= self.stall
    }

    async fn put(&self, bytes: Bytes) -> Result<(), Gone> {
        let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(WINDOW);
        let room = Arc::clone(&self.room).acquire_many_owned(wanted).await.map_err(|_| Gone::Left)?;
        let place = self.frames.reserve().await.map_err(|_| Gone::Left)?;
        self.total.fetch_add(bytes.len() as u64, Relaxed);
        place.send(Waiting { bytes, _room: room, total: Arc::clone(&self.total) });
        lock(&self.pace).put += 1;
        Ok(())
    }

    /// Waits until the client leaves.
    pub(super) async fn left(&self) {
        self.frames.closed().await;
    }

    /// Ends the stream with `status` once what waits was taken.
    pub(super) fn end(self, status: Status) {
        // Whoever sets it takes the outbox with it.
        drop(self.end.set(status));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes.len() as u64, Relaxed);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        give_up(&self.queue);
    }
}

/// Takes no more frames, and drops those that wait.
fn give_up(queue: &Queue) {
    let mut frames = lock(queue);
    frames.close();
    while frames.try_recv().is_ok() {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held cannot have left anything half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outlet {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = lock(&self.queue).poll_recv(cx);
        Poll::Ready(Some(match ready!(next) {
            Some(waiting) => Frame::data(waiting.bytes.clone()),
            None => {
                self.ended = true;
                Frame::trailers(trailers(self.end.get().unwrap_or(&failed())))
            }
        }))
    }

    /// Whether everything was taken, the trailers too.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // The code is there, whatever becomes of the text.
    drop(status.add_header(&mut trailers));
    trailers
}

/// What a client is told whose stream was given up without a word.
#[cold]
fn failed() -> Status {
    ApiError::new(Reason::Unavailable, "the stream has failed; connect again").into()
}

impl PassedOn {
    pub(crate) fn new(outlet: Outlet) -> Self {
        Self(Arc::new(Mutex::new(Some(outlet))))
    }

    /// What was passed on; once.
    pub(crate) fn take(&self) -> Option<Outlet> {
        lock(&self.0).take()
    }
}
