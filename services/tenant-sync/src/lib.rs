//! Mirrors tenants from the tenant-management API into the control plane.
//!
//! One replica leads and does the work: it [reads](source) the API, [maps](mapping) its tenants, [compares](diff) them
//! with those of the [control plane](control) and applies what differs, in batches that each name the revisions they
//! were planned on. Any replica answers for the leader, and takes the API's [webhook].
//!
//! What it does *not* do: it never writes to the tenant API, touches no tenant that the API has never listed, and
//! believes no list that would take many tenants out of service at once unless a person says so. It keeps nothing of
//! its own: what a leader knows, the next one finds out again.

mod config;

pub mod mapping;
pub mod source;

pub mod control;

pub mod diff;

mod apply;
pub mod metrics;
pub mod sync;
pub mod webhook;

mod app;

pub use app::App;
pub use config::{Config, DEFAULTS};
