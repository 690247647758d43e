//! Whole-system journeys: separate processes, real PostgreSQL, real Redis, real faults.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test code panics and tells how far it is"
)]

mod compose;
mod fleet;
mod journeys;
mod load;
mod model;
