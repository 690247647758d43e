//! The programs that are measured: built, started and waited for.

use crate::cores;
use crate::report::say;
use crate::servers::LISTENING;
use anyhow::{Context as _, Result, ensure};
use grey_testkit::{ReservedPort, Spawned};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest wait for a program to serve.
const START: Duration = Duration::from_secs(60);
/// Time between two looks whether a service is ready.
const LOOK: Duration = Duration::from_millis(2);

/// A program of this workspace besides the running one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// Servers of which nothing is tuned.
    Untuned,
    /// The data plane.
    Router,
    /// The control plane.
    ControlPlane,
    /// The mirror of registries.
    RegistrySync,
    /// The mirror of the tenant API.
    TenantSync,
    /// What migrates tenants' databases.
    SchemaMigrator,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Untuned => "grey-bench-untuned",
            Self::Router => "grey-router",
            Self::ControlPlane => "grey-control-plane",
            Self::RegistrySync => "grey-registry-sync",
            Self::TenantSync => "grey-tenant-sync",
            Self::SchemaMigrator => "grey-schema-migrator",
        }
    }

    /// Where the program is, beside the running one.
    pub(crate) fn path(self) -> Result<PathBuf> {
        Ok(directory()?.join(self.name()))
    }
}

/// Builds programs with the profile that the running one was built with.
///
/// `cargo run` builds only the program that it runs. The packages are named together so that they resolve to the
/// features that this program's dependencies were compiled with: there is little left to do but to link.
///
/// # Errors
/// They do not build.
pub(crate) fn build(programs: &[Program]) -> Result<()> {
    let directory = directory()?;
    let missing: Vec<_> = programs.iter().filter(|p| !directory.join(p.name()).is_file()).collect();
    // Set by `cargo run`. Without it the programs of the last build are taken.
    let Some(cargo) = std::env::var_os("CARGO") else {
        ensure!(missing.is_empty(), "find {missing:?} in {}: build them first", directory.display());
        return Ok(());
    };
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => "release",
    };
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--profile", profile]);
    for package in [
        "grey-bench",
        "grey-router",
        "grey-control-plane",
        "grey-registry-sync",
        "grey-tenant-sync",
        "grey-schema-migrator",
    ] {
        command.args(["-p", package]);
    }
    for program in programs {
        command.args(["--bin", program.name()]);
    }
    if let Some(target) = directory.parent() {
        command.arg("--target-dir").arg(target);
    }
    // What `cargo run` tells this program about its package would look like a change of everything that was built.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|own| text.starts_with(own)) {
            command.env_remove(&name);
        }
    }
    // Set by `cargo run` as well.
    if let Some(package) = std::env::var_os("CARGO_MANIFEST_DIR") {
        command.current_dir(package);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    say(&format!("building {programs:?}"));
    let status = command.status().context("run cargo")?;
    ensure!(status.success(), "build {programs:?}: {status}");
    Ok(())
}

fn directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    own.parent().map(Path::to_path_buf).context("find this program's directory")
}

/// A process that serves on the servers' core.
pub(crate) struct Server {
    pub(crate) process: Spawned,
    pub(crate) addr: SocketAddr,
}

/// A service of the product.
pub(crate) struct Service {
    pub(crate) process: Spawned,
    /// Where it serves gRPC.
    pub(crate) grpc: SocketAddr,
    http: SocketAddr,
    /// Kept from everyone else until the service has ended.
    _ports: [ReservedPort; 2],
}

/// Starts `program` of this crate with `args` on the servers' core and waits until it listens.
///
/// # Errors
/// It does not start.
pub(crate) async fn serve(program: &Path, args: &[&str]) -> Result<Server> {
    let mut builder = Spawned::builder(program);
    for arg in args {
        builder = builder.arg(arg);
    }
    let process = cores::on_server_core(|| builder.start())?;
    let line = process.wait_for_line(LISTENING, START).await?;
    let addr = line.rsplit(LISTENING).next().unwrap_or_default();
    let addr = addr.trim().parse().with_context(|| format!("read an address in `{line}`"))?;
    Ok(Server { process, addr })
}

impl Service {
    /// Starts a service of the product with settings, written as its environment variables.
    ///
    /// # Errors
    /// It cannot be executed.
    pub(crate) fn start(program: Program, settings: &[(&str, String)]) -> Result<Self> {
        let ports = [ReservedPort::any()?, ReservedPort::any()?];
        let [grpc, http] = ports.each_ref().map(ReservedPort::addr);
        let mut builder = Spawned::builder(program.path()?)
            .env("GREY__GRPC__LISTEN", grpc.to_string())
            .env("GREY__HTTP__LISTEN", http.to_string());
        for (name, value) in settings {
            builder = builder.env(name, value);
        }
        Ok(Self { process: builder.start()?, grpc, http, _ports: ports })
    }

    /// Waits until the service says that it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; its output is in the error.
    pub(crate) async fn ready(&self) -> Result<()> {
        let end = tokio::time::Instant::now() + START;
        while !is_ready(self.http).await {
            let exited = self.process.exit_status()?;
            ensure!(exited.is_none(), "wait for a service that ended: {exited:?}: {}", self.process.output());
            ensure!(tokio::time::Instant::now() < end, "wait for a service: {}", self.process.output());
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Asks the readiness endpoint.
async fn is_ready(http: SocketAddr) -> bool {
    let ask = async {
        let mut socket = tokio::net::TcpStream::connect(http).await.ok()?;
        let request = b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        socket.write_all(request).await.ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.ok()?;
        answer.starts_with(b"HTTP/1.1 200").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(1), ask).await.ok().flatten().is_some()
}
