//! What an operator can set; `config.default.toml` is the reference.

use std::time::Duration;

use grey_core::tenant::TenantStatus;
use grey_edge::{Port, check_tokens, client};
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate, access, telemetry, tls};
use serde::{Deserialize, Serialize};

use crate::diff::Rules;
use crate::{control, mapping, source, sync, webhook};

/// The compiled-in defaults, with a comment on every setting.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The configuration of tenant-sync.
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
    /// The port for REST, the webhook and operators.
    pub http: Port,
    /// Encrypts both ports; none: they are plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ServerOptions>,
    /// Who may call.
    #[serde(default)]
    pub access: access::Options,
    /// The tenant API.
    pub source: source::Options,
    /// How its tenants become ours.
    pub mapping: mapping::Options,
    /// The control plane.
    pub control: client::Options,
    /// How it is followed and written to.
    pub apply: control::Options,
    /// When to sync.
    pub sync: sync::Options,
    /// What becomes of tenants that are no longer listed.
    pub tombstone: Tombstone,
    /// When the tenant API is not believed.
    pub shrink: Shrink,
    /// How the tenant API can tell of changes.
    pub webhook: webhook::Options,
    /// Who leads.
    pub lease: Lease,
    /// What one caller may take.
    pub limits: Limits,
    /// The shared state; unused where the caller of [`App::bind`](crate::App::bind) brings its own.
    #[serde(default)]
    pub redis: grey_state::redis::Options,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: telemetry::Options,
}

/// What becomes of tenants that are no longer listed.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// Complete readings in a row that must miss a tenant before it counts as gone.
    pub missing_pulls: u32,
    /// How far apart they are at least, and how soon the next one follows when a tenant is missing.
    #[serde(with = "duration")]
    pub recheck: Duration,
    /// How long a tenant that is gone is kept, suspended, before it is removed.
    #[serde(with = "duration")]
    pub retain: Duration,
}

/// When the tenant API is not believed.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shrink {
    /// What leaves so close together is counted together.
    #[serde(with = "duration")]
    pub window: Duration,
    /// The share of the active tenants that may be taken out of service within the window.
    pub share: f64,
    /// As many tenants may always be taken out of service within it.
    pub allow: u64,
}

/// Who leads.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Another replica takes over within this time after the leader has died.
    #[serde(with = "duration")]
    pub ttl: Duration,
}

/// What one caller may take.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one request, over either transport.
    pub max_request_bytes: usize,
    /// For one request as a whole, waits for syncs included.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
}

impl Config {
    /// The replica's name: as configured, or made up.
    pub(crate) fn replica_name(&self) -> String {
        match self.replica.as_str() {
            "" => format!("tenant-sync-{}", uuid::Uuid::new_v4().simple()),
            name => name.to_owned(),
        }
    }

    /// What decides about a sync.
    pub(crate) fn rules(&self) -> Rules {
        let maintenance = TenantStatus::Maintenance.as_str();
        let tells = !self.mapping.status.is_empty()
            && self.mapping.statuses.values().any(|status| status == maintenance);
        Rules {
            managed_by: self.sync.managed_by.clone(),
            tells_maintenance: tells,
            missing_pulls: self.tombstone.missing_pulls,
            recheck: self.tombstone.recheck,
            retain: self.tombstone.retain,
            share: self.shrink.share,
            allow: self.shrink.allow,
            window: self.shrink.window,
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
        faults.section("source", &self.source);
        faults.section("mapping", &self.mapping);
        faults.section("control", &self.control);
        faults.section("apply", &self.apply);
        faults.section("sync", &self.sync);
        faults.section("tombstone", &self.tombstone);
        faults.section("shrink", &self.shrink);
        faults.section("webhook", &self.webhook);
        let sane = (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&self.lease.ttl);
        faults.check(sane, "lease.ttl", "must be between 1s and 10m");
        faults.section("limits", &self.limits);
        if let Err(fault) = self.redis.validate() {
            faults.add("redis", fault.to_string());
        }
        faults.section("telemetry", &self.telemetry);
    }
}

impl Validate for Tombstone {
    fn validate(&self, faults: &mut Faults) {
        faults.check((1..=100).contains(&self.missing_pulls), "missing_pulls", "must be between 1 and 100");
        faults.check(!self.recheck.is_zero(), "recheck", "must be longer than nothing");
        faults.check(!self.retain.is_zero(), "retain", "must be longer than nothing");
    }
}

impl Validate for Shrink {
    fn validate(&self, faults: &mut Faults) {
        faults.check(!self.window.is_zero(), "window", "must be longer than nothing");
        faults.check((0.0..=1.0).contains(&self.share), "share", "must be between 0 and 1");
    }
}

impl Validate for Limits {
    fn validate(&self, faults: &mut Faults) {
        let sane = (1_024..=64 << 20).contains(&self.max_request_bytes);
        faults.check(sane, "max_request_bytes", "must be between 1024 and 67108864");
        let enough = self.request_timeout >= grey_sync::REQUEST_TIMEOUT;
        faults.check(enough, "request_timeout", "must be at least 630s: callers may wait 600s for a sync");
    }
}
