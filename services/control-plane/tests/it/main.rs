//! The control plane as its callers see it, on SQLite and on a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    clippy::str_to_string,
    clippy::needless_pass_by_value,
    clippy::large_futures,
    reason = "test code panics"
)]

mod access;
mod bad_input;
mod bad_requests;
mod behalf;
mod catalog;
mod chain;
mod change_sets;
mod configuration;
mod covering;
mod databases;
mod explain;
mod fixture;
mod fleet;
mod folding;
mod gate;
mod leading;
mod levels;
mod listing;
mod many;
mod migrator;
mod moves;
mod overlays;
mod partial;
mod past;
mod pins;
mod publishing;
mod queueing;
mod rest;
mod restart;
mod revisions;
mod room;
mod strict;
mod tenants;
mod told;
mod upgrades;
mod watching;
