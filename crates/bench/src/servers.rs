//! Servers to be measured against, each in a process of its own.
//!
//! A global allocator is a choice of a whole program, so there are two: `grey-bench` allocates as the router does and
//! serves the echo on the data plane's server; `grey-bench-untuned` has the system's allocator and tokio's default
//! runtime and serves what one writes first.

mod echo;
mod lua;
mod only_route;
mod read;

pub(crate) use lua::fill as fill_lua;

use anyhow::Result;
use clap::Subcommand;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

/// What a server says on its output once it listens; the address follows.
pub(crate) const LISTENING: &str = "listening on ";

/// What `grey-bench` serves for its own measurements.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Tuned {
    /// A bare echo on the data plane's server.
    Echo,
    /// Reads a whole projection with a bare client, and ends.
    ReadProjection {
        /// URL of Redis.
        redis: String,
    },
}

/// What `grey-bench-untuned` serves.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Untuned {
    /// A bare echo on the server of tonic's first example.
    Echo,
    /// Decides in a Redis script on every call.
    Lua {
        /// URL of Redis.
        redis: String,
    },
}

impl Tuned {
    pub(crate) fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self {
            Self::Echo => runtime.block_on(echo::tuned()),
            Self::ReadProjection { redis } => runtime.block_on(read::projection(&redis)),
        }
    }
}

impl Untuned {
    pub(crate) fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Runtime::new()?;
        match self {
            Self::Echo => runtime.block_on(echo::usual()),
            Self::Lua { redis } => runtime.block_on(lua::serve(&redis)),
        }
    }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn announce(addr: SocketAddr) {
    // Fails only if nobody reads, and then nobody measures either.
    writeln!(std::io::stdout(), "{LISTENING}{addr}").ok();
}

/// The tuned echo in this process, until `stop`.
#[cfg(test)]
pub(crate) fn test_echo(stop: tokio_util::sync::CancellationToken) -> SocketAddr {
    echo::start_tuned(stop).expect("the echo starts").local_addr()
}
