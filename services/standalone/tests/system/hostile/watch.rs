//! What a port's well-behaved clients and its operators see, and what its process takes.

use super::port::{PATIENCE, Port};
use futures::FutureExt as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Within which a service says how it is, whatever is done to it.
const PROMISE: Duration = Duration::from_secs(1);
/// Within which an honest watch begins, however many take nothing of what they watch: the servers let them take nothing for
/// 20 s.
const WATCH_PROMISE: Duration = Duration::from_secs(30);
/// Watches that are begun before enough was seen.
const WATCHES: usize = 3;
/// Between two calls of a client.
const PACE: Duration = Duration::from_millis(1);
/// Between two watches, and between two attempts to begin one.
const WATCH_PACE: Duration = Duration::from_millis(20);
/// Between two questions how the service is.
const HEALTH_PACE: Duration = Duration::from_millis(50);
const SAMPLE: Duration = Duration::from_millis(10);

/// The clients of a port, until dropped.
pub(super) struct Watch {
    seen: Arc<Seen>,
    has_watcher: bool,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// What was seen since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// How long calls took on a connection that stays, and with one made for each call.
    pub(super) kept: Vec<Duration>,
    pub(super) fresh: Vec<Duration>,
    /// How long it took until a watch had begun.
    pub(super) watched: Vec<Duration>,
    /// Calls that were refused or not answered in time.
    pub(super) failed: Vec<String>,
    /// The longest that the service took to say how it is, and how often it was asked.
    pub(super) health: Duration,
    pub(super) asked: usize,
    /// Where it said so later than promised.
    pub(super) late: Vec<String>,
    /// Where it did not say so.
    pub(super) unwell: Vec<String>,
}

struct Seen {
    port: Arc<Port>,
    sight: Mutex<Sight>,
    /// The most that the process took, in KiB.
    peak: AtomicU64,
}

/// What a process takes, in KiB.
pub(super) fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

