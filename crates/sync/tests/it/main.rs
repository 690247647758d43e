//! Replicas that meet over shared state, asked over real ports.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::str_to_string,
    clippy::needless_pass_by_value,
    clippy::large_futures,
    reason = "test code panics"
)]

mod access;
mod desk;
mod gauges;
mod lead;
mod replica;
mod requests;
mod rest;

use std::time::Duration;

/// Longest wait for anything that should happen.
const DEADLINE: Duration = Duration::from_secs(60);
