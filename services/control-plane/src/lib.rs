//! The control plane: tenants, services, versions, pins, policies and events; the truth and its publisher.
//!
//! Every write is one [`command`]: one transaction, one event, one revision. The [`database`] is reached through
//! sea-orm (PostgreSQL, or SQLite when embedded), and its log is what the publisher of `grey-state` brings to the
//! routers.
//!
//! What it does *not* do: it decides no call, and it never touches a tenant's database.

pub mod command;
pub mod database;
mod entity;
mod log;
pub mod metrics;
