//! Free loopback ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context as _, Result};
use tokio::net::TcpSocket;

use crate::server::is_port_clash;

/// How often a server is started again on another port when somebody took the first one.
const ATTEMPTS: usize = 3;

/// Returns a loopback port that was free a moment ago, as the kernel chose it.
///
/// Somebody else may take it before the caller binds it; where that matters use [`ReservedPort`], or bind
/// port 0 and ask what was bound.
///
/// # Errors
/// Fails when the kernel has no port left.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A loopback port kept for one server, also while that server is down.
///
/// The port is bound but not listening, with `SO_REUSEADDR`: a server that sets that option too (Redis,
/// PostgreSQL, MariaDB and tokio listeners do) binds it as usual, while the kernel gives it to nobody who asks
/// for *any* port, and a connection attempt is refused. Without this a restarted server could find its port taken by
/// an outgoing connection, or a client that keeps reconnecting could end up connected to itself.
#[derive(Debug)]
pub struct ReservedPort {
    _socket: TcpSocket,
    addr: SocketAddr,
}

impl ReservedPort {
    /// Reserves a port that the kernel chooses.
    ///
    /// # Errors
    /// Fails when the kernel has no port left.
    pub fn any() -> io::Result<Self> {
        Self::exactly(0)
    }

    /// Reserves `port`.
    ///
    /// # Errors
    /// Fails when the port is in use.
    pub fn exactly(port: u16) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let addr = socket.local_addr()?;
        Ok(Self { _socket: socket, addr })
    }

    /// Returns the loopback address with this port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the port's number.
    pub fn number(&self) -> u16 {
        self.addr.port()
    }
}

/// Runs `start`, which picks its own ports, again when it lost one of them to somebody else.
pub(crate) async fn with_fresh_ports<T, F>(what: &str, mut start: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut attempt = 1;
    loop {
        match start().await {
            Err(error) if attempt < ATTEMPTS && is_port_clash(&error) => attempt += 1,
            result => return result.with_context(|| format!("start {what}")),
        }
    }
}
