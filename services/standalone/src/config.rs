//! What an operator can set of the services in one process; `config.default.toml` is the reference.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use grey_core::ids::Name;
use grey_edge::check_roles;
use grey_runtime::config::{Source, load};
use grey_runtime::{Faults, Secret, Validate, access, telemetry, tls};
use serde::{Deserialize, Serialize};

/// The compiled-in defaults, with a comment on every setting.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The configuration of the services in one process.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this process keeps.
    pub standalone: Standalone,
    /// The data plane.
    pub router: Router,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// Encrypts all ports; none: they are plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ServerOptions>,
    /// Who may call.
    pub access: access::Options,
    /// Logs, traces and metrics.
    pub telemetry: telemetry::Options,
}

/// What this process keeps.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Standalone {
    /// Where the control database is; empty: a temporary directory.
    pub data_dir: PathBuf,
    /// The file with the running instances; empty: none.
    pub instances: PathBuf,
}

/// The data plane.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Threads that decide; 0: one per core.
    pub threads: usize,
    /// The region of calls that do not name one; may be empty.
    pub region: String,
    /// The zone of calls that do not name one; may be empty.
    pub zone: String,
}

/// The control plane.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where REST is served.
    pub http: SocketAddr,
}

impl Config {
    /// The defaults, then the file, then the environment `env`.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, grey_runtime::config::Error> {
        load(Source { defaults: DEFAULTS, file, env })
    }

    /// The same on ports that the system chooses.
    #[must_use]
    pub fn on_free_ports(mut self) -> Self {
        let ports = [
            &mut self.router.grpc,
            &mut self.router.http,
            &mut self.control_plane.grpc,
            &mut self.control_plane.http,
        ];
        for port in ports {
            port.set_port(0);
        }
        self
    }

    /// What the router is started with.
    pub(crate) fn for_router(&self) -> Result<grey_router::Config, grey_runtime::config::Error> {
        let mut config: grey_router::Config =
            load(Source { defaults: grey_router::DEFAULTS, file: None, env: [] })?;
        config.grpc.listen = self.router.grpc;
        config.grpc.threads = self.router.threads;
        config.http.listen = self.router.http;
        config.router.region.clone_from(&self.router.region);
        config.router.zone.clone_from(&self.router.zone);
        config.tls.clone_from(&self.tls);
        config.access.clone_from(&self.access);
        config.telemetry.clone_from(&self.telemetry);
        Ok(config)
    }

    /// What the control plane is started with.
    pub(crate) fn for_control_plane(
        &self,
        data_dir: &Path,
    ) -> Result<grey_control_plane::Config, grey_runtime::config::Error> {
        let mut config: grey_control_plane::Config =
            load(Source { defaults: grey_control_plane::DEFAULTS, file: None, env: [] })?;
        config.grpc.listen = self.control_plane.grpc;
        config.http.listen = self.control_plane.http;
        config.database.url = Secret::new(format!("sqlite://{}", data_dir.join("control.db").display()));
        config.tls.clone_from(&self.tls);
        config.access.clone_from(&self.access);
        config.telemetry.clone_from(&self.telemetry);
        Ok(config)
    }
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.section("router", &self.router);
        faults.section("access", &self.access);
        check_roles(faults, &self.access);
        faults.section("telemetry", &self.telemetry);
    }
}

impl Validate for Router {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.threads <= 1_024, "threads", "must be at most 1024");
        for (key, name) in [("region", &self.region), ("zone", &self.zone)] {
            if !name.is_empty()
                && let Err(refused) = Name::new(name)
            {
                faults.add(key, refused.to_string());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    fn load(env: &[(&str, &str)]) -> Result<Config, grey_runtime::config::Error> {
        Config::load(None, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_settings_reach_both_services() {
        let config = load(&[
            ("GREY__ROUTER__GRPC", "127.0.0.1:1"),
            ("GREY__ROUTER__ZONE", "eu-a"),
            ("GREY__CONTROL_PLANE__HTTP", "127.0.0.1:2"),
            ("GREY__ACCESS__ALLOW_ANONYMOUS", "true"),
        ])
        .unwrap();
        let router = config.for_router().unwrap();
        assert_eq!((router.grpc.listen.port(), router.router.zone.as_str()), (1, "eu-a"));
        let control = config.for_control_plane(Path::new("/data")).unwrap();
        assert_eq!(
            (control.http.listen.port(), control.database.url.expose()),
            (2, "sqlite:///data/control.db")
        );
        assert_eq!((router.access.allow_anonymous, control.access.allow_anonymous), (Some(true), Some(true)));
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_together() {
        let refused = load(&[("GREY__ROUTER__GRCP", "127.0.0.1:1"), ("GREY__ROUTER__ZONE", "EU A")]);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("grcp") && text.contains("EU A"), "{text}");
    }
}
