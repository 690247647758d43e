//! What an operator can set; `config.default.toml` is the reference.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use grey_core::ids::{InstanceId, Name};
use grey_core::text::{NOT_PLAIN, is_plain};
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate, access, server, telemetry, tls};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// The compiled-in defaults, with a comment on every setting.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The router's configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who and where the router is.
    pub router: Identity,
    /// The port for decisions.
    pub grpc: Grpc,
    /// The port for HTTP callers and operators.
    pub http: Http,
    /// Encrypts both ports; none: they are plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ServerOptions>,
    /// Who may call.
    #[serde(default)]
    pub access: access::Options,
    /// How the table is kept up to date.
    pub feed: Feed,
    /// How the router announces itself.
    pub heartbeat: Heartbeat,
    /// The file that the router starts from when shared state is away.
    pub snapshot: Snapshot,
    /// How watchers are served.
    pub watch: Watch,
    /// What one caller may ask for.
    pub limits: Limits,
    /// Who may report outcomes of calls, and what is believed of them.
    pub report: Report,
    /// The shared state; unused where the caller of [`App::bind`](crate::App::bind) brings its own.
    #[serde(default)]
    pub redis: grey_state::redis::Options,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: telemetry::Options,
}

/// Who and where the router is.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Unique among live routers; empty: chosen at random.
    pub id: String,
    /// The region of calls that do not name one; may be empty.
    pub region: String,
    /// The zone of calls that do not name one; may be empty.
    pub zone: String,
    /// Where others reach the gRPC port, as `host:port`; empty: the address that it listens on.
    pub advertise: String,
}

/// The port for decisions.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grpc {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Threads that decide; 0: one per core.
    pub threads: usize,
    /// How it treats connections.
    #[serde(default)]
    pub server: server::Options,
}

/// The port for HTTP callers and operators.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What its clients may take.
    #[serde(default)]
    pub limits: server::http::Limits,
}

/// How the table is kept up to date.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Past revisions kept for Explain.
    pub history: usize,
    /// Events read at once.
    pub batch: usize,
    /// How long one read waits for news.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// Time without a sign of life of the publisher after which answers are marked stale.
    #[serde(with = "duration")]
    pub stale_after: Duration,
}

/// How the router announces itself.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Time between heartbeats when nothing changes; each new revision is announced at once.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// How long a heartbeat counts.
    #[serde(with = "duration")]
    pub ttl: Duration,
}

/// The file that the router starts from when shared state is away.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The file, in a directory of this router alone; none: nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Time between two writes, if anything changed.
    #[serde(with = "duration")]
    pub interval: Duration,
}

/// How watchers are served.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Time between two frames that tell how the router stands.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// Bytes of recent events and lists that are kept for watchers, all of them together.
    pub recent_bytes: usize,
}

/// Who may report outcomes of calls, and what is believed of them.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Roles whose reports are taken; without tokens everyone's are.
    pub roles: Vec<String>,
    /// A call that took longer counts as this long.
    #[serde(with = "duration")]
    pub longest_call: Duration,
}

impl Config {
    /// The router's id: as configured, or made up.
    pub(crate) fn router_id(&self) -> String {
        match self.router.id.as_str() {
            "" => format!("router-{}", uuid::Uuid::new_v4().simple()),
            id => id.to_owned(),
        }
    }
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.section("router", &self.router);
        faults.section("grpc.server", &self.grpc.server);
        faults.section("http.limits", &self.http.limits);
        faults.section("access", &self.access);
        for (index, token) in self.access.tokens.iter().enumerate() {
            faults.check(is_plain(&token.name), &format!("access.tokens.{index}.name"), NOT_PLAIN);
        }
        faults.section("feed", &self.feed);
        faults.section("heartbeat", &self.heartbeat);
        faults.section("watch", &self.watch);
        faults.section("limits", &self.limits);
        faults.section("report", &self.report);
        if let Err(fault) = self.redis.validate() {
            faults.add("redis", fault.to_string());
        }
        faults.section("telemetry", &self.telemetry);
        faults.check(
            self.feed.stale_after <= self.heartbeat.ttl,
            "feed.stale_after",
            "must be at most heartbeat.ttl: whoever is not counted as live must not call itself current",
        );
        let bytes = self.limits.batch_bytes.max(self.limits.call_bytes);
        let (key, allowed_by) = ("grpc.server.body_budget_bytes", "limits.batch_bytes and limits.call_bytes");
        server::check_body(faults, key, self.grpc.server.body_budget_bytes, bytes, allowed_by);
        self.http.limits.check_body(faults, "http.limits", bytes, allowed_by);
        faults.check(self.grpc.threads <= 1024, "grpc.threads", "must be at most 1024");
        faults.check(!self.snapshot.interval.is_zero(), "snapshot.interval", "must be longer than nothing");
    }
}

impl Validate for Identity {
    fn validate(&self, faults: &mut Faults) {
        if !self.id.is_empty()
            && let Err(refused) = InstanceId::new(&self.id)
        {
            faults.add("id", refused.to_string());
        }
        for (key, name) in [("region", &self.region), ("zone", &self.zone)] {
            if !name.is_empty()
                && let Err(refused) = Name::new(name)
            {
                faults.add(key, refused.to_string());
            }
        }
        let plain = self.advertise.is_empty() || self.advertise.contains(':');
        faults.check(plain, "advertise", "must be host:port");
    }
}

impl Validate for Feed {
    fn validate(&self, faults: &mut Faults) {
        faults.check((1..=10_000).contains(&self.history), "history", "must be between 1 and 10000");
        faults.check((1..=10_000).contains(&self.batch), "batch", "must be between 1 and 10000");
        faults.check(!self.wait.is_zero(), "wait", "must be longer than nothing");
        faults.check(self.stale_after > self.wait, "stale_after", "must be longer than wait");
    }
}

impl Validate for Heartbeat {
    fn validate(&self, faults: &mut Faults) {
        faults.check(!self.interval.is_zero(), "interval", "must be longer than nothing");
        faults.check(self.ttl > self.interval, "ttl", "must be longer than interval");
    }
}

impl Validate for Watch {
    fn validate(&self, faults: &mut Faults) {
        let sane = (Duration::from_millis(100)..=Duration::from_secs(600)).contains(&self.heartbeat);
        faults.check(sane, "heartbeat", "must be between 100ms and 10m");
        let sane = (64 << 10..=1 << 30).contains(&self.recent_bytes);
        faults.check(sane, "recent_bytes", "must be between 65536 and 1073741824");
    }
}

impl Validate for Report {
    fn validate(&self, faults: &mut Faults) {
        let sane = !self.longest_call.is_zero() && self.longest_call <= Duration::from_secs(3_600);
        faults.check(sane, "longest_call", "must be longer than nothing and at most 1h");
        for (index, role) in self.roles.iter().enumerate() {
            faults.check(!role.trim().is_empty(), &format!("roles.{index}"), "must not be empty");
        }
    }
}
