//! The registry mirror: brings what runs, as registries list it, into shared state.
//!
//! A [`registry`] is followed; the [`mirror`] decides what of its word is believed; the leader among the replicas
//! writes what has changed, whole list by whole list, fenced by its lease.
//!
//! What it does *not* do: it chooses no instance for any call, and it never tells a registry anything.

mod config;

pub mod registry;

pub mod probe;

pub mod mirror;

pub mod metrics;
pub mod sync;

mod app;

pub use app::App;
pub use config::{Config, DEFAULTS, Kind, Pace, Source};
