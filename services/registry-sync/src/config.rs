//! What an operator can set; `config.default.toml` is the reference.

mod source;

use std::collections::BTreeSet;
use std::time::Duration;

use grey_edge::{Port, check_tokens};
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate, access, telemetry, tls};
use serde::{Deserialize, Serialize};

use crate::mirror::{Guard, Naming};
use crate::probe;

pub use source::{Kind, Source};

/// The compiled-in defaults, with a comment on every setting.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// Most registries.
const MAX_SOURCES: usize = 32;

/// The registry mirror's configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unique among replicas; empty: chosen at random.
    pub replica: String,
    /// How long requests in flight may go on once the drain has begun.
    #[serde(with = "duration")]
    pub drain_grace: Duration,
    /// Most bytes of one request.
    pub max_request_bytes: usize,
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
    /// The registries; where two list the same instance, the earlier one counts.
    pub sources: Vec<Source>,
    /// How what they list is read.
    pub instances: Naming,
    /// What is held for confirmation.
    pub hold: Guard,
    /// How instances in question are asked themselves.
    pub probe: probe::Options,
    /// How the mirror runs.
    pub sync: Pace,
    /// The shared state; unused where the caller of [`App::bind`](crate::App::bind) brings its own.
    #[serde(default)]
    pub redis: grey_state::redis::Options,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: telemetry::Options,
}

/// How the mirror runs.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Within this time after the leader died, another replica leads.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often shared state is compared with what it should have.
    #[serde(with = "duration")]
    pub verify: Duration,
    /// How long a sync on command may take.
    #[serde(with = "duration")]
    pub trigger_timeout: Duration,
}

impl Config {
    /// The replica's name: as configured, or made up.
    pub(crate) fn replica_name(&self) -> String {
        match self.replica.as_str() {
            "" => format!("registry-sync-{}", uuid::Uuid::new_v4().simple()),
            name => name.to_owned(),
        }
    }

    fn check_sources(&self, faults: &mut Faults) {
        let how = "must name at least one registry, such as [{ name = \"files\", kind = \"file\", \
                   path = \"/etc/grey/instances.yaml\" }]";
        faults.check(!self.sources.is_empty(), "sources", how);
        faults.check(self.sources.len() <= MAX_SOURCES, "sources", format!("must be at most {MAX_SOURCES}"));
        let mut names = BTreeSet::new();
        for (at, source) in self.sources.iter().enumerate() {
            faults.section(&format!("sources.{at}"), source);
            let fresh = names.insert(source.name.as_str());
            faults.check(fresh, &format!("sources.{at}.name"), "must be unique");
        }
    }
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.replica.len() <= 128, "replica", "must have at most 128 bytes");
        let bytes = (1_024..=16 * 1_024 * 1_024).contains(&self.max_request_bytes);
        faults.check(bytes, "max_request_bytes", "must be between 1 KiB and 16 MiB");
        faults.section("grpc.limits", &self.grpc.limits);
        faults.section("http.limits", &self.http.limits);
        for (section, port) in [("grpc.limits", &self.grpc), ("http.limits", &self.http)] {
            port.limits.check_body(faults, section, self.max_request_bytes, "max_request_bytes");
        }
        faults.section("access", &self.access);
        check_tokens(faults, &self.access);
        self.check_sources(faults);
        faults.section("instances", &self.instances);
        faults.section("hold", &self.hold);
        faults.section("probe", &self.probe);
        faults.section("sync", &self.sync);
        if let Err(fault) = self.redis.validate() {
            faults.add("redis", fault.to_string());
        }
        faults.section("telemetry", &self.telemetry);
    }
}

impl Validate for Pace {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.lease >= Duration::from_millis(500), "lease", "must be at least 500ms");
        for (key, value) in [("verify", self.verify), ("trigger_timeout", self.trigger_timeout)] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
    }
}
