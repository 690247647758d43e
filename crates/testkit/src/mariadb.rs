//! A private MariaDB server.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::authority::Identity;
use crate::binaries;
use crate::nest::Nest;
use crate::port::{ReservedPort, with_fresh_ports};
use crate::postgres::is_plain_name;
use crate::server::Server;

/// The log line that says that the server serves, also after a recovery.
const READY: &str = "ready for connections";

/// Run at every start, so it must bear repetition.
pub(crate) const INIT: &str = "\
CREATE DATABASE IF NOT EXISTS grey;
CREATE USER IF NOT EXISTS 'grey'@'127.0.0.1' IDENTIFIED BY 'grey';
GRANT ALL PRIVILEGES ON *.* TO 'grey'@'127.0.0.1' WITH GRANT OPTION;
";

/// A private MariaDB server; gone when dropped.
#[derive(Debug)]
pub struct MariaDb {
    // The order is that of the end: the process, then its directory.
    server: Mutex<Option<Server>>,
    nest: Nest,
    port: ReservedPort,
    tls: bool,
}

/// Options of a [`MariaDb`] server.
#[derive(Clone, Debug, Default)]
pub struct MariaDbBuilder {
    tls: Option<Identity>,
}

impl MariaDbBuilder {
    /// Lets in only who speaks TLS, and shows `identity`.
    #[must_use]
    pub fn tls(mut self, identity: Identity) -> Self {
        self.tls = Some(identity);
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// Fails when MariaDB is not installed or is not ready within a minute.
    pub async fn start(self) -> Result<MariaDb> {
        with_fresh_ports("mariadb", || MariaDb::try_start(self.clone())).await
    }
}

impl MariaDb {
    /// Starts a server. A commit outlives a killed server, but not a crash of the whole machine.
    ///
    /// # Errors
    /// Fails when MariaDB is not installed or is not ready within a minute.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns the default options.
    pub fn builder() -> MariaDbBuilder {
        MariaDbBuilder::default()
    }

    async fn try_start(options: MariaDbBuilder) -> Result<Self> {
        let install_db = binaries::find("mariadb-install-db")?;
        let nest = Nest::new("mariadb")?;
        nest.write(&nest.dir().join("init.sql"), INIT.as_bytes())?;
        let mut install = nest.server_command(&install_db);
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", nest.dir().join("data").display()));
        nest.run(install).await?;
        if let Some(identity) = &options.tls {
            identity.write(&nest)?;
        }
        let (port, tls) = (ReservedPort::any()?, options.tls.is_some());
        let mariadb = Self { server: Mutex::new(None), nest, port, tls };
        mariadb.run().await?;
        Ok(mariadb)
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

    /// Runs SQL in `database` through the command line client and returns the bare result, a line per row.
    ///
    /// # Errors
    /// Fails with the server's words when the SQL does not succeed.
    pub async fn query(&self, database: &str, sql: &str) -> Result<String> {
        query(&self.nest, self.port.number(), self.tls, database, sql).await
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
        self.run().await.context("restart mariadb")
    }

    async fn run(&self) -> Result<()> {
        let dir = self.nest.dir();
        let mut command = self.nest.server_command(&binaries::find("mariadbd")?);
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"]);
        // Enough for tests; a commit reaches the operating system, which writes it when it likes.
        command.args(["--innodb-flush-log-at-trx-commit=2", "--loose-innodb-doublewrite=0"]);
        command.args(["--innodb-buffer-pool-size=32M", "--loose-innodb-use-native-aio=0"]);
        command.args(["--character-set-server=utf8mb4", "--max-connections=200"]);
        command.arg(format!("--port={}", self.port.number()));
        for (option, file) in
            [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid"), ("init-file", "init.sql")]
        {
            command.arg(format!("--{option}={}", dir.join(file).display()));
        }
        if self.tls {
            let (certificate, key) = Identity::files(&self.nest);
            command.arg("--require-secure-transport=ON");
            command.arg(format!("--ssl-cert={}", certificate.display()));
            command.arg(format!("--ssl-key={}", key.display()));
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

/// Runs SQL through the command line client.
pub(crate) async fn query(nest: &Nest, port: u16, tls: bool, database: &str, sql: &str) -> Result<String> {
    let mut client = nest.command(&binaries::find("mariadb")?);
    client.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--connect-timeout=10"]);
    if tls {
        client.args(["--ssl", "--skip-ssl-verify-server-cert"]);
    }
    client.args(["--user=grey", "--password=grey", "--batch", "--skip-column-names"]);
    client.arg(format!("--port={port}")).arg(format!("--database={database}"));
    client.args(["--execute", sql]);
    Ok(nest.run(client).await?.trim_end().to_owned())
}
