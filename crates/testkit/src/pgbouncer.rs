//! A private PgBouncer, a pooler before a PostgreSQL server.

use std::net::SocketAddr;

use anyhow::Result;

use crate::binaries;
use crate::nest::Nest;
use crate::port::{ReservedPort, with_fresh_ports};
use crate::postgres::Postgres;
use crate::server::Server;

/// The log line that says that it serves.
const READY: &str = "process up";

/// A private PgBouncer; gone when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    // The order is that of the end: the process, then its directory.
    _server: Server,
    _nest: Nest,
    port: ReservedPort,
}

/// Options of a [`PgBouncer`].
#[derive(Clone, Debug)]
pub struct PgBouncerBuilder {
    mode: &'static str,
    ignored: &'static str,
    size: u32,
}

impl PgBouncerBuilder {
    /// `session`, `transaction` (the default) or `statement`.
    #[must_use]
    pub fn mode(mut self, mode: &'static str) -> Self {
        self.mode = mode;
        self
    }

    /// Passes over settings that travel with the start of a session, rather than refusing the session.
    #[must_use]
    pub fn ignores_options(mut self) -> Self {
        self.ignored = "extra_float_digits,options";
        self
    }

    /// How many sessions on the server each database has at most; 2 unless said.
    #[must_use]
    pub fn size(mut self, size: u32) -> Self {
        self.size = size;
        self
    }

    /// Starts it before `postgres`.
    ///
    /// # Errors
    /// Fails when PgBouncer is not installed or is not ready within a minute.
    pub async fn start(self, postgres: &Postgres) -> Result<PgBouncer> {
        with_fresh_ports("pgbouncer", || PgBouncer::try_start(self.clone(), postgres.addr())).await
    }
}

impl PgBouncer {
    /// Returns the default options.
    pub fn builder() -> PgBouncerBuilder {
        PgBouncerBuilder { mode: "transaction", ignored: "extra_float_digits", size: 2 }
    }

    async fn try_start(options: PgBouncerBuilder, before: SocketAddr) -> Result<Self> {
        let program = binaries::find("pgbouncer")?;
        let nest = Nest::new("pgbouncer")?;
        let port = ReservedPort::any()?;
        let PgBouncerBuilder { mode, ignored, size } = options;
        let (host, server, own) = (before.ip(), before.port(), port.number());
        let file = nest.dir().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={host} port={server} user=grey\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {own}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
             default_pool_size = {size}\nmax_client_conn = 200\nignore_startup_parameters = {ignored}\n"
        );
        nest.write(&file, text.as_bytes())?;
        let mut command = nest.server_command(&program);
        command.arg(&file);
        let server = Server::start(command, &nest.dir().join("server.log"), READY).await?;
        Ok(Self { _server: server, _nest: nest, port })
    }

    /// Returns the URL of a database behind it.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://grey@{}/{database}", self.port.addr())
    }
}
