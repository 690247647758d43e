//! A Redis cluster.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use redis::cmd;

use super::node::{Kind, Node};
use crate::binaries;
use crate::eventually::retry;
use crate::nest::Nest;
use crate::port::{ReservedPort, with_fresh_ports};

const MASTERS: usize = 3;
const NODES: usize = 2 * MASTERS;

/// The second port of a node, for the other nodes, is this much above the first in every Redis version.
const BUS_OFFSET: u16 = 10_000;

/// How many ports are looked at for one whose bus port is free too.
const PORT_TRIES: usize = 100;

/// Longest wait for agreement among the nodes.
const DEADLINE: Duration = Duration::from_secs(60);

/// A private Redis cluster of three masters with a replica each, which takes over about two seconds after its master
/// died; gone when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    // The order is that of the end: the processes, then their directory.
    nodes: Vec<Node>,
    nest: Nest,
    _bus_ports: Vec<ReservedPort>,
}

/// What one node says about another, from `CLUSTER NODES`.
#[derive(Debug)]
struct Peer {
    addr: SocketAddr,
    is_master: bool,
    is_alive: bool,
    is_linked: bool,
    has_slots: bool,
}

impl RedisCluster {
    /// Starts the six nodes and waits until all slots are served and every master has its replica.
    ///
    /// # Errors
    /// Fails when Redis is not installed or the cluster is not formed within a minute.
    pub async fn start() -> Result<Self> {
        with_fresh_ports("a redis cluster", Self::try_start).await
    }

    async fn try_start() -> Result<Self> {
        let nest = Nest::new("cluster")?;
        let directives = [
            "cluster-enabled yes".to_owned(),
            "cluster-config-file nodes.conf".to_owned(),
            "cluster-node-timeout 1500".to_owned(),
            // However old its data, a replica takes over: tests write little and wait for little.
            "cluster-replica-validity-factor 0".to_owned(),
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        let mut nodes = Vec::new();
        let mut bus_ports = Vec::new();
        for _ in 0..NODES {
            let (port, bus_port) = port_pair()?;
            nodes.push(Node::start(&nest, Kind::Store, port, None, &directives).await?);
            bus_ports.push(bus_port);
        }
        let mut create = nest.command(&binaries::find("redis-cli")?);
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| node.addr().to_string()));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]);
        nest.run(create).await?;
        let cluster = Self { nodes, nest, _bus_ports: bus_ports };
        cluster.wait_until_healthy().await?;
        Ok(cluster)
    }

    /// Returns the URLs of all nodes, also of killed ones.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    /// Returns the addresses of the masters, in the order of the nodes.
    ///
    /// # Errors
    /// Fails when no node answers.
    pub async fn masters(&self) -> Result<Vec<SocketAddr>> {
        let peers = self.peers(self.running().next().context("find a running node")?).await?;
        let masters = peers.into_iter().filter(|peer| peer.is_master && peer.is_alive && peer.has_slots);
        let mut masters: Vec<SocketAddr> = masters.map(|peer| peer.addr).collect();
        masters.sort_by_key(|addr| self.nodes.iter().position(|node| node.addr() == *addr));
        Ok(masters)
    }

    /// Kills a master with `SIGKILL` and returns the address that it had, without waiting for the takeover.
    ///
    /// # Errors
    /// Fails when no node answers.
    pub async fn kill_a_master(&self) -> Result<SocketAddr> {
        let addr = *self.masters().await?.first().context("find a master")?;
        self.node(addr)?.kill9()?;
        Ok(addr)
    }

    /// Waits until the slots of the killed master at `killed` are served by another node and every running node
    /// says `cluster_state:ok`.
    ///
    /// # Errors
    /// Fails when that does not happen within a minute.
    pub async fn wait_for_failover(&self, killed: SocketAddr) -> Result<()> {
        let look = || async move {
            for node in self.running() {
                let peers = self.peers(node).await?;
                let holds = peers.iter().any(|peer| peer.addr == killed && peer.has_slots);
                ensure!(!holds, "{killed} still holds slots for {}", node.addr());
                ensure_state_ok(node).await?;
            }
            Ok(())
        };
        retry(DEADLINE, "take over the slots of a killed master", look).await
    }

    /// Starts the killed node at `addr` again; it becomes a replica if its slots were taken over.
    ///
    /// # Errors
    /// Fails when no node has this address or it does not come up.
    pub async fn restart(&self, addr: SocketAddr) -> Result<()> {
        let node = self.node(addr)?;
        node.kill9()?;
        node.run(&self.nest).await.with_context(|| format!("restart the redis node at {addr}"))
    }

    /// Waits until all six nodes run, see each other and serve all slots, and every replica is attached.
    ///
    /// # Errors
    /// Fails when that does not happen within a minute.
    pub async fn wait_until_healthy(&self) -> Result<()> {
        retry(DEADLINE, "form a cluster", || self.ensure_healthy()).await
    }

    async fn ensure_healthy(&self) -> Result<()> {
        for node in &self.nodes {
            ensure_state_ok(node).await?;
            let peers = self.peers(node).await?;
            let linked = peers.iter().filter(|peer| peer.is_alive && peer.is_linked).count();
            ensure!(linked == NODES, "{} sees {linked} of {NODES} nodes", node.addr());
            let masters = peers.iter().filter(|peer| peer.is_master && peer.has_slots).count();
            ensure!(masters == MASTERS, "{} sees {masters} of {MASTERS} masters", node.addr());
            let replication = info(node, "INFO", "replication").await?;
            let detached = replication.contains("master_link_status:down");
            ensure!(!detached, "{} is not attached to its master", node.addr());
        }
        Ok(())
    }

    async fn peers(&self, node: &Node) -> Result<Vec<Peer>> {
        let lines = info(node, "CLUSTER", "NODES").await?;
        lines.lines().map(parse_peer).collect()
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    fn node(&self, addr: SocketAddr) -> Result<&Node> {
        let node = self.nodes.iter().find(|node| node.addr() == addr);
        node.with_context(|| format!("find the redis node at {addr}"))
    }
}

