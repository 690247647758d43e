//! Coordination between the services, in memory or in Redis.
//!
//! Eight small traits, each one concern: the [`Feed`] of events, the [`Projection`] that routers load,
//! the [`Instances`] that registries mirror, [`Leases`] with fencing tokens, [`Turns`] for a
//! fleet-wide round robin, the routers' [`Heartbeats`], and [`Requests`] to leaders with the [`Statuses`] that
//! leaders tell. [`State`] holds one implementation of
//! each; `tests/it/conformance` holds every implementation to the same promises.
//!
//! On top of them: the [`publisher`] brings the control plane's log into feed and projection, the
//! [`follower`] turns feed and projection into a routing table.
//!
//! What it does *not* do: it decides nothing and knows neither SQL nor gRPC.

pub mod feed;
pub mod follower;
pub mod heartbeats;
pub mod instances;
pub mod leases;
pub mod memory;
pub mod projection;
pub mod publisher;
pub mod redis;
pub mod requests;
pub mod statuses;
pub mod turns;

mod digests;
mod error;
mod load;
mod state;

pub use digests::{Digests, InvalidDigests};
pub use error::Error;
pub use feed::Feed;
pub use heartbeats::Heartbeats;
pub use instances::Instances;
pub use leases::{FencingToken, Leases};
pub use projection::Projection;
pub use requests::Requests;
pub use state::State;
pub use statuses::Statuses;
pub use turns::Turns;
