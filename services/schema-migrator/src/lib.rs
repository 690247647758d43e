//! Plans, runs, verifies and undoes the schema migrations of tenant databases.
//!
//! [Files](files) are read and split into statements, a [plan] says what is missing and what speaks against it, and a
//! [run] carries it out on a [tenant]'s database, which knows by its own history and journal what was done to it.
//! Around that is a [service] whose [jobs] are durable: any number of replicas share them, and take over those of a
//! replica that died. What comes of them is told to the [control] plane.
//!
//! What it does *not* do: it decides no call, keeps no credentials, and runs nothing that is not in its folder of files.

mod app;
mod config;

pub mod backfill;
pub mod backup;
pub mod control;
pub mod external;
pub mod files;
pub mod fleet;
pub mod jobs;
pub mod lint;
pub mod metrics;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod provision;
pub mod run;
pub mod service;
pub mod tenant;
pub mod views;

pub use app::App;
pub use config::{Config, DEFAULTS};