async fn info(node: &Node, command: &str, about: &str) -> Result<String> {
    let mut connection = node.connection().await?;
    let reply = cmd(command).arg(about).query_async(&mut connection).await;
    reply.with_context(|| format!("ask {} for {command} {about}", node.addr()))
}

async fn ensure_state_ok(node: &Node) -> Result<()> {
    let state = info(node, "CLUSTER", "INFO").await?;
    ensure!(state.contains("cluster_state:ok"), "{} does not serve all slots", node.addr());
    Ok(())
}

/// Reads one line: id, address, flags, master, two times, epoch, link, slots.
fn parse_peer(line: &str) -> Result<Peer> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[_, addr, flags, _, _, _, _, link, ref slots @ ..] = fields.as_slice() else {
        anyhow::bail!("read the cluster node `{line}`");
    };
    let addr = addr.split(['@', ',']).next().unwrap_or(addr);
    let has = |flag: &str| flags.split(',').any(|found| found == flag);
    Ok(Peer {
        addr: addr.parse().with_context(|| format!("read the address in `{line}`"))?,
        is_master: has("master"),
        is_alive: !has("fail") && !has("fail?") && !has("handshake") && !has("noaddr"),
        is_linked: link == "connected",
        has_slots: !slots.is_empty(),
    })
}

fn port_pair() -> Result<(ReservedPort, ReservedPort)> {
    // Ports that do not serve are kept until the end, or the kernel might offer the same one again.
    let mut unfit = Vec::new();
    for _ in 0..PORT_TRIES {
        let port = ReservedPort::any()?;
        let bus = port.number().checked_add(BUS_OFFSET);
        match bus.map(ReservedPort::exactly) {
            Some(Ok(bus)) => return Ok((port, bus)),
            _ => unfit.push(port),
        }
    }
    anyhow::bail!("find a port with a free one {BUS_OFFSET} above it, among {}", unfit.len())
}
