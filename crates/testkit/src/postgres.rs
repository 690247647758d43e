//! A private PostgreSQL server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::authority::Identity;
use crate::binaries;
use crate::nest::Nest;
use crate::port::{ReservedPort, with_fresh_ports};
use crate::server::{Server, not_running};

/// The log line that says that the server serves, also after a recovery.
const READY: &str = "database system is ready to accept connections";

/// A private PostgreSQL server; gone when dropped.
#[derive(Debug)]
pub struct Postgres {
    // The order is that of the end: the process, then its directory.
    server: Mutex<Option<Server>>,
    nest: Nest,
    port: ReservedPort,
    programs: PathBuf,
    options: PostgresBuilder,
}

/// Options of a [`Postgres`] server.
#[derive(Clone, Debug, Default)]
pub struct PostgresBuilder {
    durable: bool,
    tls: Option<Identity>,
}

impl PostgresBuilder {
    /// Keeps `fsync` and full page writes on, as in production. They are off by default: a commit then outlives
    /// a killed server, but not a crash of the whole machine.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Lets in only who speaks TLS, and shows `identity`.
    #[must_use]
    pub fn tls(mut self, identity: Identity) -> Self {
        self.tls = Some(identity);
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// Fails when PostgreSQL is not installed or is not ready within a minute.
    pub async fn start(self) -> Result<Postgres> {
        with_fresh_ports("postgres", || Postgres::try_start(self.clone())).await
    }
}

impl Postgres {
    /// Starts a server with the default options.
    ///
    /// # Errors
    /// Fails when PostgreSQL is not installed or is not ready within a minute.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns the default options.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    async fn try_start(options: PostgresBuilder) -> Result<Self> {
        let programs = binaries::postgres_dir()?;
        let nest = Nest::new("postgres")?;
        let mut init = nest.server_command(&programs.join("initdb"));
        init.args(["--username=grey", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        init.arg("--pgdata").arg(nest.dir().join("data"));
        nest.run(init).await?;
        if let Some(identity) = &options.tls {
            identity.write(&nest)?;
            let only_tls = b"hostssl all all 127.0.0.1/32 trust\n";
            nest.write(&nest.dir().join("data").join("pg_hba.conf"), only_tls)?;
        }
        let port = ReservedPort::any()?;
        let server = Mutex::new(None);
        let postgres = Self { server, nest, port, programs, options };
        postgres.run().await?;
        Ok(postgres)
    }

    /// Returns the address, which stays the same through every restart.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Returns the URL of the database `postgres`, for a superuser.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Creates the database `name` and returns its URL.
    ///
    /// # Errors
    /// Fails when the name holds anything but lower-case letters, digits and `_`, or is taken.
    pub async fn database(&self, name: &str) -> Result<String> {
        ensure!(is_plain_name(name), "create the database `{name}`: not a plain lower-case name");
        self.query("postgres", &format!("CREATE DATABASE \"{name}\"")).await?;
        Ok(self.url_of(name))
    }

    /// Runs SQL in `database` through the command line client and returns the bare result, a line per row.
    ///
    /// # Errors
    /// Fails with the server's words when the SQL does not succeed.
    pub async fn query(&self, database: &str, sql: &str) -> Result<String> {
        self.query_at(&self.url_of(database), sql).await
    }

    /// Does the same at a URL, such as that of a pooler before the server.
    ///
    /// # Errors
    /// Fails with the words of whoever is there when the SQL does not succeed.
    pub async fn query_at(&self, url: &str, sql: &str) -> Result<String> {
        let mut psql = self.nest.command(&self.psql()?);
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"]);
        psql.args(["--dbname", url, "--command", sql]);
        psql.env("PGCONNECT_TIMEOUT", "10");
        Ok(self.nest.run(psql).await?.trim_end().to_owned())
    }

    /// Kills the server with `SIGKILL`; the port refuses connections when this returns.
    ///
    /// # Errors
    /// Fails when the process cannot be signalled.
    pub fn kill9(&self) -> Result<()> {
        self.server().take().map_or(Ok(()), |mut server| server.kill9())
    }

    /// Starts the server again on the same port and data, after stopping it in good order if it runs.
    ///
    /// # Errors
    /// Fails when the server does not come up again.
    pub async fn restart(&self) -> Result<()> {
        let running = self.server().take();
        if let Some(mut server) = running {
            server.stop(Signal::SIGINT).await?;
        }
        self.run().await.context("restart postgres")
    }

    /// Freezes the server with all its processes: connections stay open, nothing answers.
    ///
    /// # Errors
    /// Fails when the server is killed.
    pub fn pause(&self) -> Result<()> {
        let server = self.server();
        let server = server.as_ref().ok_or_else(not_running)?;
        // The one that starts the others first.
        server.pause()?;
        server.signal_children(Signal::SIGSTOP)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// Fails when the server is killed.
    pub fn resume(&self) -> Result<()> {
        let server = self.server();
        let server = server.as_ref().ok_or_else(not_running)?;
        server.signal_children(Signal::SIGCONT)?;
        server.resume()
    }

    async fn run(&self) -> Result<()> {
        let mut command = self.nest.server_command(&self.programs.join("postgres"));
        command.arg("-D").arg(self.nest.dir().join("data"));
        command.args(["-p", &self.port.number().to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"] {
            command.args(["-c", setting]);
        }
        if !self.options.durable {
            command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        if self.options.tls.is_some() {
            let (certificate, key) = Identity::files(&self.nest);
            command.args(["-c", "ssl=on", "-c", &format!("ssl_cert_file={}", certificate.display())]);
            command.args(["-c", &format!("ssl_key_file={}", key.display())]);
        }
        let server = Server::start(command, &self.nest.dir().join("server.log"), READY).await?;
        *self.server() = Some(server);
        Ok(())
    }

    /// Prefers the server's own client to Debian's wrapper, which adds a Perl start to each call.
    fn psql(&self) -> Result<PathBuf> {
        let own = self.programs.join("psql");
        if own.is_file() { Ok(own) } else { binaries::find("psql") }
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://grey@{}/{database}", self.addr())
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A killed postmaster would leave its children to be reaped by whoever adopts them.
        if let Some(server) = self.server().as_mut() {
            server.end(Signal::SIGQUIT);
        }
    }
}

/// Whether `name` can stand in SQL and in a URL without any quoting.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.len() <= 63 && name.chars().all(plain)
}
