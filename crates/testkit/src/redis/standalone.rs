//! A single Redis server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use redis::aio::MultiplexedConnection;

use super::node::{Kind, Node};
use crate::nest::Nest;
use crate::port::{ReservedPort, with_fresh_ports};

/// A private Redis server that persists nothing by itself; gone when dropped.
#[derive(Debug)]
pub struct Redis {
    // The order is that of the end: the process, then its directory.
    node: Node,
    nest: Nest,
}

/// The data of a Redis server at one moment, in Redis' own dump format.
#[derive(Clone, Debug)]
pub struct Dump(Vec<u8>);

/// Options of a [`Redis`] server.
#[derive(Clone, Debug, Default)]
pub struct RedisBuilder {
    password: Option<String>,
    directives: Vec<String>,
}

impl RedisBuilder {
    /// Requires `password` of every client; letters and digits only, so that it fits into a URL.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Adds a line to the configuration file, such as `maxmemory` with `2mb`.
    #[must_use]
    pub fn directive(mut self, name: &str, value: &str) -> Self {
        self.directives.push(format!("{name} {value}"));
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// Fails when Redis is not installed, refuses an option, or is not ready within a minute.
    pub async fn start(self) -> Result<Redis> {
        let password = self.password.as_deref();
        let plain = password.is_none_or(|text| text.chars().all(|c| c.is_ascii_alphanumeric()));
        ensure!(plain, "use a redis password of letters and digits only");
        let start = || async {
            let nest = Nest::new("redis")?;
            let port = ReservedPort::any()?;
            let node = Node::start(&nest, Kind::Store, port, password, &self.directives).await?;
            Ok(Redis { node, nest })
        };
        with_fresh_ports("redis", start).await
    }
}

impl Redis {
    /// Starts a server with the default options.
    ///
    /// # Errors
    /// Fails when Redis is not installed or is not ready within a minute.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns the default options.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// Returns the URL for clients, with the password if there is one.
    pub fn url(&self) -> String {
        self.node.url()
    }

    /// Returns the address, which stays the same through every restart.
    pub fn addr(&self) -> SocketAddr {
        self.node.addr()
    }

    /// Returns the server's working directory, where dumps and append-only files appear.
    pub fn dir(&self) -> &Path {
        self.node.dir()
    }

    /// Returns the process id, or nothing while the server is killed.
    pub fn id(&self) -> Option<u32> {
        self.node.id()
    }

    /// Opens a connection with deadlines of ten seconds.
    ///
    /// # Errors
    /// Fails when the server does not answer.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        self.node.connection().await
    }

    /// Kills the server with `SIGKILL`; the port refuses connections when this returns.
    ///
    /// # Errors
    /// Fails when the process cannot be signalled.
    pub fn kill9(&self) -> Result<()> {
        self.node.kill9()
    }

    /// Kills the server if it runs and starts it again with the data on its disk.
    ///
    /// That is nothing unless a directive (`appendonly`, `save`) or [`Redis::save_dump`] put some there.
    ///
    /// # Errors
    /// Fails when the server does not come up again.
    pub async fn restart(&self) -> Result<()> {
        self.kill9()?;
        self.node.run(&self.nest).await.context("restart redis")
    }

    /// Kills the server if it runs and starts it again on the same port without any data.
    ///
    /// # Errors
    /// Fails when the server does not come up again.
    pub async fn restart_empty(&self) -> Result<()> {
        self.kill9()?;
        self.node.remove_data()?;
        self.node.run(&self.nest).await.context("restart redis without data")
    }

    /// Returns the data as it is now.
    ///
    /// # Errors
    /// Fails when the server does not save.
    pub async fn save_dump(&self) -> Result<Dump> {
        let mut connection = self.connection().await?;
        let () = redis::cmd("SAVE").query_async(&mut connection).await.context("save a redis dump")?;
        Ok(Dump(fs::read(self.dump_path()).context("read the redis dump")?))
    }

    /// Kills the server if it runs and starts it again on the same port with the data of `dump`, as after a
    /// restore from a backup.
    ///
    /// A server with the directive `appendonly yes` reads no dump.
    ///
    /// # Errors
    /// Fails when the server does not come up again.
    pub async fn restart_from_dump(&self, dump: &Dump) -> Result<()> {
        self.kill9()?;
        self.node.remove_data()?;
        self.nest.write(&self.dump_path(), &dump.0)?;
        self.node.run(&self.nest).await.context("restart redis from a dump")
    }

    /// Freezes the server: connections stay open, nothing answers.
    ///
    /// # Errors
    /// Fails when the server is killed.
    pub fn pause(&self) -> Result<()> {
        self.node.pause()
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// Fails when the server is killed.
    pub fn resume(&self) -> Result<()> {
        self.node.resume()
    }

    fn dump_path(&self) -> std::path::PathBuf {
        self.node.dir().join("dump.rdb")
    }
}
