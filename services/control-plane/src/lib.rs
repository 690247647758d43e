//! The control plane: tenants, services, versions, pins, policies and events; the truth and its publisher.
//!
//! Every write is one [`command`]: one transaction, one event, one revision. The [`database`] is reached through
//! sea-orm (PostgreSQL, or SQLite when embedded), and its log is what the publisher of `grey-state` brings to the
//! routers.
//!
//! What it does *not* do: it decides no call, and it never touches a tenant's database: it keeps where that is,
//! with sealed credentials, for the schema migrator.

mod config;

pub mod database;
#[allow(missing_docs, unreachable_pub, reason = "sea-orm's derives make public items of rows")]
mod entity;

pub mod command;
pub mod fleet;
pub mod log;
pub mod metrics;
pub mod migrator;
mod registered;

pub mod access;
pub mod api;
mod grpc;
mod rest;

mod pulse;

mod app;

pub use app::App;
pub use config::{Config, DEFAULTS};
