//! The services in one process, on shared state in memory.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use grey_registry_sync::registry::file;
use grey_runtime::{Shutdown, Telemetry, telemetry};
use grey_state::State;
use tempfile::TempDir;

use crate::config::Config;

/// The services of one process: bound, not yet serving.
pub struct Standalone {
    control: grey_control_plane::App,
    router: grey_router::App,
    registry_sync: Option<grey_registry_sync::App>,
    tenant_sync: Option<grey_tenant_sync::App>,
    schema_migrator: Option<grey_schema_migrator::App>,
    telemetry: Telemetries,
    data_dir: PathBuf,
    // Removed once nothing serves from it any more.
    temporary: Option<TempDir>,
}

/// Where the services listen.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The control plane.
    pub control: Ports,
    /// The router.
    pub router: Ports,
    /// The mirror of the instances file, if there is one.
    pub registry_sync: Option<Ports>,
    /// The mirror of the tenant API, if there is one.
    pub tenant_sync: Option<Ports>,
    /// The schema migrator, unless nobody said whom it may trust.
    pub schema_migrator: Option<Ports>,
    /// Whether they are encrypted.
    pub tls: bool,
}

/// Where one service listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// gRPC.
    pub grpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

impl Standalone {
    /// Opens the database and all ports, and reads the files.
    ///
    /// # Errors
    /// A port is taken or must not be served as configured; a file cannot be read or says something wrong.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        check_instances(&config.standalone.instances)?;
        let (data_dir, temporary) = data_dir(&config.standalone.data_dir)?;
        let state = State::memory();
        let mut telemetry = Telemetries { options: config.telemetry.clone(), started: Vec::new() };

        let links = config.links(&data_dir).context("configure the schema migrator")?;
        let control = config.for_control_plane(&data_dir, links.as_ref());
        let control = control.context("configure the control plane")?;
        let reporting = telemetry.start("grey-control-plane")?;
        let control = Box::pin(grey_control_plane::App::bind(control, state.clone(), reporting));
        let control = control.await.context("bind the control plane")?;

        let router = config.for_router().context("configure the router")?;
        let reporting = telemetry.start("grey-router")?;
        let router = Box::pin(grey_router::App::bind(router, state.clone(), reporting));
        let router = router.await.context("bind the router")?;

        let registry_sync = match config.for_registry_sync().context("configure registry-sync")? {
            None => None,
            Some(config) => {
                let reporting = telemetry.start("grey-registry-sync")?;
                let app = Box::pin(grey_registry_sync::App::bind(config, state.clone(), reporting));
                Some(app.await.context("bind registry-sync")?)
            }
        };
        let configured = config.for_tenant_sync(control.grpc_addr());
        let tenant_sync = match configured.context("configure tenant-sync")? {
            None => None,
            Some(config) => {
                let reporting = telemetry.start("grey-tenant-sync")?;
                let app = Box::pin(grey_tenant_sync::App::bind(config, state, reporting));
                Some(app.await.context("bind tenant-sync")?)
            }
        };
        let schema_migrator = match links {
            None => {
                tracing::warn!("no schema migrator: with [tls] it needs [client_tls]");
                None
            }
            Some(links) => {
                let config = config.for_schema_migrator(&data_dir, &links, control.grpc_addr());
                let config = config.context("configure the schema migrator")?;
                let reporting = telemetry.start("grey-schema-migrator")?;
                let app = Box::pin(grey_schema_migrator::App::bind(config, reporting));
                Some(app.await.context("bind the schema migrator")?)
            }
        };
        Ok(Self {
            control,
            router,
            registry_sync,
            tenant_sync,
            schema_migrator,
            telemetry,
            data_dir,
            temporary,
        })
    }

    /// Where the services listen.
    #[must_use]
    pub fn addresses(&self, config: &Config) -> Addresses {
        let ports = |grpc, http| Ports { grpc, http };
        Addresses {
            control: ports(self.control.grpc_addr(), self.control.http_addr()),
            router: ports(self.router.grpc_addr(), self.router.http_addr()),
            registry_sync: self.registry_sync.as_ref().map(|app| ports(app.grpc_addr(), app.http_addr())),
            tenant_sync: self.tenant_sync.as_ref().map(|app| ports(app.grpc_addr(), app.http_addr())),
            schema_migrator: self.schema_migrator.as_ref().map(|app| ports(app.grpc_addr(), app.http_addr())),
            tls: config.tls.is_some(),
        }
    }

    /// Where the control database is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Serves until `shutdown` begins and calls in flight have ended. A service that ends takes the others with it.
    ///
    /// # Errors
    /// A service cannot be started.
    pub async fn serve(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self {
            control, router, registry_sync, tenant_sync, schema_migrator, telemetry, temporary, ..
        } = self;
        let control = Box::pin(served("the control plane", shutdown, control.serve(shutdown)));
        let router = Box::pin(served("the router", shutdown, router.serve(shutdown)));
        let registry_sync = Box::pin(async {
            match registry_sync {
                Some(app) => served("registry-sync", shutdown, app.serve(shutdown)).await,
                None => Ok(()),
            }
        });
        let tenant_sync = Box::pin(async {
            match tenant_sync {
                Some(app) => served("tenant-sync", shutdown, app.serve(shutdown)).await,
                None => Ok(()),
            }
        });
        let schema_migrator = Box::pin(async {
            match schema_migrator {
                Some(app) => served("the schema migrator", shutdown, app.serve(shutdown)).await,
                None => Ok(()),
            }
        });
        let (control, router, registry_sync, tenant_sync, schema_migrator) =
            tokio::join!(control, router, registry_sync, tenant_sync, schema_migrator);
        telemetry.shutdown().await;
        let removed = temporary.map_or(Ok(()), TempDir::close).context("remove the temporary directory");
        control.and(router).and(registry_sync).and(tenant_sync).and(schema_migrator).and(removed)
    }
}

