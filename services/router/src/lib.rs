//! The data plane: answers Route, Explain, Watch and Report from its in-memory routing table.
//!
//! Decisions run on threads of their own, one single-threaded runtime per core, and touch nothing but
//! memory. Everything else (following the feed, heartbeats, watchers' snapshots, the snapshot file, HTTP)
//! runs on the caller's runtime and can never delay a decision.
//!
//! What it does *not* do: it owns no truth, writes no table and knows no database. It can be killed at any
//! time and starts from its snapshot file when the shared state is away.

mod config;

mod decider;
mod limits;
mod metrics;
mod shared;

mod frames;
mod grpc;
mod http;
mod selection;
mod watch;

mod heartbeat;
mod holds;
mod pulse;
mod snapshot;

mod app;

pub use app::App;
pub use config::{Config, DEFAULTS};
