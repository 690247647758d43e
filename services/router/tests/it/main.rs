//! The router in one process, on shared state in memory or in a real Redis.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod world;

mod bad_input;
mod conformance;
mod drain;
mod explain;
mod heartbeat;
mod holds;
mod http;
mod metrics;
mod outage;
mod pages;
mod process;
mod redis;
mod report;
mod route;
mod snapshot;
mod stream;
mod tls;
mod turns;
mod watch;
