//! Makes connections: to the server, to the master that the sentinels name, or to a cluster.

use super::options::{Mode, Options};
use super::wire::Wire;
use crate::Error;
use redis::cluster::ClusterClient;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult, cmd,
};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// Knows how to connect; holds no connection.
pub(super) struct Connector {
    options: Options,
    nodes: Vec<ConnectionInfo>,
}

impl Connector {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        Ok(Self { nodes: options.nodes()?, options: options.clone() })
    }

    /// Longest wait for an answer.
    pub(super) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.options.response_timeout_ms)
    }

    /// Longest wait for a connection.
    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.options.connect_timeout_ms)
    }

    /// Makes a connection on which an answer may take up to `patience`.
    pub(super) async fn connect(&self, patience: Duration) -> RedisResult<Wire> {
        match self.options.mode {
            Mode::Standalone => {
                let node = self.nodes.first().ok_or_else(|| not_found("no address is configured"))?;
                self.single(node.clone()).await
            }
            Mode::Sentinel => self.master().await,
            Mode::Cluster => self.cluster(patience).await,
        }
    }

    async fn single(&self, node: ConnectionInfo) -> RedisResult<Wire> {
        // Deadlines are the caller's: one client-wide response timeout cannot fit short and blocking commands.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connecting = async {
            Client::open(node)?.get_multiplexed_async_connection_with_config(&config).await.map(Wire::Single)
        };
        timeout(self.connect_timeout(), connecting).await.unwrap_or_else(|_| Err(too_slow()))
    }

    async fn cluster(&self, patience: Duration) -> RedisResult<Wire> {
        let client = ClusterClient::builder(self.nodes.clone())
            .connection_timeout(self.connect_timeout())
            .response_timeout(patience)
            .overall_response_timeout(Some(patience))
            .retries(8)
            .min_retry_wait(20)
            .max_retry_wait(500)
            .build()?;
        // All nodes are asked one after the other; the dead ones may cost their time each.
        let most = self.connect_timeout() * u32::try_from(self.nodes.len().clamp(2, 16)).unwrap_or(2);
        let connecting = async { client.get_async_connection().await.map(Wire::cluster) };
        timeout(most, Box::pin(connecting)).await.unwrap_or_else(|_| Err(too_slow()))
    }

    /// Asks the sentinels in turn until one names a server that says itself that it is the master.
    async fn master(&self) -> RedisResult<Wire> {
        let mut last = not_found("no sentinel is configured");
        for sentinel in &self.nodes {
            match self.master_by(sentinel).await {
                Ok(wire) => return Ok(wire),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn master_by(&self, sentinel: &ConnectionInfo) -> RedisResult<Wire> {
        let mut ask = cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.options.master_name);
        let asked = self.single(sentinel.clone()).await?;
        let answer: Option<(String, u16)> = redis::from_redis_value(self.ask(asked, &ask).await?)?;
        let (host, port) = answer.ok_or_else(|| not_found("the sentinel does not know the master's name"))?;

        let addr = match sentinel.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        // A sentinel's own credentials are not the master's.
        let bare = sentinel.clone().set_addr(addr).set_redis_settings(redis::RedisConnectionInfo::default());
        let master = self.single(self.options.with_credentials(bare)).await?;
        let role = self.ask(master.clone(), &cmd("ROLE")).await?;
        let redis::Value::Array(role) = role else {
            return Err(not_found("the server does not tell its role"));
        };
        match role.first() {
            Some(redis::Value::BulkString(word)) if word == b"master" => Ok(master),
            _ => Err(not_found("the sentinel names a server that is no master yet")),
        }
    }

    async fn ask(&self, mut wire: Wire, command: &redis::Cmd) -> RedisResult<redis::Value> {
        timeout(self.response_timeout(), wire.command(command)).await.unwrap_or_else(|_| Err(too_slow()))
    }
}

fn too_slow() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "no connection in time").into()
}

fn not_found(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, why))
}
