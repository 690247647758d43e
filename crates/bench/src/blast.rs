//! The load generator: hand-framed HTTP/2 on one thread of its own, several times cheaper than any server it measures.
//!
//! A generator that is slower than the server measures itself: a general gRPC client costs as much per call as the
//! server does. This one writes prepared messages behind prepared headers and only counts and checks what comes back.
//! It never waits: it turns between its connections, which makes its clock exact and its core busy.

mod connection;
mod frame;

use crate::cores;
use anyhow::{Context as _, Result, ensure};
use connection::{Connection, Reply};
use hdrhistogram::Histogram;
use std::future::poll_fn;
use std::iter::Cycle;
use std::net::SocketAddr;
use std::slice::Iter;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Calls in flight on one connection when an open loop falls behind; servers here allow 1,024.
const OPEN_LIMIT: usize = 512;
/// Longest wait for the answers that are still out when time is up.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// How calls are laid onto a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// A stream per call.
    Unary,
    /// One stream, a message per call, answers in order.
    Stream,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// The method's path.
    pub(crate) path: &'static str,
    /// How calls are laid onto a connection.
    pub(crate) shape: Shape,
    /// Encoded messages with their prefixes, sent in turn.
    pub(crate) messages: Arc<[Box<[u8]>]>,
}

/// When it is sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Load {
    /// Each connection keeps so many calls in flight.
    Closed(usize),
    /// Calls arrive at random times, so many per second over all connections, whatever became of earlier ones.
    Open(f64),
}

/// Calls that nobody measures, on a connection of their own, in a closed loop.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    pub(crate) traffic: Traffic,
    pub(crate) in_flight: usize,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The server.
    pub(crate) addr: SocketAddr,
    /// Connections.
    pub(crate) connections: usize,
    /// When calls are sent.
    pub(crate) load: Load,
    /// What keeps the server busy besides.
    pub(crate) beside: Option<Beside>,
    /// Time before anything counts.
    pub(crate) warm_up: Duration,
    /// Time that counts.
    pub(crate) measured: Duration,
}

/// What came out of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Good answers per second.
    pub(crate) per_second: f64,
    /// From the time at which a call should have been sent to its answer, in nanoseconds.
    pub(crate) latency: Histogram<u32>,
    /// Processor time of each watched process per second, in the order given.
    pub(crate) busy: Vec<f64>,
}

/// Runs on a thread of its own, on the generator's core; `watched` are the processes whose processor time counts.
///
/// # Errors
/// The server is away, answers wrongly, or an open loop is so far behind that its latencies mean nothing.
pub(crate) fn run(run: &Run, traffic: &Traffic, watched: &[u32]) -> Result<Outcome> {
    let work = || {
        cores::pin(cores::Side::Generator)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(drive(run, traffic, watched))
    };
    std::thread::scope(|scope| scope.spawn(work).join().expect("the generator does not panic"))
}

async fn drive(run: &Run, traffic: &Traffic, watched: &[u32]) -> Result<Outcome> {
    let mut connections = Vec::with_capacity(run.connections);
    for _ in 0..run.connections {
        connections.push(Connection::open(run.addr, traffic.path, traffic.shape).await?);
    }
    let mut messages = traffic.messages.iter().cycle();
    let mut beside = match &run.beside {
        Some(beside) => Some(Companion::open(run.addr, beside).await?),
        None => None,
    };
    let mut latency = Histogram::<u32>::new_with_bounds(1_000, 60_000_000_000, 3)?;
    let (mut good, mut bad, mut unsent) = (0u64, 0u64, 0u64);

    let begin = Instant::now();
    let (from, until) = (begin + run.warm_up, begin + run.warm_up + run.measured);
    let mut busy_from = None;
    let mut arrivals = Arrivals::new(begin, run.load);
    let mut next_connection = 0;
    let mut now = begin;
    while now < until {
        if busy_from.is_none() && now >= from {
            busy_from = Some(cores::processor_times(watched)?);
        }
        match run.load {
            Load::Closed(in_flight) => {
                for connection in &mut connections {
                    while connection.in_flight() < in_flight {
                        let message = messages.next().context("choose a message")?;
                        if !connection.call(message, now) {
                            break;
                        }
                    }
                }
            }
            Load::Open(_) => {
                while arrivals.next <= now {
                    next_connection = (next_connection + 1) % connections.len();
                    let connection = &mut connections[next_connection];
                    let message = messages.next().context("choose a message")?;
                    if connection.in_flight() >= OPEN_LIMIT || !connection.call(message, arrivals.next) {
                        break;
                    }
                    arrivals.advance();
                }
            }
        }
        if let Some(companion) = &mut beside {
            companion.go_on(now).await?;
        }
        turn(&mut connections, |reply| {
            let end = Instant::now();
            if end < from || end >= until {
                return;
            }
            good += u64::from(reply.good);
            bad += u64::from(!reply.good);
            let nanos = end.saturating_duration_since(reply.intended).as_nanos();
            latency.saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
        })
        .await?;
        now = Instant::now();
    }
    let after = cores::processor_times(watched)?;
    while arrivals.next < until && matches!(run.load, Load::Open(_)) {
        unsent += 1;
        arrivals.advance();
    }
    let seconds = run.measured.as_secs_f64();
    let busy = busy_from.context("measure for some time")?;
    let busy = busy
        .iter()
        .zip(&after)
        .map(|(before, after)| after.saturating_sub(*before).as_secs_f64() / seconds)
        .collect();
    ensure!(good > 0, "no good answer came from {}", run.addr);
    ensure!(bad == 0, "{bad} of {} answers of {} are wrong", good + bad, run.addr);
    ensure!(unsent * 20 < good, "{unsent} calls were not sent in time, {good} were answered");
    drain(&mut connections).await?;
    if let Some(companion) = beside {
        companion.end().await?;
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 calls")]
    let per_second = good as f64 / seconds;
    Ok(Outcome { per_second, latency, busy })
}

/// Who keeps the server busy.
struct Companion<'a> {
    /// One.
    connections: [Connection; 1],
    messages: Cycle<Iter<'a, Box<[u8]>>>,
    in_flight: usize,
    answered: u64,
}

