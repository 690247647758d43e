//! What an operator can set of the services in one process; `config.default.toml` is the reference.

mod migrator;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::ensure;
use grey_core::ids::Name;
use grey_edge::check_tokens;
use grey_runtime::config::{Error, Source, load};
use grey_runtime::{Faults, Secret, Validate, access, telemetry, tls};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use migrator::Links;

/// The compiled-in defaults, with a comment on every setting.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// Where tenant-sync looks for the control plane if its file does not say.
const CONTROL_DEFAULT: &str = "http://127.0.0.1:7410";

/// The id of the one router.
const ROUTER_ID: &str = "standalone";

/// The configuration of the services in one process.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this process keeps.
    pub standalone: Standalone,
    /// The data plane.
    pub router: Router,
    /// The control plane.
    pub control_plane: Ports,
    /// The mirror of the instances file.
    pub registry_sync: RegistrySync,
    /// The mirror of the tenant API.
    pub tenant_sync: Ports,
    /// The schema migrator.
    pub schema_migrator: SchemaMigrator,
    /// Seals the credentials of tenants' databases; without keys, one is made in the data directory.
    #[serde(default)]
    pub vault: grey_vault::Options,
    /// Where tenants' databases may be.
    #[serde(default)]
    pub tenant_databases: grey_database_url::Rules,
    /// Encrypts all ports; none: they are plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ServerOptions>,
    /// Whom the services of this process trust when they call each other over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_tls: Option<tls::ClientOptions>,
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
    /// The file with the running instances, which is followed; empty: none, and no registry-sync.
    pub instances: PathBuf,
    /// The configuration file of tenant-sync; empty: none.
    pub tenant_sync: PathBuf,
    /// The configuration file of the schema migrator; empty: its defaults.
    pub schema_migrator: PathBuf,
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

/// Where a service listens.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where REST is served.
    pub http: SocketAddr,
}

/// The mirror of the instances file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySync {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where REST is served.
    pub http: SocketAddr,
    /// What the file says is believed at once, whatever it drops.
    pub trusted: bool,
}

/// The schema migrator.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaMigrator {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where health and metrics are served.
    pub http: SocketAddr,
    /// The folder with the migration files; empty: as its configuration file says.
    pub migrations: PathBuf,
}

impl Config {
    /// The defaults, then the file, then the environment `env`.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
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
            &mut self.registry_sync.grpc,
            &mut self.registry_sync.http,
            &mut self.tenant_sync.grpc,
            &mut self.tenant_sync.http,
            &mut self.schema_migrator.grpc,
            &mut self.schema_migrator.http,
        ];
        for port in ports {
            port.set_port(0);
        }
        self
    }

    /// What the router is started with.
    pub(crate) fn for_router(&self) -> Result<grey_router::Config, Error> {
        let mut config: grey_router::Config = defaults(grey_router::DEFAULTS)?;
        config.grpc.listen = self.router.grpc;
        config.grpc.threads = self.router.threads;
        config.http.listen = self.router.http;
        // The same at each start, so that nobody waits for the one before.
        ROUTER_ID.clone_into(&mut config.router.id);
        config.router.region.clone_from(&self.router.region);
        config.router.zone.clone_from(&self.router.zone);
        config.tls.clone_from(&self.tls);
        config.access.clone_from(&self.access);
        config.telemetry.clone_from(&self.telemetry);
        Ok(config)
    }

    /// What the control plane is started with, and how it reaches the schema migrator.
    pub(crate) fn for_control_plane(
        &self,
        data_dir: &Path,
        links: Option<&Links>,
    ) -> Result<grey_control_plane::Config, Error> {
        let mut config: grey_control_plane::Config = defaults(grey_control_plane::DEFAULTS)?;
        config.grpc.listen = self.control_plane.grpc;
        config.http.listen = self.control_plane.http;
        config.database.url = Secret::new(format!("sqlite://{}", data_dir.join("control.db").display()));
        config.tls.clone_from(&self.tls);
        config.access.clone_from(&self.access);
        config.telemetry.clone_from(&self.telemetry);
        config.tenant_databases.clone_from(&self.tenant_databases);
        if let Some(links) = links {
            links.apply(&mut config);
        }
        Ok(config)
    }

    /// What registry-sync is started with, if there is a file to follow.
    pub(crate) fn for_registry_sync(&self) -> Result<Option<grey_registry_sync::Config>, Error> {
        let path = &self.standalone.instances;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        // A text in JSON is one in TOML.
        let (path, trusted) = (Value::from(path.to_string_lossy()), self.registry_sync.trusted);
        let sources =
            format!("[{{ name = \"instances\", kind = \"file\", path = {path}, trusted = {trusted} }}]");
        let env = [("GREY__SOURCES".to_owned(), sources)];
        let source = Source { defaults: grey_registry_sync::DEFAULTS, file: None, env };
        let mut config: grey_registry_sync::Config = load(source)?;
        config.grpc.listen = self.registry_sync.grpc;
        config.http.listen = self.registry_sync.http;
        config.tls.clone_from(&self.tls);
        config.access.clone_from(&self.access);
        config.telemetry.clone_from(&self.telemetry);
        Ok(Some(config))
    }

    /// What tenant-sync is started with, if its file is named. It writes to the control plane at `control`, unless its
    /// file names another.
    pub(crate) fn for_tenant_sync(
        &self,
        control: SocketAddr,
    ) -> anyhow::Result<Option<grey_tenant_sync::Config>> {
        let file = self.standalone.tenant_sync.as_path();
        if file.as_os_str().is_empty() {
            return Ok(None);
        }
        // The environment is about this process as a whole.
        let source = Source { defaults: grey_tenant_sync::DEFAULTS, file: Some(file), env: [] };
        let mut config: grey_tenant_sync::Config = load(source)?;
        if config.control.url == CONTROL_DEFAULT {
            let plain = self.tls.is_none();
            ensure!(plain, "{}: with [tls], control.url and control.tls must be set", file.display());
            config.control.url = format!("http://{}", reachable(control));
        }
        config.grpc.listen = self.tenant_sync.grpc;
        config.http.listen = self.tenant_sync.http;
        config.tls.clone_from(&self.tls);
        config.access.clone_from(&self.access);
        config.telemetry.clone_from(&self.telemetry);
        Ok(Some(config))
    }
}

