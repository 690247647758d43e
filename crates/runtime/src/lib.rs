//! The chassis of every service: configuration, telemetry, admin endpoint, access, TLS, servers and graceful shutdown.
//!
//! A service starts in this order: configuration, telemetry, connect, bind, ready, serve; and stops in this one: not
//! ready, stop accepting, drain, flush telemetry. The chassis knows nothing of tenants, versions or stores, and depends
//! on no other crate of the workspace.

pub mod config;

pub mod telemetry;

pub mod files;

pub mod health;

pub mod admin;

pub mod shutdown;

pub mod access;

pub mod tls;

pub mod server;

pub use config::{Faults, Secret, Validate};
pub use health::Health;
pub use shutdown::Shutdown;
pub use telemetry::Telemetry;
