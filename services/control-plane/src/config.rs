//! What an operator can set; `config.default.toml` is the reference.

use std::time::Duration;

use grey_edge::{Port, check_tokens, client};
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate, access, telemetry, tls};
use grey_state::publisher;
use serde::{Deserialize, Serialize};

use crate::{api, command, fleet};

/// The compiled-in defaults, with a comment on every setting.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The control plane's configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unique among replicas; empty: chosen at random.
    pub replica: String,
    /// How long requests in flight may go on once the drain has begun.
    #[serde(with = "duration")]
    pub drain_grace: Duration,
    /// The port for gRPC.
    pub grpc: Port,
    /// The port for REST and operators.
    pub http: Port,
    /// Encrypts both ports; none: they are plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ServerOptions>,
    /// Who may call.
    #[serde(default)]
    pub access: access::Options,
    /// The truth.
    pub database: grey_database::Options,
    /// Seals the credentials of tenants' databases.
    #[serde(default)]
    pub vault: grey_vault::Options,
    /// Where tenants' databases may be.
    #[serde(default)]
    pub tenant_databases: grey_database_url::Rules,
    /// Upgrades the tenants' databases; an empty URL: nobody does.
    pub migrator: client::Options,
    /// How routers that fell silent are asked whether they are still there.
    pub routers: fleet::Options,
    /// How writes queue.
    pub commands: command::Options,
    /// What one caller may take.
    pub limits: api::Limits,
    /// What reads of the past may take: explanations, and events as much again.
    pub history: api::LaneOptions,
    /// What listings may take.
    pub lists: api::LaneOptions,
    /// How the log is brought to the routers.
    pub publisher: Publisher,
    /// The shared state; unused where the caller of [`App::bind`](crate::App::bind) brings its own.
    #[serde(default)]
    pub redis: grey_state::redis::Options,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: telemetry::Options,
}

/// How the log is brought to the routers.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Publisher {
    /// How long the lead lasts without renewal.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often the log is looked at for commits of other replicas.
    #[serde(with = "duration")]
    pub poll: Duration,
    /// How often feed and projection are compared with the log.
    #[serde(with = "duration")]
    pub check: Duration,
    /// How often every record of the projection is compared.
    #[serde(with = "duration")]
    pub deep_check: Duration,
    /// Most events taken from the log at once.
    pub batch: usize,
}

impl Publisher {
    /// For the replica called `holder`.
    pub(crate) fn options(&self, holder: &str) -> publisher::Options {
        publisher::Options {
            lease: self.lease,
            poll: self.poll,
            check: self.check,
            deep_check: self.deep_check,
            batch: self.batch,
            ..publisher::Options::new(holder)
        }
    }
}

impl Config {
    /// The replica's name: as configured, or made up.
    pub(crate) fn replica_name(&self) -> String {
        match self.replica.as_str() {
            "" => format!("control-plane-{}", uuid::Uuid::new_v4().simple()),
            name => name.to_owned(),
        }
    }
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.replica.len() <= 128, "replica", "must have at most 128 bytes");
        faults.section("grpc.limits", &self.grpc.limits);
        faults.section("http.limits", &self.http.limits);
        for (section, port) in [("grpc.limits", &self.grpc), ("http.limits", &self.http)] {
            port.limits.check_body(
                faults,
                section,
                self.limits.max_request_bytes,
                "limits.max_request_bytes",
            );
        }
        faults.section("access", &self.access);
        check_tokens(faults, &self.access);
        faults.section("database", &self.database);
        faults.section("vault", &self.vault);
        faults.section("tenant_databases", &self.tenant_databases);
        if self.migrator.url.is_empty() {
            faults.check(self.migrator.tls.is_none(), "migrator.tls", "needs an https:// url");
        } else {
            faults.section("migrator", &self.migrator);
        }
        faults.section("routers", &self.routers);
        faults.section("commands", &self.commands);
        faults.section("limits", &self.limits);
        faults.section("history", &self.history);
        faults.section("lists", &self.lists);
        faults.section("publisher", &self.publisher);
        if let Err(fault) = self.redis.validate() {
            faults.add("redis", fault.to_string());
        }
        faults.section("telemetry", &self.telemetry);
    }
}

impl Validate for Publisher {
    fn validate(&self, faults: &mut Faults) {
        faults.check((1..=10_000).contains(&self.batch), "batch", "must be between 1 and 10000");
        faults.check(!self.poll.is_zero(), "poll", "must be longer than nothing");
        faults.check(self.lease >= self.poll * 2, "lease", "must be at least twice as long as poll");
        for (key, value) in [("check", self.check), ("deep_check", self.deep_check)] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
    }
}
