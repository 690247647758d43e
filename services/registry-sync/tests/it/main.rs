//! Registries are followed, mirrored and asked about.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod following;
mod nacos;
mod nacos_fleet;