async fn served(
    what: &str,
    shutdown: &Shutdown,
    serving: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let ended = serving.await;
    shutdown.begin();
    ended.with_context(|| format!("serve {what}"))
}

/// One for each service, as where they run apart.
struct Telemetries {
    options: telemetry::Options,
    started: Vec<Telemetry>,
}

impl Telemetries {
    fn start(&mut self, service: &'static str) -> anyhow::Result<Telemetry> {
        let telemetry = Telemetry::start(service, &self.options)?;
        self.started.push(telemetry.clone());
        Ok(telemetry)
    }

    async fn shutdown(self) {
        for telemetry in self.started {
            telemetry.shutdown().await;
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let services = [
            ("control plane", Some(self.control)),
            ("router", Some(self.router)),
            ("registry-sync", self.registry_sync),
            ("tenant-sync", self.tenant_sync),
            ("migrator", self.schema_migrator),
        ];
        let there = services.into_iter().filter_map(|(service, ports)| Some((service, ports?)));
        for (index, (service, Ports { grpc, http })) in there.enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{service:15}gRPC {scheme}://{grpc}  HTTP {scheme}://{http}")?;
        }
        Ok(())
    }
}

fn data_dir(configured: &Path) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    if configured.as_os_str().is_empty() {
        let temporary = tempfile::Builder::new().prefix("grey-").tempdir();
        let temporary = temporary.context("create a temporary directory for the control database")?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    }
    let what = || format!("create data directory {}", configured.display());
    if !configured.exists() {
        // The database of tenants and the key of their credentials are nobody else's business.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(configured).with_context(what)?;
    }
    let mode = std::fs::metadata(configured).with_context(what)?.permissions().mode();
    if mode & 0o077 != 0 {
        let directory = configured.display();
        tracing::warn!(%directory, "data directory can be entered by other users; run `chmod 700` on it");
    }
    // The database's address is a URL, in which a relative path would mean something else.
    let absolute = configured.canonicalize().with_context(what)?;
    Ok((absolute, None))
}

/// Refuses a wrong file while somebody is looking; once it is followed, a fault only keeps what was read before.
fn check_instances(file: &Path) -> anyhow::Result<()> {
    if file.as_os_str().is_empty() {
        return Ok(());
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    file::parse(&text).map(drop).with_context(|| format!("use {}", file.display()))
}
