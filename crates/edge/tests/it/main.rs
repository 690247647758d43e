//! Ports and clients over real sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod authority;
mod client;
mod service;
