//! Tests of the schema migrator.

#![allow(clippy::unwrap_used, clippy::panic, clippy::string_slice, reason = "test code panics")]

mod app_limits;
mod app_replicas;
mod app_secrets;
mod app_tls;
mod asker;
mod backfill;
mod believed;
mod contract;
mod encrypted;
mod examples;
mod external;
mod files;
mod files_kept;
mod files_split;
mod jobs_queue;
mod killed_tools;
mod lint;
mod lint_table;
mod mysql;
mod online;
mod plan;
mod reading;
mod run;
mod run_cuts;
mod run_faults;
mod run_history;
mod run_inside;
mod run_journal;
mod run_kill;
mod run_limits;
mod run_locks;
mod run_pooler;
mod run_property;
mod run_session;
mod run_world;
mod service;
mod service_faults;
mod service_fleet;
mod service_repair;
mod service_views;
mod service_world;
mod truth;
mod views;
mod way_out;
