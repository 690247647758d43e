//! The connection that all operations share, and those that wait for streams.

use super::connector::Connector;
use super::scripts::Script;
use super::wire::{Master, Wire};
use crate::Error;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Longest wait of one command on a connection for reads that wait.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to connect: what is back is reached within so long.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Failures in a row after which a cluster's connection is made anew. It finds its way around dead servers by
/// itself, and the other servers' slots must stay within reach meanwhile.
const CLUSTER_FAILURES: u32 = 10;
/// Idle connections kept for reads that wait.
const MAX_IDLE: usize = 4;
/// Deadline of a batch, in response timeouts.
const BATCH_PATIENCE: u32 = 5;

/// Connects in the background and again whenever the connection breaks.
pub(super) struct Link {
    connector: Arc<Connector>,
    state: watch::Receiver<Connection>,
    /// Highest epoch found broken.
    broken: watch::Sender<u64>,
    /// Idle connections for reads that wait, and the epoch that they are from.
    waiting: Mutex<(u64, Vec<Wire>)>,
    keeper: AbortHandle,
}

enum Connection {
    /// None yet; with the last attempt's error.
    Away(Option<RedisError>),
    Live(Live),
}

#[derive(Clone)]
struct Live {
    /// Counts connections.
    epoch: u64,
    wire: Wire,
    /// Failures since the last success.
    failures: Arc<AtomicU32>,
}

impl Link {
    /// Starts to connect.
    pub(super) fn start(connector: Connector) -> Self {
        let connector = Arc::new(connector);
        let (publish, state) = watch::channel(Connection::Away(None));
        let (broken, found_broken) = watch::channel(0);
        let keeper = tokio::spawn(keep(Arc::clone(&connector), publish, found_broken)).abort_handle();
        Self { connector, state, broken, waiting: Mutex::default(), keeper }
    }

    /// Longest wait for an answer.
    pub(super) fn response_timeout(&self) -> Duration {
        self.connector.response_timeout()
    }

    /// Carries one command out; `key` is what it is about.
    pub(super) async fn run(
        &self,
        attempted: &'static str,
        key: &str,
        command: &Cmd,
    ) -> Result<Value, Error> {
        let attempt = |mut wire: Wire| async move { wire.command(command).await };
        self.attempt(attempted, key, self.response_timeout(), attempt).await
    }

    /// Calls a script.
    pub(super) async fn call(
        &self,
        attempted: &'static str,
        key: &str,
        script: &Script,
        call: &Cmd,
    ) -> Result<Value, Error> {
        self.call_within(self.response_timeout(), attempted, key, script, call).await
    }

