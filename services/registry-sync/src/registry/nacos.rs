//! A Nacos cluster (2.x or 3.x, over gRPC by nacos-sdk), its services followed by push and by reading.
//!
//! A push says only *that* a service changed; what it is now is then read from the server. So nothing depends on the order
//! or the completeness of pushes, and one that was lost is made up for by the next read: services are also looked at in
//! turn, and all of them from time to time.
//!
//! The library does not say when the server is gone and then waits for it without end. Here every call has a deadline, and
//! the list of services, read every few seconds, is the sign of life.

mod catalog;
mod client;
mod fault;
mod follower;
mod instance;
mod login;
mod options;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use self::follower::Follower;
pub use self::options::Options;
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
        let follower = Follower::new(&self.options, sightings);
        if token.run_until_cancelled(follower.run(&again)).await.is_none() {
            tracing::debug!("nacos is no longer followed");
        }
        follower.end().await;
    }
}
