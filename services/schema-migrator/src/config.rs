//! What an operator can set; `config.default.toml` is the reference.

use crate::backfill::Pacing;
use crate::external::Tools;
use crate::files::Placeholders;
use crate::jobs::{self, DatabaseOptions};
use crate::lint::Policy;
use crate::provision::Sites;
use crate::run::Tooling;
use crate::tenant::Timeouts;
use crate::{backup, plan};
use grey_edge::{Port, check_tokens, client};
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate, access, telemetry, tls};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The compiled-in defaults, with a comment on every setting.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The schema migrator's configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unique among replicas; empty: chosen at random.
    pub replica: String,
    /// How long requests and upgrades may go on once the drain has begun.
    #[serde(with = "duration")]
    pub drain_grace: Duration,
    /// The port for gRPC.
    pub grpc: Port,
    /// The port for operators.
    pub http: Port,
    /// Encrypts both ports; none: they are plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ServerOptions>,
    /// Who may call.
    #[serde(default)]
    pub access: access::Options,
    /// The migrator's own database.
    pub database: DatabaseOptions,
    /// The control plane.
    pub control: client::Options,
    /// What is left to do once an upgrade has ended.
    pub follow_up: FollowUp,
    /// Opens the credentials of tenants' databases.
    #[serde(default)]
    pub vault: grey_vault::Options,
    /// Where tenants' databases may be.
    #[serde(default)]
    pub tenant_databases: grey_database_url::Rules,
    /// The files.
    pub migrations: Migrations,
    /// Where databases are made for tenants; none: none are.
    #[serde(default)]
    pub provisioning: Sites,
    /// How upgrades are run.
    pub jobs: jobs::Options,
    /// How long is waited for tenants' databases.
    pub tenants: Timeouts,
    /// Tools that change large tables.
    #[serde(default)]
    pub tools: Tools,
    /// How backfills give way to others.
    #[serde(default)]
    pub backfills: Pacing,
    /// How backups are made; none: upgrades that ask for one are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<backup::Options>,
    /// What one caller may take.
    pub limits: Limits,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: telemetry::Options,
}

/// The migration files, and how findings about them weigh.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Migrations {
    /// The folder that holds one folder per service.
    pub folder: PathBuf,
    /// Rows of a table from which on a lock on it matters.
    pub big_table_rows: u64,
    /// The weight of each rule.
    #[serde(default)]
    pub policy: Policy,
    /// Whether what the catalog is like is kept at the end of each upgrade, by which drift is told.
    pub keep_catalog: bool,
    /// What placeholders in files stand for.
    #[serde(default)]
    pub placeholders: Placeholders,
}

impl Migrations {
    /// How findings weigh, nothing being accepted.
    pub(crate) fn options(&self) -> plan::Options {
        let (policy, big_table_rows) = (self.policy.clone(), self.big_table_rows);
        plan::Options { policy, big_table_rows, ..plan::Options::default() }
    }
}

/// What is left to do once an upgrade has ended: the control plane is told the schema, and a tenant is pinned.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FollowUp {
    /// Before a schema or a pin that was not taken is sent again.
    #[serde(with = "duration")]
    pub pause: Duration,
}

/// What one caller may take.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most bytes of a request.
    pub max_request_bytes: usize,
    /// For one request.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Connections to tenants' databases that one request opens at the same time.
    pub fleet_concurrency: usize,
}

impl Config {
    /// What migrations are run with.
    pub(crate) fn tooling(&self) -> Tooling {
        Tooling {
            tools: self.tools.clone(),
            pacing: self.backfills,
            backups: self.backups.clone(),
            skips_catalog: !self.migrations.keep_catalog,
        }
    }

    /// The replica's name: as configured, or made up.
    pub(crate) fn replica_name(&self) -> String {
        match self.replica.as_str() {
            "" => format!("schema-migrator-{}", uuid::Uuid::new_v4().simple()),
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
        faults.section("control", &self.control);
        faults.check(!self.follow_up.pause.is_zero(), "follow_up.pause", "must be longer than nothing");
        faults.section("vault", &self.vault);
        faults.section("tenant_databases", &self.tenant_databases);
        let named = !self.migrations.folder.as_os_str().is_empty();
        faults.check(named, "migrations.folder", "must be set");
        for fault in self.migrations.placeholders.faults() {
            let (name, why) = fault.split_once(": ").unwrap_or(("", fault.as_str()));
            faults.add(&format!("migrations.placeholders.{name}"), why);
        }
        faults.section("provisioning", &self.provisioning);
        faults.section("jobs", &self.jobs);
        for (key, value) in [
            ("tenants.connect", self.tenants.connect),
            ("tenants.lock", self.tenants.lock),
            ("tenants.statement", self.tenants.statement),
        ] {
            let sane = (Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(&value);
            faults.check(sane, key, "must be between 10ms and 1d");
        }
        for fault in self.tools.faults() {
            let (key, why) = fault.split_once(": ").unwrap_or(("tools", fault.as_str()));
            faults.add(key, why);
        }
        faults.section("limits", &self.limits);
        faults.section("telemetry", &self.telemetry);
    }
}

impl Validate for Limits {
    fn validate(&self, faults: &mut Faults) {
        let sane = (1_024..=64 << 20).contains(&self.max_request_bytes);
        faults.check(sane, "max_request_bytes", "must be between 1024 and 67108864");
        faults.check(!self.request_timeout.is_zero(), "request_timeout", "must be longer than nothing");
        let sane = (1..=1_000).contains(&self.fleet_concurrency);
        faults.check(sane, "fleet_concurrency", "must be between 1 and 1000");
    }
}
