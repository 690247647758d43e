//! A private MySQL server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::binaries;
use crate::mariadb::{INIT, query};
use crate::nest::Nest;
use crate::port::{ReservedPort, with_fresh_ports};
use crate::postgres::is_plain_name;
use crate::server::Server;

/// The log line that says that the server serves, also after a recovery.
const READY: &str = "ready for connections";

/// A private MySQL server with a binary log; gone when dropped. It speaks TLS with a certificate of its own.
#[derive(Debug)]
pub struct Mysql {
    // The order is that of the end: the process, then its directory.
    server: Mutex<Option<Server>>,
    nest: Nest,
    port: ReservedPort,
    program: PathBuf,
}

impl Mysql {
    /// Whether MySQL is on this machine, which not every one has.
    pub fn is_installed() -> bool {
        binaries::mysqld().is_some()
    }

    /// Starts a server. A commit outlives a killed server, but not a crash of the whole machine.
    ///
    /// # Errors
    /// Fails when MySQL is not installed or is not ready within a minute.
    pub async fn start() -> Result<Self> {
        with_fresh_ports("mysql", Self::try_start).await
    }

    async fn try_start() -> Result<Self> {
        let program = binaries::mysqld();
        let program = program
            .ok_or_else(|| anyhow!("find MySQL: neither GREY_MYSQLD nor the cache of tools has it"))?;
        let nest = Nest::new("mysql")?;
        nest.write(&nest.dir().join("init.sql"), INIT.as_bytes())?;
        let mut install = command(&nest, &program);
        install.args(["--initialize-insecure", "--innodb-redo-log-capacity=8M"]);
        install.arg(format!("--datadir={}", nest.dir().join("data").display()));
        nest.run(install).await?;
        let mysql = Self { server: Mutex::new(None), nest, port: ReservedPort::any()?, program };
        mysql.run().await?;
        Ok(mysql)
    }

    /// Returns the address, which stays the same through every restart.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Returns the URL of the empty database `grey`, for a user with all privileges.
    pub fn url(&self) -> String {
        self.url_of("grey")
    }

    /// Creates the database `name` and returns its URL.
    ///
    /// # Errors
    /// Fails when the name holds anything but lower-case letters, digits and `_`, or is taken.
    pub async fn database(&self, name: &str) -> Result<String> {
        ensure!(is_plain_name(name), "create the database `{name}`: not a plain lower-case name");
        self.query("grey", &format!("CREATE DATABASE `{name}`")).await?;
        Ok(self.url_of(name))
    }

    /// Runs SQL in `database` through MariaDB's command line client and returns the bare result, a line per row.
    ///
    /// # Errors
    /// Fails with the server's words when the SQL does not succeed.
    pub async fn query(&self, database: &str, sql: &str) -> Result<String> {
        query(&self.nest, self.port.number(), true, database, sql).await
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
            server.stop(Signal::SIGTERM).await?;
        }
        self.run().await.context("restart mysql")
    }

    async fn run(&self) -> Result<()> {
        let dir = self.nest.dir();
        let mut command = command(&self.nest, &self.program);
        command.args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--mysqlx=OFF"]);
        // As for MariaDB: enough for tests. The log of changes is what tools read that copy tables.
        command.args(["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0", "--innodb-doublewrite=OFF"]);
        command.args(["--innodb-buffer-pool-size=32M", "--innodb-use-native-aio=0", "--server-id=1"]);
        command.args(["--max-connections=200", "--innodb-redo-log-capacity=8M", "--secure-file-priv=NULL"]);
        command.arg(format!("--port={}", self.port.number()));
        for (option, file) in
            [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid"), ("init-file", "init.sql")]
        {
            command.arg(format!("--{option}={}", dir.join(file).display()));
        }
        let server = Server::start(command, &dir.join("server.log"), READY).await?;
        *self.server() = Some(server);
        Ok(())
    }

    fn url_of(&self, database: &str) -> String {
        format!("mysql://grey:grey@{}/{database}", self.addr())
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It runs as the test's own user: the programs are in that user's cache, which others may not be able to read.
fn command(nest: &Nest, program: &Path) -> Command {
    let mut command = nest.command(program);
    command.arg("--no-defaults").env("TMPDIR", nest.dir());
    if geteuid().is_root() {
        command.arg("--user=root");
    }
    command
}
