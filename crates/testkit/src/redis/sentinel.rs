//! A Redis master with replicas, watched by sentinels.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use redis::{InfoDict, Value, cmd, from_redis_value};

use super::node::{Kind, Node};
use crate::eventually::retry;
use crate::nest::Nest;
use crate::port::{ReservedPort, with_fresh_ports};

/// The name under which the sentinels know the master.
const MASTER_NAME: &str = "grey";

const REPLICAS: usize = 2;
const SENTINELS: usize = 3;

/// Longest wait for agreement among the servers.
const DEADLINE: Duration = Duration::from_secs(60);

/// A private Redis master, two replicas and three sentinels, which replace a dead master after about a second;
/// gone when dropped.
#[derive(Debug)]
pub struct RedisSentinel {
    // The order is that of the end: the processes, then their directory.
    stores: Vec<Node>,
    sentinels: Vec<Node>,
    nest: Nest,
}

impl RedisSentinel {
    /// Starts the six servers and waits until the sentinels could replace the master.
    ///
    /// # Errors
    /// Fails when Redis is not installed or the servers do not find each other within a minute.
    pub async fn start() -> Result<Self> {
        with_fresh_ports("redis under sentinel", Self::try_start).await
    }

    async fn try_start() -> Result<Self> {
        let nest = Nest::new("sentinel")?;
        let sync_at_once = "repl-diskless-sync-delay 0".to_owned();
        let directives = [sync_at_once.clone()];
        let master = Node::start(&nest, Kind::Store, ReservedPort::any()?, None, &directives).await?;
        let master_port = master.addr().port();
        let mut stores = vec![master];
        for _ in 0..REPLICAS {
            let directives = [sync_at_once.clone(), format!("replicaof 127.0.0.1 {master_port}")];
            stores.push(Node::start(&nest, Kind::Store, ReservedPort::any()?, None, &directives).await?);
        }
        // The sentinels must find the replicas at their first look; the next one is ten seconds later.
        retry(DEADLINE, "attach the replicas", || replicas_attached(&stores)).await?;
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            let directives = [
                format!("sentinel monitor {MASTER_NAME} 127.0.0.1 {master_port} 2"),
                format!("sentinel down-after-milliseconds {MASTER_NAME} 1000"),
                format!("sentinel failover-timeout {MASTER_NAME} 3000"),
                format!("sentinel parallel-syncs {MASTER_NAME} {REPLICAS}"),
            ];
            sentinels
                .push(Node::start(&nest, Kind::Sentinel, ReservedPort::any()?, None, &directives).await?);
        }
        retry(DEADLINE, "introduce the sentinels", || sentinels_ready(&sentinels)).await?;
        Ok(Self { stores, sentinels, nest })
    }

    /// Returns the name under which the sentinels know the master.
    pub fn master_name(&self) -> &'static str {
        MASTER_NAME
    }

    /// Returns the URLs of the sentinels.
    pub fn sentinel_urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Node::url).collect()
    }

    /// Returns the addresses of the sentinels.
    pub fn sentinel_addrs(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(Node::addr).collect()
    }

    /// Returns the address of the master as all sentinels agree on.
    ///
    /// # Errors
    /// Fails when they do not agree within a minute.
    pub async fn master_addr(&self) -> Result<SocketAddr> {
        retry(DEADLINE, "agree on a master", || self.agreed_master()).await
    }

    /// Kills the master with `SIGKILL` and returns the address that it had.
    ///
    /// # Errors
    /// Fails when the sentinels name no running master.
    pub async fn kill_master(&self) -> Result<SocketAddr> {
        let addr = self.master_addr().await?;
        self.store(addr)?.kill9()?;
        Ok(addr)
    }

    /// Waits until all sentinels name a master other than `old` and it takes writes; returns its address.
    ///
    /// # Errors
    /// Fails when that does not happen within a minute.
    pub async fn wait_for_new_master(&self, old: SocketAddr) -> Result<SocketAddr> {
        let look = || async move {
            let addr = self.agreed_master().await?;
            ensure!(addr != old, "master is still {old}");
            let (role, _) = role_and_replicas(self.store(addr)?).await?;
            ensure!(role == "master", "{addr} is still a {role}");
            Ok(addr)
        };
        retry(DEADLINE, "elect a new master", look).await
    }

    /// Starts the killed server at `addr` again; the sentinels make it a replica of the present master.
    ///
    /// # Errors
    /// Fails when no server has this address or it does not come up.
    pub async fn restart(&self, addr: SocketAddr) -> Result<()> {
        let store = self.store(addr)?;
        store.kill9()?;
        store.run(&self.nest).await.with_context(|| format!("restart redis at {addr}"))
    }

    async fn agreed_master(&self) -> Result<SocketAddr> {
        let mut agreed = None;
        for sentinel in &self.sentinels {
            let mut connection = sentinel.connection().await?;
            let mut ask = cmd("SENTINEL");
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg(MASTER_NAME);
            let (host, port): (String, u16) = ask.query_async(&mut connection).await?;
            let addr = SocketAddr::new(host.parse()?, port);
            ensure!(*agreed.get_or_insert(addr) == addr, "sentinels do not agree");
        }
        agreed.context("ask no sentinel")
    }

    fn store(&self, addr: SocketAddr) -> Result<&Node> {
        let store = self.stores.iter().find(|store| store.addr() == addr);
        store.with_context(|| format!("find the redis server at {addr}"))
    }
}

/// The role of a store and how many replicas are attached to it.
async fn role_and_replicas(store: &Node) -> Result<(String, usize)> {
    let mut connection = store.connection().await?;
    let info: InfoDict = cmd("INFO").arg("replication").query_async(&mut connection).await?;
    let role = info.get("role").context("read the role")?;
    let online = |n: usize| {
        let replica: Option<String> = info.get(&format!("slave{n}"));
        replica.is_some_and(|line| line.contains("state=online"))
    };
    Ok((role, (0..REPLICAS).filter(|n| online(*n)).count()))
}

async fn replicas_attached(stores: &[Node]) -> Result<()> {
    let master = stores.first().context("find the master")?;
    let (_, replicas) = role_and_replicas(master).await?;
    ensure!(replicas == REPLICAS, "{replicas} of {REPLICAS} replicas are attached");
    Ok(())
}

/// Whether every sentinel knows the others and has two replicas to choose from.
async fn sentinels_ready(sentinels: &[Node]) -> Result<()> {
    for sentinel in sentinels {
        let mut connection = sentinel.connection().await?;
        let quorum: String =
            cmd("SENTINEL").arg("CKQUORUM").arg(MASTER_NAME).query_async(&mut connection).await?;
        ensure!(quorum.starts_with(&format!("OK {SENTINELS} ")), "quorum: {quorum}");
        let replicas: Vec<Value> =
            cmd("SENTINEL").arg("REPLICAS").arg(MASTER_NAME).query_async(&mut connection).await?;
        let mut linked = 0;
        for replica in replicas {
            let fields: std::collections::HashMap<String, String> = from_redis_value(replica)?;
            let is = |name: &str, value: &str| fields.get(name).is_some_and(|found| found == value);
            linked += usize::from(is("flags", "slave") && is("master-link-status", "ok"));
        }
        ensure!(linked == REPLICAS, "{linked} of {REPLICAS} replicas are known");
    }
    Ok(())
}
