//! Encrypts connections to a cluster. The library does so for all clusters or none, and by certificates that a variable of
//! the environment names; so it is led to ports of this machine's loopback, behind which everything is encrypted.

use std::io;
use std::net::Ipv4Addr;

use grey_runtime::tls::{ClientOptions, Dialer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::client::{GRPC_OFFSET, split};
use super::fault::Fault;

/// How many ports are tried for one whose gRPC port is free too.
const PORT_TRIES: usize = 100;

/// Ways to the servers of one cluster, open until they are dropped.
#[derive(Debug)]
pub(super) struct Tunnels {
    servers: Vec<String>,
    _tasks: JoinSet<()>,
}

impl Tunnels {
    /// Opens a way to each of `servers`.
    pub(super) async fn open(servers: &[String], tls: &ClientOptions) -> Result<Self, Fault> {
        let failed = |cause: String| Fault::Tunnel { cause };
        let dialers = ["http/1.1", "h2"].map(|protocol| Dialer::new(tls, protocol));
        let [http, grpc] = dialers.map(|dialer| dialer.map_err(|error| failed(error.to_string())));
        let (http, grpc) = (http?, grpc?);
        let (mut local, mut tasks) = (Vec::new(), JoinSet::new());
        for (host, port) in servers.iter().filter_map(|server| split(server)) {
            let (plain, above) = listeners().await.map_err(|error| failed(error.to_string()))?;
            local.push(plain.local_addr().map_err(|error| failed(error.to_string()))?.to_string());
            tasks.spawn(serve(plain, http.clone(), host.to_owned(), port));
            tasks.spawn(serve(above, grpc.clone(), host.to_owned(), port.saturating_add(GRPC_OFFSET)));
        }
        Ok(Self { servers: local, _tasks: tasks })
    }

    /// Where they begin.
    pub(super) fn servers(&self) -> &[String] {
        &self.servers
    }
}

/// Two ports at the distance at which the library expects them.
async fn listeners() -> io::Result<(TcpListener, TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES {
        let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let Some(above) = plain.local_addr()?.port().checked_add(GRPC_OFFSET) else { continue };
        match TcpListener::bind((Ipv4Addr::LOCALHOST, above)).await {
            Ok(above) => return Ok((plain, above)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn serve(listener: TcpListener, dialer: Dialer, host: String, port: u16) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(links.spawn(link(stream, dialer.clone(), host.clone(), port))),
                Err(error) => {
                    tracing::warn!(%error, "a connection to nacos was not taken");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(_) = links.join_next() => {}
        }
    }
}

async fn link(mut stream: TcpStream, dialer: Dialer, host: String, port: u16) {
    let linked = async {
        let mut server = dialer.dial(&host, port).await?;
        copy_bidirectional(&mut stream, &mut server).await
    };
    if let Err(error) = linked.await {
        tracing::debug!(server.address = host, server.port = port, %error, "an encrypted connection to nacos ended");
    }
}
