//! One Redis process of any kind.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use crate::binaries;
use crate::nest::Nest;
use crate::port::ReservedPort;
use crate::server::{Server, not_running};

/// Longest wait for a connection or a reply; the client's own half second is short for a busy machine.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// What a Redis process is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Store,
    Sentinel,
}

impl Kind {
    /// The log line that says that this kind serves.
    fn ready_line(self) -> &'static str {
        match self {
            Self::Store => "Ready to accept connections",
            Self::Sentinel => "Sentinel ID is",
        }
    }
}

/// One Redis process with its port and its directory, which outlast the process.
#[derive(Debug)]
pub(crate) struct Node {
    server: Mutex<Option<Server>>,
    kind: Kind,
    port: ReservedPort,
    password: Option<String>,
    dir: PathBuf,
}

impl Node {
    /// Starts a node in a directory of its own; `directives` are lines of the configuration file.
    pub(crate) async fn start(
        nest: &Nest,
        kind: Kind,
        port: ReservedPort,
        password: Option<&str>,
        directives: &[String],
    ) -> Result<Self> {
        let dir = nest.subdir(&port.number().to_string())?;
        let mut config = vec![
            format!("port {}", port.number()),
            "bind 127.0.0.1".to_owned(),
            "protected-mode no".to_owned(),
            "daemonize no".to_owned(),
            "logfile \"\"".to_owned(),
            format!("dir {}", dir.display()),
        ];
        if kind == Kind::Store {
            config.extend(["save \"\"".to_owned(), "appendonly no".to_owned()]);
        }
        if let Some(password) = password {
            config.extend([format!("requirepass {password}"), format!("masterauth {password}")]);
        }
        config.extend_from_slice(directives);
        // Sentinel and CONFIG REWRITE replace this file, so the server must own it.
        nest.write(&dir.join("redis.conf"), (config.join("\n") + "\n").as_bytes())?;
        let password = password.map(str::to_owned);
        let node = Self { server: Mutex::new(None), kind, port, password, dir };
        node.run(nest).await?;
        Ok(node)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn url(&self) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@{}/", self.addr()),
            None => format!("redis://{}/", self.addr()),
        }
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.server().as_ref().map(Server::id)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.server().is_some()
    }

    /// Starts the process again, on the same port and whatever data its directory holds.
    pub(crate) async fn run(&self, nest: &Nest) -> Result<()> {
        let mut command: Command = nest.server_command(&binaries::find("redis-server")?);
        command.arg(self.dir.join("redis.conf"));
        if self.kind == Kind::Sentinel {
            command.arg("--sentinel");
        }
        let server = Server::start(command, &self.dir.join("server.log"), self.kind.ready_line()).await?;
        *self.server() = Some(server);
        Ok(())
    }

    pub(crate) fn kill9(&self) -> Result<()> {
        self.server().take().map_or(Ok(()), |mut server| server.kill9())
    }

    pub(crate) fn pause(&self) -> Result<()> {
        self.server().as_ref().ok_or_else(not_running)?.pause()
    }

    pub(crate) fn resume(&self) -> Result<()> {
        self.server().as_ref().ok_or_else(not_running)?.resume()
    }

    /// Removes the stored data of a process that does not run; configuration and log stay.
    pub(crate) fn remove_data(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else if entry.file_name() != "redis.conf" && entry.file_name() != "server.log" {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Opens a new connection with long deadlines.
    pub(crate) async fn connection(&self) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CALL_DEADLINE))
            .set_response_timeout(Some(CALL_DEADLINE));
        let client = Client::open(self.url())?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        connection.with_context(|| format!("connect to redis at {}", self.addr()))
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
