//! A Nacos cluster (2.x or 3.x, over gRPC by nacos-sdk), its services followed by push and by reading.
//!
//! A push says only *that* a service changed; what it is now is then read from the server. So nothing depends on the order
//! or the completeness of pushes, and one that was lost is made up for by the next read of everything, from time to time.
//!
//! The library does not say when the server is gone and then waits for it without end. Here every call has a deadline, and
//! the list of services, read every few seconds, is the sign of life.

mod catalog;
mod client;
mod detail;
mod fault;
mod follower;
mod instance;
mod login;
mod options;
mod tunnel;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use self::follower::Follower;
pub use self::options::Options;
use self::tunnel::Tunnels;
use super::{Registry, Sighting};

/// One Nacos cluster as a source of instances.
#[derive(Debug)]
pub struct Nacos {
    options: Options,
}

impl Nacos {
    /// Follows what `options` say; they must be valid.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Registry for Nacos {
    async fn follow(&self, sightings: mpsc::Sender<Sighting>, again: Arc<Notify>, token: CancellationToken) {
        let mut options = self.options.clone();
        let mut tunnels = None;
        while let Some(tls) = &self.options.tls {
            match Tunnels::open(&self.options.servers, tls).await {
                Ok(opened) => {
                    options.servers = opened.servers().to_vec();
                    tunnels = Some(opened);
                    break;
                }
                Err(fault) => {
                    let told = sightings.send(Sighting::Failed(fault.to_string())).await;
                    let retried = token.run_until_cancelled(tokio::time::sleep(options.retry)).await;
                    if told.is_err() || retried.is_none() {
                        return;
                    }
                }
            }
        }
        let follower = Follower::new(&options, sightings);
        if token.run_until_cancelled(follower.run(&again)).await.is_none() {
            tracing::debug!("nacos is no longer followed");
        }
        follower.end().await;
        drop(tunnels);
    }
}
