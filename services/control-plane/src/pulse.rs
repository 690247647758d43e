//! Looks once a second: whether this replica can serve, how far the routers' view is behind, which routers there are, and
//! whether a strict move was left behind.

mod overdue;

pub(crate) use overdue::Overdue;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use grey_core::change::Position;
use grey_runtime::Health;
use grey_state::publisher;
use opentelemetry::metrics::Meter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::command::{NO_ROOM, chain};
use crate::database::Database;
use crate::fleet::Watch;

const EVERY: Duration = Duration::from_secs(1);

/// What the gauges show.
#[derive(Debug, Default)]
struct Seen {
    head: AtomicU64,
    lag: AtomicU64,
    lag_ms: AtomicU64,
}

/// The look.
pub(crate) struct Pulse {
    database: Database,
    publisher: publisher::Handle,
    health: Health,
    seen: Arc<Seen>,
    routers: Watch,
    overdue: Overdue,
}

impl Pulse {
    pub(crate) fn new(
        database: Database,
        publisher: publisher::Handle,
        health: Health,
        meter: &Meter,
        routers: Watch,
        overdue: Overdue,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        gauges(meter, &seen, &publisher);
        Self { database, publisher, health, seen, routers, overdue }
    }

    /// Looks until `token` is cancelled. No look waits for another.
    pub(crate) async fn run(self, token: CancellationToken) {
        let Self { database, publisher, health, seen, routers, overdue } = self;
        let log = Log { database, publisher, health, seen };
        tokio::join!(log.run(token.clone()), routers.run(token.clone()), overdue.run(token));
    }
}

/// The look at the log.
struct Log {
    database: Database,
    publisher: publisher::Handle,
    health: Health,
    seen: Arc<Seen>,
}

impl Log {
    async fn run(self, token: CancellationToken) {
        let mut behind_since: Option<Instant> = None;
        loop {
            match self.database.head().await {
                Ok(head) => {
                    self.tell_room().await;
                    self.seen.head.store(head.revision.0, Relaxed);
                    self.follow(&head, &mut behind_since);
                }
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "control database is out of reach");
                    self.health.set_not_ready("the control database does not answer");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = token.cancelled() => return,
            }
        }
    }

    /// Takes no writes where there is no room for them.
    async fn tell_room(&self) {
        match self.database.check_room().await {
            Ok(()) => self.health.set_ready(true),
            Err(error) if error.is_full() => self.health.set_not_ready(NO_ROOM),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "control database takes no writes");
                self.health.set_not_ready("the control database takes no writes");
            }
        }
    }

    /// Notes how far the publication is behind the log.
    fn follow(&self, head: &Position, behind_since: &mut Option<Instant>) {
        let leading = self.publisher.is_leading();
        let lag = if leading { head.revision.0.saturating_sub(self.publisher.published().0) } else { 0 };
        *behind_since = (lag > 0).then(|| behind_since.unwrap_or_else(Instant::now));
        let age = behind_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.seen.lag.store(lag, Relaxed);
        self.seen.lag_ms.store(u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Relaxed);
        let text = match (leading, self.publisher.fault(), lag) {
            (false, _, _) => "standing by".to_owned(),
            (true, Some(fault), _) => format!("leading, {lag} events behind, not publishing: {fault}"),
            (true, None, 0) => "leading".to_owned(),
            (true, None, lag) => format!("leading, {lag} events behind for {}s", age.as_secs()),
        };
        self.health.set_detail("publisher", text);
    }
}

fn gauges(meter: &Meter, seen: &Arc<Seen>, publisher: &publisher::Handle) {
    let gauge = |name: &'static str, what: &'static str, read: fn(&Seen) -> u64| {
        let seen = Arc::clone(seen);
        let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            observer.observe(read(&seen), &[]);
        };
        // The meter keeps the callback; the instrument itself is not needed.
        meter.u64_observable_gauge(name).with_description(what).with_callback(observe).build();
    };
    gauge("grey_control_log_revision", "The newest committed revision.", |seen| seen.head.load(Relaxed));
    gauge(
        "grey_control_publisher_lag_revisions",
        "Events committed but not in the feed yet; on the leader.",
        |seen| seen.lag.load(Relaxed),
    );
    gauge(
        "grey_control_publisher_lag_ms",
        "How long there have been such events, in milliseconds.",
        |seen| seen.lag_ms.load(Relaxed),
    );
    let handle = publisher.clone();
    let leads =
        meter.u64_observable_gauge("grey_control_publisher_leading").with_description("1 on the leader.");
    leads.with_callback(move |observer| observer.observe(u64::from(handle.is_leading()), &[])).build();
    let handle = publisher.clone();
    let failures = meter
        .u64_observable_counter("grey_control_publisher_failures")
        .with_description("Times that publishing was interrupted by an error.");
    failures.with_callback(move |observer| observer.observe(handle.failures(), &[])).build();
    let handle = publisher.clone();
    let rebuilds = meter
        .u64_observable_counter("grey_control_publisher_rebuilds")
        .with_description("Times that this replica rebuilt the projection.");
    rebuilds.with_callback(move |observer| observer.observe(handle.rebuilds(), &[])).build();
    let handle = publisher.clone();
    let repairs = meter.u64_observable_counter("grey_control_publisher_repairs").with_description(
        "Damaged records and index members of the projection that this replica wrote anew.",
    );
    repairs.with_callback(move |observer| observer.observe(handle.repairs(), &[])).build();
}
