//! Upgrades as durable jobs: queued, taken under a lease by one replica at a time, taken over when that one dies.
//!
//! What an upgrade has done to a tenant's database is known to that database alone, in its history and journal. The
//! queue knows what was asked for and what was told; a replica that takes an upgrade over finds out the rest.

mod database;
mod execution;
mod follow_up;
mod last;
mod lease;
mod observed;
mod queue;
mod record;
mod watch;
mod worker;

pub use database::{Database, Error, Options as DatabaseOptions};
pub use follow_up::FollowUp;
pub use last::Unfinished;
pub use lease::{Ended, Lease, Limits, Progress, Taken};
pub use observed::{Observed, Seen};
pub use queue::{Filter, Queue, Refused, Wanted};
pub use record::{Job, has_ended};
pub use watch::watch;
pub use worker::Worker;

pub(crate) use record::timestamp;

use grey_runtime::config::{Faults, Validate, duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Whose upgrade it is, for logs.
#[derive(Debug, Clone)]
pub struct UpgradeLabels {
    /// The upgrade.
    pub upgrade: String,
    /// The tenant.
    pub tenant: String,
    /// The service.
    pub service: String,
}

/// How upgrades are run.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Upgrades that all replicas together run at the same time.
    pub concurrency: u32,
    /// Upgrades that all replicas together run on one database server.
    pub per_server: u32,
    /// How long an upgrade stays with a replica that does not renew its lease.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often leases are renewed, and whether someone asks to stop is looked at.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// How often the queue is looked at for what other replicas have put there or left behind.
    #[serde(with = "duration")]
    pub poll: Duration,
    /// How long an upgrade may take unless the request says.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The longest time that a request may ask for.
    #[serde(with = "duration")]
    pub max_timeout: Duration,
    /// How long taking back what a failed upgrade has done may take.
    #[serde(with = "duration")]
    pub undo_timeout: Duration,
    /// Time between two saves of how far an upgrade is, unless a step begins or ends.
    #[serde(with = "duration")]
    pub save_every: Duration,
    /// How long ended upgrades are kept.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// Streams of one upgrade's changes that are open at the same time.
    pub max_watchers: usize,
}

impl Options {
    /// How many upgrades run at the same time.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { overall: self.concurrency, per_server: self.per_server }
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        faults.check((1..=1_000).contains(&self.concurrency), "concurrency", "must be between 1 and 1000");
        faults.check((1..=1_000).contains(&self.per_server), "per_server", "must be between 1 and 1000");
        faults.check(self.lease >= self.heartbeat * 3, "lease", "must be at least three times heartbeat");
        faults.check(self.max_timeout >= self.timeout, "max_timeout", "must be at least timeout");
        faults.check(
            (1..=10_000).contains(&self.max_watchers),
            "max_watchers",
            "must be between 1 and 10000",
        );
        for (key, value) in [
            ("heartbeat", self.heartbeat),
            ("poll", self.poll),
            ("timeout", self.timeout),
            ("undo_timeout", self.undo_timeout),
            ("save_every", self.save_every),
            ("retention", self.retention),
        ] {
            faults.check(value >= Duration::from_millis(1), key, "must be at least 1ms");
        }
    }
}
