//! Registries are followed, mirrored and asked about.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod file;
mod following;
mod nacos;
mod nacos_fleet;
mod probe;
mod registry_conformance;
