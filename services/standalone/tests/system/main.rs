//! Whole-system journeys: separate processes, real PostgreSQL, Redis and Nacos, real faults.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test code panics and tells how far it is"
)]

mod compose;
mod damage;
mod faults;
mod fleet;
mod hostile;
mod hosts;
mod journeys;
mod load;
mod membership;
mod migrations;
mod model;
mod nacos;
mod operator;
mod server;
mod strict;
mod tenants;
mod truth;
mod watched;