    /// Calls a script with a deadline of its own.
    pub(super) async fn call_within(
        &self,
        deadline: Duration,
        attempted: &'static str,
        key: &str,
        script: &Script,
        call: &Cmd,
    ) -> Result<Value, Error> {
        let attempt = |mut wire: Wire| async move {
            match wire.command(call).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    wire.command(&script.in_full(call)).await
                }
                answer => answer,
            }
        };
        self.attempt(attempted, key, deadline, attempt).await
    }

    /// Carries commands out in no promised order; an error answer to one is a value among the others.
    pub(super) async fn batch(
        &self,
        attempted: &'static str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let attempt = |mut wire: Wire| async move { wire.batch(commands).await };
        self.attempt(attempted, "", self.response_timeout() * BATCH_PATIENCE, attempt).await
    }

    /// The same for calls of one script.
    pub(super) async fn call_batch(
        &self,
        attempted: &'static str,
        script: &Script,
        calls: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        let mut answers = self.batch(attempted, calls).await?;
        let unknown = |answer: &Value| matches!(answer, Value::ServerError(e) if e.kind() == Some(ServerErrorKind::NoScript));
        let places: Vec<usize> = (0..answers.len()).filter(|place| unknown(&answers[*place])).collect();
        let mut again = Pipeline::with_capacity(places.len());
        let calls: Vec<&Cmd> = calls.cmd_iter().collect();
        for place in &places {
            again.add_command(script.in_full(calls[*place]));
        }
        for (place, answer) in places.iter().zip(self.batch(attempted, &again).await?) {
            answers[*place] = answer;
        }
        Ok(answers)
    }

    /// Every server that holds data.
    pub(super) async fn masters(&self, attempted: &'static str) -> Result<Vec<Master>, Error> {
        let attempt = |mut wire: Wire| async move { wire.masters().await };
        self.attempt(attempted, "", self.response_timeout(), attempt).await
    }

    /// Carries one command out on one server.
    pub(super) async fn run_on(
        &self,
        attempted: &'static str,
        master: Master,
        command: &Cmd,
    ) -> Result<Value, Error> {
        let attempt = |mut wire: Wire| async move { wire.command_on(master, command).await };
        self.attempt(attempted, "", self.response_timeout(), attempt).await
    }

    /// Carries out a command that waits for up to `wait`, at most [`LONGEST_WAIT`], on a connection that nobody else waits for.
    ///
    /// A connection whose command was given up is closed: its answer is still to come.
    pub(super) async fn wait(
        &self,
        attempted: &'static str,
        key: &str,
        wait: Duration,
        command: &Cmd,
    ) -> Result<Value, Error> {
        let live = self.live(attempted, self.response_timeout()).await?;
        let epoch = live.epoch;
        let patience = wait + self.response_timeout();
        let idle = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.0 != epoch {
                *waiting = (epoch, Vec::new());
            }
            waiting.1.pop()
        };
        let mut wire = match idle {
            Some(wire) => wire,
            None => self
                .connector
                .connect(LONGEST_WAIT + self.response_timeout())
                .await
                .map_err(|error| failure(attempted, key, error))?,
        };
        match timeout(patience, wire.command(command)).await {
            Ok(Ok(answer)) => {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.0 == epoch && waiting.1.len() < MAX_IDLE {
                    waiting.1.push(wire);
                }
                Ok(answer)
            }
            Ok(Err(error)) => {
                if is_broken(&error) {
                    self.failed(&live);
                }
                Err(failure(attempted, key, error))
            }
            Err(_) => {
                self.failed(&live);
                Err(Error::Timeout { attempted, deadline: patience })
            }
        }
    }

    async fn attempt<T, F: Future<Output = RedisResult<T>> + Send>(
        &self,
        attempted: &'static str,
        key: &str,
        deadline: Duration,
        attempt: impl FnOnce(Wire) -> F,
    ) -> Result<T, Error> {
        let started = tokio::time::Instant::now();
        let live = self.live(attempted, deadline).await?;
        let left = deadline.saturating_sub(started.elapsed());
        match timeout(left, Box::pin(attempt(live.wire.clone()))).await {
            Ok(Ok(answer)) => {
                live.failures.store(0, Relaxed);
                Ok(answer)
            }
            Ok(Err(error)) => {
                if is_broken(&error) {
                    self.failed(&live);
                }
                Err(failure(attempted, key, error))
            }
            Err(_) => {
                // A server that is merely slower than an impatient caller keeps its connection.
                if left >= self.response_timeout() / 2 {
                    self.failed(&live);
                }
                Err(Error::Timeout { attempted, deadline })
            }
        }
    }

    async fn live(&self, attempted: &'static str, deadline: Duration) -> Result<Live, Error> {
        let mut state = self.state.clone();
        let connected = state.wait_for(|connection| matches!(connection, Connection::Live(_)));
        if let Ok(Ok(connection)) = timeout(deadline, connected).await
            && let Connection::Live(live) = &*connection
        {
            return Ok(live.clone());
        }
        match &*self.state.borrow() {
            Connection::Away(Some(source)) => Err(Error::Unavailable { attempted, source: source.clone() }),
            _ => Err(Error::Timeout { attempted, deadline }),
        }
    }

    /// Has the connection replaced, if it will not recover by itself.
    fn failed(&self, live: &Live) {
        let failures = live.failures.fetch_add(1, Relaxed) + 1;
        if live.wire.recovers() && failures < CLUSTER_FAILURES {
            return;
        }
        self.broken.send_if_modified(|broken| {
            let newer = live.epoch > *broken;
            *broken = live.epoch.max(*broken);
            newer
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Connects, with growing pauses between attempts, whenever there is no sound connection.
async fn keep(
    connector: Arc<Connector>,
    publish: watch::Sender<Connection>,
    mut found_broken: watch::Receiver<u64>,
) {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times();
    let mut epoch = 0;
    loop {
        let mut pause = pauses.build();
        let mut failed = false;
        let wire = loop {
            match Box::pin(connector.connect(connector.response_timeout())).await {
                Ok(wire) => break wire,
                Err(error) => {
                    if !failed {
                        tracing::warn!(error = %error, "redis cannot be reached");
                        failed = true;
                    }
                    publish.send_replace(Connection::Away(Some(error)));
                    tokio::time::sleep(pause.next().unwrap_or(LONGEST_PAUSE)).await;
                }
            }
        };
        epoch += 1;
        tracing::info!(redis.epoch = epoch, "redis connected");
        publish.send_replace(Connection::Live(Live { epoch, wire, failures: Arc::default() }));
        if found_broken.wait_for(|broken| *broken >= epoch).await.is_err() {
            return;
        }
        tracing::warn!(redis.epoch = epoch, "redis connection lost");
        publish.send_replace(Connection::Away(None));
    }
}

/// Whether only another connection, perhaps to another server, can help.
fn is_broken(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || error.kind() == ErrorKind::ClusterConnectionNotFound
}

/// Tells apart what a retry may help against and what is wrong with the stored value.
pub(super) fn failure(attempted: &'static str, key: &str, source: RedisError) -> Error {
    let corrupt = matches!(source.code(), Some("WRONGTYPE" | "CORRUPT"))
        || source.detail().is_some_and(|detail| detail.contains("not an integer"));
    if corrupt {
        return Error::Corrupt { key: key.to_owned(), why: source.to_string() };
    }
    Error::Unavailable { attempted, source }
}

/// Batches on their way at once.
const IN_FLIGHT: usize = 4;

/// Does some work a few at once, and takes the outcomes in order.
pub(super) async fn pipelined<T, F: Future<Output = Result<T, Error>>>(
    works: impl Iterator<Item = F>,
    mut take: impl FnMut(T) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut done = stream::iter(works).buffered(IN_FLIGHT);
    while let Some(outcome) = done.try_next().await? {
        take(outcome)?;
    }
    Ok(())
}
