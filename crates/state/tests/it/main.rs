//! Every implementation of shared state held to the same promises, on real servers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::large_futures,
    reason = "test data is small, its futures need not be"
)]

mod backend;
mod batches;
mod conformance;
mod epochs;
mod failover;
mod faults;
mod fencing;
mod heal;
mod history;
mod instances;
mod layout;
mod levels;
mod liveness;
mod samples;
mod world;

use grey_state::redis::Options;
use grey_testkit::Redis;

/// Options for a server, with deadlines that suit a busy machine.
fn options_of(redis: &Redis) -> Options {
    Options { urls: vec![redis.url()], ..backend::options() }
}