impl<'a> Companion<'a> {
    async fn open(addr: SocketAddr, beside: &'a Beside) -> Result<Self> {
        let Beside { traffic, in_flight } = beside;
        let connections = [Connection::open(addr, traffic.path, traffic.shape).await?];
        let messages = traffic.messages.iter().cycle();
        Ok(Self { connections, messages, in_flight: *in_flight, answered: 0 })
    }

    async fn go_on(&mut self, now: Instant) -> Result<()> {
        let [connection] = &mut self.connections;
        while connection.in_flight() < self.in_flight {
            let message = self.messages.next().context("choose a message")?;
            if !connection.call(message, now) {
                break;
            }
        }
        let answered = &mut self.answered;
        turn(&mut self.connections, |reply| *answered += u64::from(reply.good)).await
    }

    async fn end(mut self) -> Result<()> {
        ensure!(self.answered > 0, "nothing was answered beside the measured calls");
        drain(&mut self.connections).await
    }
}

/// Waits for the answers that are out, so that the next run finds an idle server.
async fn drain(connections: &mut [Connection]) -> Result<()> {
    let end = Instant::now() + LAST_ANSWERS;
    while connections.iter().any(|connection| connection.in_flight() > 0) {
        ensure!(Instant::now() < end, "the last answers did not come within {LAST_ANSWERS:?}");
        turn(connections, |_| {}).await?;
    }
    Ok(())
}

/// One turn over all connections, then a look at the sockets.
async fn turn(connections: &mut [Connection], mut take: impl FnMut(Reply)) -> Result<()> {
    poll_fn(|cx| {
        let turned = connections.iter_mut().try_for_each(|connection| connection.turn(cx, &mut take));
        Poll::Ready(turned)
    })
    .await?;
    tokio::task::yield_now().await;
    Ok(())
}

/// Arrival times at random, the same in each run of the same rate.
struct Arrivals {
    next: Instant,
    mean: f64,
    state: u64,
}

impl Arrivals {
    fn new(begin: Instant, load: Load) -> Self {
        let mean = match load {
            Load::Open(per_second) => 1.0 / per_second,
            Load::Closed(_) => 1.0,
        };
        Self { next: begin, mean, state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn advance(&mut self) {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        #[expect(clippy::cast_precision_loss, reason = "53 random bits")]
        let uniform = (self.state >> 11) as f64 / (1u64 << 53) as f64;
        self.next += Duration::from_secs_f64(self.mean * -(1.0 - uniform).ln());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
    use super::*;
    use crate::servers::test_echo;
    use crate::world::USUAL;
    use crate::yardsticks::{ROUTE, ROUTE_BATCH, traffic};
    use tokio_util::sync::CancellationToken;

    fn short(addr: SocketAddr, load: Load) -> Run {
        let (warm_up, measured) = (Duration::from_millis(20), Duration::from_millis(200));
        Run { addr, connections: 3, load, beside: None, warm_up, measured }
    }

    /// The first measurement for which the machine had the time.
    fn measured(load: &Run, traffic: &Traffic, watched: &[u32]) -> Outcome {
        let is_late = |error: &anyhow::Error| error.to_string().contains("not sent in time");
        let mut outcomes = (0..50).map(|_| run(load, traffic, watched));
        outcomes.find(|outcome| !outcome.as_ref().is_err_and(is_late)).unwrap().unwrap()
    }

    #[test]
    fn calls_beside_are_made_and_not_counted() {
        let stop = CancellationToken::new();
        let addr = test_echo(stop.clone());
        let traffic = traffic(ROUTE, Shape::Unary, USUAL.calls(64).into_iter());
        let beside = Some(Beside { traffic: traffic.clone(), in_flight: 4 });
        let outcome = measured(&Run { beside, ..short(addr, Load::Open(500.0)) }, &traffic, &[]);
        assert!(outcome.per_second < 1_000.0, "{}", outcome.per_second);
        stop.cancel();
    }

    #[test]
    fn answers_are_counted_in_closed_and_open_loops() {
        let stop = CancellationToken::new();
        let addr = test_echo(stop.clone());
        let traffic = traffic(ROUTE, Shape::Unary, USUAL.calls(64).into_iter());
        for load in [Load::Closed(5), Load::Open(500.0)] {
            let outcome = measured(&short(addr, load), &traffic, &[std::process::id()]);
            assert!(outcome.per_second > 0.0, "{load:?}");
            assert!(!outcome.latency.is_empty() && outcome.busy.len() == 1, "{load:?}");
        }
        stop.cancel();
    }

    #[test]
    fn an_answer_with_an_error_status_is_no_answer() {
        let stop = CancellationToken::new();
        let addr = test_echo(stop.clone());
        let absent = traffic(ROUTE_BATCH, Shape::Unary, USUAL.calls(64).into_iter());
        let refused = run(&short(addr, Load::Closed(2)), &absent, &[]).unwrap_err();
        assert!(refused.to_string().contains("no good answer"), "{refused}");
        stop.cancel();
    }
}
