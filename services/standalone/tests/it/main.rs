//! The binary as its users run it: standalone, the command line against it, and the demo.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod demo;
mod grey;
mod instances;
mod migrate;
mod migrate_stage;
mod progress;
mod provision;
mod reads;
mod refusals;
mod repair;
mod rotation;
mod secured;
mod selectors;
mod standalone;
mod sync;
mod tenants;
mod terminal;
mod twins;
mod views;
mod writes;
