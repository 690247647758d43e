//! Registries are followed, mirrored and asked about.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod configuration;
mod file;
mod following;
mod leading;
mod mending;
mod mirroring;
mod nacos;
mod nacos_fleet;
mod nacos_gate;
mod nacos_whole;
mod probe;
mod process;
mod registry_conformance;
mod replica;
