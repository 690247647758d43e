//! The chassis, tested over real sockets and files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod access;
mod args;
mod config;
mod health;
mod http;
mod percore;
mod pki;
mod rpc;
mod shutdown;
mod taking;
mod telemetry;
mod tls;

use std::{future::Future, net::SocketAddr, time::Duration};

/// Far longer than anything here takes; reached only by a test that fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// An answer before the deadline.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("finished before the deadline")
}

/// Polls a condition until it holds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, poll).await.is_ok(), "{what}");
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
