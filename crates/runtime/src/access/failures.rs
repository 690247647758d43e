//! Failed logins: counted, logged without flooding the log, and answered the later the more of them one client has.
//!
//! Only who fails is slowed: credentials are checked first, and whoever has the right ones is answered at once from
//! wherever. A late answer costs a timer; where too many wait already, a client is refused at once.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::Error;

/// Failures of one client that are answered at once: people mistype, and deployments change tokens.
const AT_ONCE: u32 = 10;
/// How late the first answer after those is; each later one is twice as late.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Without another failure for so long, those before are forgotten.
const MEMORY: Duration = Duration::from_secs(60);
/// Clients that are remembered; of more, some are forgotten sooner.
const CLIENTS: usize = 1_024;
/// Answers that wait at once.
const WAITING: usize = 256;
/// Time between two lines of the log.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// The failed logins of a port. A cheap handle.
#[derive(Debug, Clone)]
pub struct Failures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    port: &'static str,
    counter: Counter<u64>,
    clients: Mutex<Clients>,
    lines: Mutex<Lines>,
    waiting: Semaphore,
}

/// Why a caller is not even told why it is unauthenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts to authenticate are under way; retry later")]
pub struct TooManyFailures;

impl Failures {
    /// Those of `port`, such as `grpc`, counted by an instrument of `meter`.
    #[must_use]
    pub fn new(meter: &Meter, port: &'static str) -> Self {
        let counter = meter
            .u64_counter("grey_auth_failures")
            .with_description("Requests refused for their credentials, by port and reason.")
            .build();
        let (clients, lines) = (Mutex::new(Clients::new()), Mutex::default());
        Self(Arc::new(Inner { port, counter, clients, lines, waiting: Semaphore::new(WAITING) }))
    }

