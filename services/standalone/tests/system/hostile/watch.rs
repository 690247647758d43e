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
/// Between two calls of a client.
const PACE: Duration = Duration::from_millis(5);
/// Between two questions how the service is.
const HEALTH_PACE: Duration = Duration::from_millis(50);
const SAMPLE: Duration = Duration::from_millis(10);

/// The clients of a port, until dropped.
pub(super) struct Watch {
    seen: Arc<Seen>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// What was seen since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// How long calls took on a connection that stays, and with one made for each call.
    pub(super) kept: Vec<Duration>,
    pub(super) fresh: Vec<Duration>,
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
    pub(super) fn start(port: &Arc<Port>) -> Self {
        let seen = Arc::new(Seen {
            port: Arc::clone(port),
            sight: Mutex::default(),
            peak: AtomicU64::new(resident(port.process)),
        });
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        for work in [kept(seen.clone()).boxed(), fresh(seen.clone()).boxed(), health(seen.clone()).boxed()] {
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
        Self { seen, stop, tasks }
    }

    /// Waits until each client has made so many calls since the last look, or `is_enough`.
    pub(super) async fn until_called(&self, calls: usize, is_enough: impl Fn() -> bool) {
        let called = || {
            let sight = self.seen.sight.lock().unwrap();
            sight.kept.len() >= calls && sight.fresh.len() >= calls && sight.asked > 0
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
    loop {
        let asked = Instant::now();
        let answer = call(&seen.port, channel.clone(), &client).await;
        seen.called(asked, answer.map_err(|why| format!("on a kept connection: {why}")), |it| &mut it.kept);
        sleep(PACE).await;
    }
}

async fn fresh(seen: Arc<Seen>) {
    let client = seen.port.client(false, PATIENCE);
    loop {
        let channel = seen.port.channel();
        let asked = Instant::now();
        let answer = call(&seen.port, channel, &client).await;
        seen.called(asked, answer.map_err(|why| format!("on a new connection: {why}")), |it| &mut it.fresh);
        sleep(PACE).await;
    }
}

async fn call(
    port: &Port,
    channel: tonic::transport::Channel,
    client: &reqwest::Client,
) -> Result<(), String> {
    let answer = async {
        if port.is_grpc() {
            port.call(channel).await.map_err(|status| format!("{status:?}"))
        } else {
            port.get(client).await
        }
    };
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err("no answer".to_owned()))
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
