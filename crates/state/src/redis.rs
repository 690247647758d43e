//! Shared state in Redis: standalone, behind Sentinel, or a cluster.
//!
//! Every operation that must be atomic is one Lua script on declared keys of one cluster slot. Everything has a
//! deadline: while Redis is away, operations fail within it and the connection is restored in the background.

mod connection;
mod connector;
mod feed;
mod heartbeats;
mod instances;
mod keys;
mod leases;
mod options;
mod projection;
mod requests;
mod scripts;
mod statuses;
mod stream;
mod turns;
mod values;
mod wire;

pub use options::{Mode, Options, Password};

use crate::{Error, State};
use connection::Link;
use connector::Connector;
use std::sync::Arc;
use std::time::Duration;

impl State {
    /// Shared state in Redis. Does not wait for Redis: it is connected to in the background.
    ///
    /// # Errors
    /// [`Error::Config`] if the options cannot be used.
    pub async fn redis(options: &Options) -> Result<Self, Error> {
        options.validate()?;
        let link = Arc::new(Link::start(Connector::new(options)?));
        let short = Duration::from_millis(options.turn_timeout_ms);
        Ok(Self {
            feed: Arc::new(feed::RedisFeed::new(Arc::clone(&link), options.feed_length)),
            projection: Arc::new(projection::RedisProjection::new(Arc::clone(&link))),
            instances: Arc::new(instances::RedisInstances::new(Arc::clone(&link), options.instances_length)),
            leases: Arc::new(leases::RedisLeases::new(Arc::clone(&link))),
            turns: Arc::new(turns::RedisTurns::new(Arc::clone(&link), short)),
            heartbeats: Arc::new(heartbeats::RedisHeartbeats::new(Arc::clone(&link))),
            requests: Arc::new(requests::RedisRequests::new(Arc::clone(&link))),
            statuses: Arc::new(statuses::RedisStatuses::new(link)),
        })
    }
}
