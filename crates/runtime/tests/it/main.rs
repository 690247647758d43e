//! The chassis, tested over real sockets and files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