impl Watch {
    /// Starts them, with one that watches or without.
    pub(super) fn start(port: &Arc<Port>, has_watcher: bool) -> Self {
        let seen = Arc::new(Seen {
            port: Arc::clone(port),
            sight: Mutex::default(),
            peak: AtomicU64::new(resident(port.process)),
        });
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let mut clients =
            vec![kept(seen.clone()).boxed(), fresh(seen.clone()).boxed(), health(seen.clone()).boxed()];
        clients.extend(has_watcher.then(|| watcher(seen.clone()).boxed()));
        for work in clients {
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled_owned(work).await.unwrap_or_default() });
        }
        let (sampled, stopped) = (Arc::clone(&seen), stop.clone());
        tasks.spawn(async move {
            while !stopped.is_cancelled() {
                sampled.peak.fetch_max(resident(sampled.port.process), Relaxed);
                sleep(SAMPLE).await;
            }
        });
        Self { seen, has_watcher, stop, tasks }
    }

    /// Waits until each client has made so many calls since the last look, or `is_enough`.
    pub(super) async fn until_called(&self, calls: usize, is_enough: impl Fn() -> bool) {
        let called = || {
            let sight = self.seen.sight.lock().unwrap();
            let watched = !self.has_watcher || sight.watched.len() >= WATCHES || !sight.failed.is_empty();
            sight.kept.len() >= calls && sight.fresh.len() >= calls && sight.asked > 0 && watched
                || sight.failed.len() >= calls
        };
        while !called() && !is_enough() {
            sleep(PACE).await;
        }
    }

    /// What was seen since the last look.
    pub(super) fn look(&self) -> Sight {
        std::mem::take(&mut *self.seen.sight.lock().unwrap())
    }

    /// The most that the process took since the last reset.
    pub(super) fn peak(&self) -> u64 {
        self.seen.peak.load(Relaxed)
    }

    pub(super) async fn finish(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

impl Sight {
    /// Adds what was seen later.
    pub(super) fn extend(&mut self, later: Self) {
        self.kept.extend(later.kept);
        self.fresh.extend(later.fresh);
        self.watched.extend(later.watched);
        self.failed.extend(later.failed);
        self.health = self.health.max(later.health);
        self.asked += later.asked;
        self.unwell.extend(later.unwell);
        self.late.extend(later.late);
    }
}

impl Seen {
    /// Notes how a call went that began at `asked`.
    fn called(
        &self,
        asked: Instant,
        answer: Result<(), String>,
        which: fn(&mut Sight) -> &mut Vec<Duration>,
    ) {
        let mut sight = self.sight.lock().unwrap();
        match answer {
            Ok(()) => which(&mut sight).push(asked.elapsed()),
            Err(why) => sight.failed.push(why),
        }
    }
}

async fn kept(seen: Arc<Seen>) {
    let (channel, client) = (seen.port.channel(), seen.port.client(true, PATIENCE));
    for turn in 0.. {
        let asked = Instant::now();
        let answer = call(&seen.port, channel.clone(), &client, turn).await;
        seen.called(asked, answer.map_err(|why| format!("on a kept connection: {why}")), |it| &mut it.kept);
        sleep(PACE).await;
    }
}

async fn fresh(seen: Arc<Seen>) {
    let client = seen.port.client(false, PATIENCE);
    for turn in 0.. {
        let channel = seen.port.channel();
        let asked = Instant::now();
        let answer = call(&seen.port, channel, &client, turn).await;
        seen.called(asked, answer.map_err(|why| format!("on a new connection: {why}")), |it| &mut it.fresh);
        sleep(PACE).await;
    }
}

async fn call(
    port: &Port,
    channel: tonic::transport::Channel,
    client: &reqwest::Client,
    turn: usize,
) -> Result<(), String> {
    let answer = async {
        if port.is_grpc() {
            port.call(channel, turn).await.map_err(|status| format!("{status:?}"))
        } else {
            port.get(client, turn).await
        }
    };
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// Watches again and again. One that is refused, or cut off before anything came, tries again: what counts is when it begins.
async fn watcher(seen: Arc<Seen>) {
    let channel = seen.port.channel();
    let mut wanted = Instant::now();
    loop {
        let begun = timeout(PATIENCE, seen.port.watch(channel.clone())).await;
        let begun = begun.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("nothing came")));
        if begun.is_ok() || wanted.elapsed() > WATCH_PROMISE {
            let begun = begun.map_err(|why| format!("to watch: {why:?}"));
            seen.called(wanted, begun, |it| &mut it.watched);
            wanted = Instant::now();
        }
        sleep(WATCH_PACE).await;
    }
}

/// Asks in turn on new connections and on one that stays.
async fn health(seen: Arc<Seen>) {
    let port = &seen.port;
    let (fresh, kept) = (port.client(false, PROMISE * 5), port.client(true, PROMISE * 5));
    let channel = port.channel();
    loop {
        let asked = Instant::now();
        well(&seen, "/health/live", asked, port.is_healthy(&fresh, "/health/live").await);
        let asked = Instant::now();
        well(&seen, "/health/ready", asked, port.is_healthy(&kept, "/health/ready").await);
        if port.is_grpc() {
            let asked = Instant::now();
            well(&seen, "gRPC health", asked, port.is_serving(channel.clone()).await);
        }
        sleep(HEALTH_PACE).await;
    }
}

fn well(seen: &Seen, what: &str, asked: Instant, answer: Result<(), String>) {
    let (took, mut sight) = (asked.elapsed(), seen.sight.lock().unwrap());
    sight.asked += 1;
    sight.health = sight.health.max(took);
    match answer {
        Ok(()) if took <= PROMISE => {}
        Ok(()) => sight.late.push(format!("{what} after {took:?}")),
        Err(why) => sight.unwell.push(format!("{what} after {took:?}: {why}")),
    }
}
