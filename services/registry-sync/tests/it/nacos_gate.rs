//! Stands before a Nacos server and can turn connections into dead ones, for good.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use grey_runtime::tls::Acceptor;
use grey_testkit::{Nacos, ReservedPort};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Clients expect gRPC this much above the HTTP port.
const GRPC_OFFSET: u16 = 1000;

const PORT_TRIES: usize = 100;

/// Two ports that lead to those of a server.
pub(crate) struct Gate {
    http: ReservedPort,
    _grpc: ReservedPort,
    is_open: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Gate {
    /// Opens a gate that lets everything through.
    pub(crate) async fn open(server: &Nacos) -> Result<Self> {
        Self::start(server, None).await
    }

    /// Opens one that encrypts: what clients send must be for `acceptor`.
    pub(crate) async fn encrypted(server: &Nacos, acceptor: Acceptor) -> Result<Self> {
        Self::start(server, Some(acceptor)).await
    }

    async fn start(server: &Nacos, acceptor: Option<Acceptor>) -> Result<Self> {
        let (http, grpc) = ports()?;
        let is_open = watch::Sender::new(true);
        let mut tasks = JoinSet::new();
        for (port, target) in [(&http, server.addr()), (&grpc, server.grpc_addr())] {
            let listener = TcpListener::bind(port.addr()).await?;
            tasks.spawn(accept(listener, target, acceptor.clone(), is_open.subscribe()));
        }
        Ok(Self { http, _grpc: grpc, is_open, _tasks: tasks })
    }

    /// The address to configure clients with.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.http.addr()
    }

    /// From now on, connections are taken and nothing passes through them or through those that there are.
    pub(crate) fn shut(&self) {
        self.is_open.send_replace(false);
    }

    /// New connections lead to the server again; those that were there when it was shut stay dead.
    pub(crate) fn reopen(&self) {
        self.is_open.send_replace(true);
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    acceptor: Option<Acceptor>,
    is_open: watch::Receiver<bool>,
) {
    let mut links = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, is_open) = (acceptor.clone(), is_open.clone());
        links.spawn(async move {
            match acceptor {
                None => link(stream, target, is_open).await,
                Some(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    link(stream, target, is_open).await;
                }
            }
        });
    }
}

/// Passes on until the gate is shut, and then keeps both ends open without ever passing anything on.
async fn link(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    target: SocketAddr,
    mut is_open: watch::Receiver<bool>,
) {
    let mut server = None;
    if *is_open.borrow_and_update() {
        let Ok(mut connected) = TcpStream::connect(target).await else { return };
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut stream, &mut connected) => return,
            _ = is_open.changed() => server = Some(connected),
        }
    }
    std::future::pending::<()>().await;
    drop((stream, server));
}

fn ports() -> Result<(ReservedPort, ReservedPort)> {
    let mut unfit = Vec::new();
    for _ in 0..PORT_TRIES {
        let port = ReservedPort::any()?;
        match port.number().checked_add(GRPC_OFFSET).map(ReservedPort::exactly) {
            Some(Ok(grpc)) => return Ok((port, grpc)),
            _ => unfit.push(port),
        }
    }
    None.context("find two ports at the right distance")
}
