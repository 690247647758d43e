//! The router in one process, on shared state in memory or in a real Redis.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod world;

mod http;
mod route;
