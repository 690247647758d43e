//! A TCP link between a client and a server that a test can cut or clog.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use crate::port::ReservedPort;

/// Connections forwarded at once; further ones are closed at once.
const MAX_CONNECTIONS: usize = 1024;

/// Longest wait for the server to take a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait for the address of a link that is opened again, and the time between two tries.
const BIND_DEADLINE: Duration = Duration::from_secs(10);
const BIND_PAUSE: Duration = Duration::from_millis(5);

/// Commands on their way; callers wait for each.
const COMMANDS: usize = 1;

const CHUNK_BYTES: usize = 16 * 1024;

/// A TCP proxy on a loopback port in front of one server; its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    commands: mpsc::Sender<(Link, oneshot::Sender<io::Result<()>>)>,
    link: watch::Receiver<Link>,
    allowance: Arc<AtomicU64>,
    task: AbortHandle,
}

/// The state of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Open,
    Stalled,
    Cut,
}

impl Proxy {
    /// Starts an open link to `server`, which need not run yet.
    ///
    /// # Errors
    /// Fails when there is no free port.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let port = ReservedPort::any().context("reserve a port for the proxy")?;
        let addr = port.addr();
        let listener = TcpListener::bind(addr).await.context("bind the proxy")?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (link, seen) = watch::channel(Link::Open);
        let allowance = Arc::new(AtomicU64::new(u64::MAX));
        let task = Task {
            server,
            port,
            listener: Some(listener),
            inbox,
            link,
            allowance: Arc::clone(&allowance),
            connections: JoinSet::new(),
        };
        let task = tokio::spawn(task.run()).abort_handle();
        Ok(Self { addr, commands, link: seen, allowance, task })
    }

    /// Returns the address for clients, which stays the same.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes all connections and refuses new ones; both are so when this returns.
    ///
    /// # Errors
    /// Fails when the runtime that the proxy was started on is gone.
    pub async fn cut(&self) -> Result<()> {
        self.set(Link::Cut).await.context("cut the link")
    }

    /// Lets so many bytes more go to the server, then closes everything as [`cut`](Self::cut) does.
    ///
    /// This cuts in the middle of what the client does, however quick it is. A link that was healed has no limit.
    pub fn cut_after(&self, bytes: u64) {
        self.allowance.store(bytes, Ordering::Relaxed);
    }

    /// Waits until the link is cut.
    ///
    /// # Errors
    /// Fails when the runtime that the proxy was started on is gone.
    pub async fn until_cut(&self) -> Result<()> {
        self.link.clone().wait_for(|link| *link == Link::Cut).await.context("wait for the cut")?;
        Ok(())
    }

    /// Keeps and takes connections but forwards nothing, as a network that loses all packets.
    ///
    /// # Errors
    /// Fails when the runtime that the proxy was started on is gone.
    pub async fn stall(&self) -> Result<()> {
        self.set(Link::Stalled).await.context("stall the link")
    }

    /// Forwards again, first what a stall held up.
    ///
    /// # Errors
    /// Fails when the runtime that the proxy was started on is gone.
    pub async fn heal(&self) -> Result<()> {
        self.set(Link::Open).await.context("heal the link")
    }

    async fn set(&self, link: Link) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.commands.send((link, done)).await.context("reach the proxy")?;
        Ok(answer.await.context("reach the proxy")??)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Owns the listener and all connections.
struct Task {
    server: SocketAddr,
    port: ReservedPort,
    listener: Option<TcpListener>,
    inbox: mpsc::Receiver<(Link, oneshot::Sender<io::Result<()>>)>,
    link: watch::Sender<Link>,
    /// Bytes that may still go to the server.
    allowance: Arc<AtomicU64>,
    connections: JoinSet<()>,
}

impl Task {
    async fn run(mut self) {
        loop {
            tokio::select! {
                command = self.inbox.recv() => {
                    let Some((link, done)) = command else { return };
                    // A caller that stopped waiting does not want the answer.
                    drop(done.send(self.set(link).await));
                }
                Some(client) = accept(self.listener.as_ref()) => self.connect(client),
                Some(_) = self.connections.join_next() => self.cut_if_spent().await,
            }
        }
    }

    async fn set(&mut self, link: Link) -> io::Result<()> {
        self.allowance.store(u64::MAX, Ordering::Relaxed);
        if link == Link::Cut {
            self.listener = None;
            self.connections.shutdown().await;
        } else if self.listener.is_none() {
            self.listener = Some(bind(self.port.addr()).await?);
        }
        self.link.send_replace(link);
        Ok(())
    }

    async fn cut_if_spent(&mut self) {
        if self.allowance.load(Ordering::Relaxed) == 0 {
            // Cutting binds nothing, so it does not fail.
            drop(self.set(Link::Cut).await);
        }
    }

    fn connect(&mut self, client: TcpStream) {
        if self.connections.len() < MAX_CONNECTIONS {
            // A connection's end for whatever reason is an ordinary event here.
            let allowance = Arc::clone(&self.allowance);
            let forward = forward(client, self.server, self.link.subscribe(), allowance);
            self.connections.spawn(async move { drop(forward.await) });
        }
    }
}

/// A process that is being started has a copy of the closed listener until it runs its own program.
async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let end = Instant::now() + BIND_DEADLINE;
    loop {
        match TcpListener::bind(addr).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                tokio::time::sleep(BIND_PAUSE).await;
            }
            result => return result,
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

async fn forward(
    client: TcpStream,
    server: SocketAddr,
    mut link: watch::Receiver<Link>,
    allowance: Arc<AtomicU64>,
) -> Result<()> {
    open(&mut link).await?;
    let server = timeout(CONNECT_DEADLINE, TcpStream::connect(server)).await??;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let unlimited = AtomicU64::new(u64::MAX);
    tokio::try_join!(
        pump(client_read, server_write, link.clone(), &allowance),
        pump(server_read, client_write, link.clone(), &unlimited)
    )?;
    Ok(())
}

/// Copies one direction while the link is open, and passes the end of the stream on.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut link: watch::Receiver<Link>,
    allowance: &AtomicU64,
) -> Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        // Asked after the read: what arrives during a stall waits here.
        open(&mut link).await?;
        let Some(read) = chunk.get(..length).filter(|read| !read.is_empty()) else {
            to.shutdown().await?;
            return Ok(());
        };
        spend(allowance, read.len())?;
        to.write_all(read).await?;
    }
}

/// Takes `bytes` from what may still be forwarded; where they exceed it, nothing may any more.
fn spend(allowance: &AtomicU64, bytes: usize) -> Result<()> {
    let bytes = u64::try_from(bytes)?;
    let left = |allowed: u64| if allowed == u64::MAX { None } else { Some(allowed.saturating_sub(bytes)) };
    match allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
        Ok(allowed) if allowed <= bytes => bail!("the link's allowance is spent"),
        _ => Ok(()),
    }
}

async fn open(link: &mut watch::Receiver<Link>) -> Result<()> {
    link.wait_for(|link| *link == Link::Open).await.context("wait for the link")?;
    Ok(())
}
