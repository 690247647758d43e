//! Control plane and router in one process, on shared state in memory.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use grey_runtime::{Shutdown, Telemetry};
use grey_state::State;
use tempfile::TempDir;

use crate::config::Config;
use crate::instances;
use crate::registrar::Registrar;

/// The services of one process: bound, not yet serving.
pub struct Standalone {
    control: grey_control_plane::App,
    router: grey_router::App,
    telemetry: [Telemetry; 2],
    state: State,
    data_dir: PathBuf,
    // Removed once nothing serves from it any more.
    temporary: Option<TempDir>,
}

/// Where the services listen.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The control plane's gRPC.
    pub control_grpc: SocketAddr,
    /// The control plane's REST.
    pub control_http: SocketAddr,
    /// The router's gRPC.
    pub router_grpc: SocketAddr,
    /// The router's HTTP.
    pub router_http: SocketAddr,
    /// Whether they are encrypted.
    pub tls: bool,
}

impl Standalone {
    /// Opens the database and all ports, and reads the instances.
    ///
    /// # Errors
    /// A port is taken or must not be served as configured; a file cannot be read or says something wrong.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let (data_dir, temporary) = data_dir(&config.standalone.data_dir)?;
        let state = State::memory();
        register(&config.standalone.instances, &state).await?;
        let control = config.for_control_plane(&data_dir).context("configure the control plane")?;
        let router = config.for_router().context("configure the router")?;
        let telemetry = [
            Telemetry::start("grey-control-plane", &config.telemetry)?,
            Telemetry::start("grey-router", &config.telemetry)?,
        ];
        let [for_control, for_router] = telemetry.clone();
        let control = Box::pin(grey_control_plane::App::bind(control, state.clone(), for_control));
        let control = control.await.context("bind the control plane")?;
        let router = Box::pin(grey_router::App::bind(router, state.clone(), for_router));
        let router = router.await.context("bind the router")?;
        Ok(Self { control, router, telemetry, state, data_dir, temporary })
    }

    /// Where the services listen.
    #[must_use]
    pub fn addresses(&self, config: &Config) -> Addresses {
        Addresses {
            control_grpc: self.control.grpc_addr(),
            control_http: self.control.http_addr(),
            router_grpc: self.router.grpc_addr(),
            router_http: self.router.http_addr(),
            tls: config.tls.is_some(),
        }
    }

    /// The shared state, to write instances into.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// Where the control database is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Serves until `shutdown` begins and calls in flight have ended. A service that ends takes the other with it.
    ///
    /// # Errors
    /// A service cannot be started.
    pub async fn serve(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self { control, router, telemetry, temporary, .. } = self;
        let control = async {
            let ended = Box::pin(control.serve(shutdown)).await;
            shutdown.begin();
            ended.context("serve the control plane")
        };
        let router = async {
            let ended = Box::pin(router.serve(shutdown)).await;
            shutdown.begin();
            ended.context("serve the router")
        };
        let (control, router) = tokio::join!(control, router);
        for telemetry in telemetry {
            telemetry.shutdown().await;
        }
        let removed = temporary.map_or(Ok(()), TempDir::close);
        control.and(router).and(removed.context("remove the temporary directory"))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        writeln!(
            f,
            "control plane  gRPC {scheme}://{}  REST {scheme}://{}",
            self.control_grpc, self.control_http
        )?;
        write!(f, "router         gRPC {scheme}://{}  HTTP {scheme}://{}", self.router_grpc, self.router_http)
    }
}

fn data_dir(configured: &Path) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    if configured.as_os_str().is_empty() {
        let temporary = tempfile::Builder::new().prefix("grey-").tempdir();
        let temporary = temporary.context("create a temporary directory for the control database")?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    }
    let what = || format!("create data directory {}", configured.display());
    std::fs::create_dir_all(configured).with_context(what)?;
    // The database's address is a URL, in which a relative path would mean something else.
    let absolute = configured.canonicalize().with_context(what)?;
    Ok((absolute, None))
}

/// Writes the instances of the file, if there is one, before anybody can ask for them.
async fn register(file: &Path, state: &State) -> anyhow::Result<()> {
    if file.as_os_str().is_empty() {
        return Ok(());
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let lists = instances::of_services(&text).with_context(|| format!("use {}", file.display()))?;
    let registrar = Registrar::new(state.clone());
    for list in &lists {
        registrar.replace(list).await?;
    }
    Ok(registrar.release().await?)
}
