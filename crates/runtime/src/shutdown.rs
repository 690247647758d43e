//! Graceful shutdown: one token that says "drain", one tracker that knows who has not finished.
//!
//! Tasks are started through [`Shutdown::spawn`] alone, so that no task outlives its service unnoticed and no panic
//! goes unseen.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A cheap handle on the service's life; all clones share one drain.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    draining: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<u64, &'static str>>,
    next_id: AtomicU64,
}

/// Keeps a task's name listed while the task lives, however it ends.
struct Running {
    inner: Arc<Inner>,
    id: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Shutdown {
    /// A service that is not draining and has no tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the drain begins. Cancelling it begins the drain as well.
    pub fn token(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// Begins the drain: every holder of the token should finish what it has and take nothing new.
    pub fn begin(&self) {
        self.inner.draining.cancel();
    }

    /// Starts a task that [`wait`](Self::wait) waits for. Tasks end by themselves once the token is cancelled.
    ///
    /// A panic is logged with the task's name and begins the drain: a service missing a part must be restarted, not
    /// limp on.
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id, name);
        let running = Running { inner: Arc::clone(&self.inner), id };
        self.inner.tracker.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                tracing::error!(
                    task.name = name,
                    panic.message = panic_message(&*panic),
                    "task panicked, draining"
                );
                running.inner.draining.cancel();
            }
        })
    }

    /// Begins the drain on SIGTERM or SIGINT.
    ///
    /// # Errors
    /// The operating system refuses to install a signal handler.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let draining = self.token();
        self.spawn("signals", async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = draining.cancelled() => return,
            };
            tracing::info!(signal.name = name, "signal received, draining");
            draining.cancel();
        });
        Ok(())
    }

    /// Waits for the drain to begin, then for all tasks to end: true if they did within `grace`.
    ///
    /// Tasks that did not are named in the log and left to the end of the process.
    pub async fn wait(&self, grace: Duration) -> bool {
        self.inner.draining.cancelled().await;
        self.inner.tracker.close();
        let drained = tokio::time::timeout(grace, self.inner.tracker.wait()).await.is_ok();
        if !drained {
            tracing::warn!(task.names = ?self.running(), "tasks outlived the shutdown's grace");
        }
        drained
    }

    /// Names of the tasks that have not ended, oldest first.
    pub fn running(&self) -> Vec<&'static str> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }
}

/// The text of a panic, for logs.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