    /// Notes that a request of `client` is refused for `why`; returns when it is time to tell the client.
    ///
    /// # Errors
    /// Too many others wait to be told; the client is to be refused at once.
    pub async fn failed(self, why: Error, client: IpAddr) -> Result<(), TooManyFailures> {
        let Inner { port, counter, clients, lines, waiting } = &*self.0;
        let reason = match why {
            Error::Missing => "missing",
            Error::Malformed => "malformed",
            Error::Unknown => "unknown",
        };
        counter.add(1, &[KeyValue::new("port", *port), KeyValue::new("reason", reason)]);
        if why == Error::Missing {
            // Nothing can be guessed without guessing.
            return Ok(());
        }
        let now = Instant::now();
        let line = locked(lines).next(now);
        if let Some(left_out) = line {
            tracing::warn!(
                server.port = port,
                client.address = %client,
                error = %why,
                left_out,
                "refused a caller"
            );
        }
        let delay = locked(clients).another(client, now);
        if delay.is_zero() {
            return Ok(());
        }
        let _waits = waiting.try_acquire().map_err(|_| TooManyFailures)?;
        sleep(delay).await;
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held cannot have left anything half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often clients have failed. Each has its place by its address, hashed so that nobody can choose a neighbour.
#[derive(Debug)]
struct Clients {
    places: Box<[Option<Client>]>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Client {
    network: IpAddr,
    failures: u32,
    last: Instant,
}

impl Clients {
    fn new() -> Self {
        Self { places: (0..CLIENTS).map(|_| None).collect(), hasher: RandomState::new() }
    }

    /// Counts a failure; how late it is to be answered.
    fn another(&mut self, address: IpAddr, now: Instant) -> Duration {
        let network = network(address);
        #[expect(clippy::cast_possible_truncation, reason = "smaller than the number of places")]
        let place = (self.hasher.hash_one(network) % CLIENTS as u64) as usize;
        let Some(place) = self.places.get_mut(place) else { return LONGEST_DELAY };
        let known = place.as_ref().filter(|known| known.network == network && now < known.last + MEMORY);
        let failures = known.map_or(0, |known| known.failures).saturating_add(1);
        *place = Some(Client { network, failures, last: now });
        delay(failures)
    }
}

fn delay(failures: u32) -> Duration {
    match failures.checked_sub(AT_ONCE + 1) {
        None => Duration::ZERO,
        Some(late) => FIRST_DELAY.saturating_mul(1 << late.min(8)).min(LONGEST_DELAY),
    }
}

/// What one client has: an address, or with IPv6 a network of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// When a line was written last, and how many were left out since.
#[derive(Debug, Default)]
struct Lines {
    last: Option<Instant>,
    left_out: u64,
}

impl Lines {
    /// How many were left out before this one; none if it is left out as well.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + LOG_PAUSE) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn failures() -> Failures {
        Failures::new(&opentelemetry::global::meter("test"), "grpc")
    }

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_fails_again_and_again_is_answered_ever_later() {
        let (mut clients, now) = (Clients::new(), Instant::now());
        let mut delays = |address: &str, at: u64, count: usize| -> Vec<u128> {
            let at = now + Duration::from_secs(at);
            (0..count).map(|_| clients.another(client(address), at).as_millis()).collect()
        };
        assert_eq!(delays("192.0.2.1", 0, 10), [0; 10]);
        assert_eq!(delays("192.0.2.1", 59, 7), [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        assert_eq!(delays("::ffff:192.0.2.1", 59, 1), [5_000], "the same address");
        assert_eq!(delays("192.0.2.1", 119, 1), [0], "forgotten");
        assert_eq!(delays("2001:db8:1:2::7", 0, 10), [0; 10]);
        assert_eq!(delays("2001:db8:1:2:ffff::1", 0, 1), [250], "the same network");
        assert_eq!(delays("2001:db8:1:3::7", 0, 1), [0], "another one");
        assert_eq!(delay(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn the_log_has_a_line_a_second_and_tells_how_many_it_lacks() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let mut at = |ms| lines.next(now + Duration::from_millis(ms));
        assert_eq!(
            [0, 1, 999, 1_000, 1_500, 9_000].map(&mut at),
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn answers_wait_and_when_too_many_do_there_is_no_waiting() {
        let (failures, begin) = (failures(), Instant::now());
        for _ in 0..AT_ONCE {
            failures.clone().failed(Error::Unknown, client("192.0.2.1")).await.unwrap();
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
        failures.clone().failed(Error::Malformed, client("192.0.2.1")).await.unwrap();
        assert!(begin.elapsed() >= FIRST_DELAY);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut waiting: Vec<_> = (0..WAITING)
            .map(|_| Box::pin(failures.clone().failed(Error::Unknown, client("192.0.2.1"))))
            .collect();
        assert!(waiting.iter_mut().all(|one| one.as_mut().poll(cx).is_pending()));
        let next = failures.clone().failed(Error::Unknown, client("192.0.2.1"));
        assert_eq!(pin!(next).poll(cx), Poll::Ready(Err(TooManyFailures)));
        let other = failures.clone().failed(Error::Unknown, client("192.0.2.2"));
        assert_eq!(pin!(other).poll(cx), Poll::Ready(Ok(())), "who has not failed before need not wait");
        drop(waiting);
        failures.failed(Error::Unknown, client("192.0.2.1")).await.unwrap();
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            locked(&self.0).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_tells_who_failed_and_where() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let failures = failures();
        let cx = &mut Context::from_waker(Waker::noop());
        tracing::subscriber::with_default(subscriber, || {
            for why in [Error::Missing, Error::Unknown, Error::Malformed, Error::Unknown] {
                let failed = failures.clone().failed(why, client("192.0.2.1"));
                assert_eq!(pin!(failed).poll(cx), Poll::Ready(Ok(())));
            }
        });
        let lines = String::from_utf8(locked(&log.0).clone()).unwrap();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        for part in
            ["WARN", "server.port=\"grpc\"", "client.address=192.0.2.1", "unknown bearer token", "left_out=0"]
        {
            assert!(lines.contains(part), "{part} in {lines}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_token_is_told_at_once() {
        let (failures, begin) = (failures(), Instant::now());
        for _ in 0..100 {
            failures.clone().failed(Error::Missing, client("192.0.2.1")).await.unwrap();
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