/// The settings of a service that nobody has changed.
fn defaults<T: DeserializeOwned + Validate>(text: &str) -> Result<T, Error> {
    load(Source { defaults: text, file: None, env: [] })
}

/// Where a port of this process is reached from within it.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        addr => addr,
    }
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.section("router", &self.router);
        faults.section("access", &self.access);
        check_tokens(faults, &self.access);
        faults.section("vault", &self.vault);
        faults.section("tenant_databases", &self.tenant_databases);
        let fits = self.tls.is_some() || self.client_tls.is_none();
        faults.check(fits, "client_tls", "needs [tls]");
        if let Some(client_tls) = &self.client_tls {
            faults.section("client_tls", client_tls);
        }
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
#[allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
mod tests {
    use super::*;

    fn load(env: &[(&str, &str)]) -> Result<Config, Error> {
        Config::load(None, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_settings_reach_the_services() {
        let config = load(&[
            ("GREY__ROUTER__GRPC", "127.0.0.1:1"),
            ("GREY__ROUTER__ZONE", "eu-a"),
            ("GREY__CONTROL_PLANE__HTTP", "127.0.0.1:2"),
            ("GREY__ACCESS__ALLOW_ANONYMOUS", "true"),
        ])
        .unwrap();
        let router = config.for_router().unwrap();
        assert_eq!((router.grpc.listen.port(), router.router.zone.as_str()), (1, "eu-a"));
        let control = config.for_control_plane(Path::new("/data"), None).unwrap();
        assert_eq!(
            (control.http.listen.port(), control.database.url.expose()),
            (2, "sqlite:///data/control.db")
        );
        assert_eq!((router.access.allow_anonymous, control.access.allow_anonymous), (Some(true), Some(true)));
    }

    #[test]
    fn mirrors_are_started_only_where_there_is_something_to_mirror() {
        let config = load(&[]).unwrap();
        let control = SocketAddr::from(([0, 0, 0, 0], 4));
        assert!(config.for_registry_sync().unwrap().is_none());
        assert!(config.for_tenant_sync(control).unwrap().is_none());

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tenant-sync.toml");
        let text =
            "replica = \"r\"\n[source]\nurl = \"https://tenants.example\"\n[grpc]\nlisten = \"[::]:1\"\n";
        std::fs::write(&file, text).unwrap();
        let mut config = load(&[
            ("GREY__STANDALONE__INSTANCES", "/a \"b\"/instances.yaml"),
            ("GREY__STANDALONE__TENANT_SYNC", file.to_str().unwrap()),
            ("GREY__REGISTRY_SYNC__TRUSTED", "false"),
            ("GREY__TENANT_SYNC__GRPC", "127.0.0.1:3"),
        ])
        .unwrap();
        let registry = config.for_registry_sync().unwrap().unwrap();
        let grey_registry_sync::Kind::File(options) = &registry.sources[0].kind else {
            panic!("{registry:?}")
        };
        assert_eq!(options.path, Path::new("/a \"b\"/instances.yaml"));
        assert_eq!(registry.sources[0].trusted, Some(false));
        let tenants = config.for_tenant_sync(control).unwrap().unwrap();
        assert_eq!((tenants.grpc.listen.port(), tenants.replica.as_str()), (3, "r"));
        assert_eq!(tenants.control.url, "http://127.0.0.1:4");

        // Nobody but the operator knows whom to trust.
        let server = (dir.path().join("crt"), dir.path().join("key"));
        config.tls =
            Some(tls::ServerOptions { cert_file: server.0, key_file: server.1, client_ca_file: None });
        assert!(config.for_tenant_sync(control).unwrap_err().to_string().contains("control.tls"));
        std::fs::write(&file, format!("{text}[control]\nurl = \"http://control:5\"\n")).unwrap();
        let tenants = config.for_tenant_sync(control).unwrap().unwrap();
        assert_eq!(tenants.control.url, "http://control:5");
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_together() {
        let refused = load(&[("GREY__ROUTER__GRCP", "127.0.0.1:1"), ("GREY__ROUTER__ZONE", "EU A")]);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("grcp") && text.contains("EU A"), "{text}");
    }
}
