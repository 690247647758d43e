//! Plans, runs, verifies and undoes the schema migrations of tenant databases.

pub mod backfill;
pub mod backup;
pub mod external;
pub mod files;
pub mod lint;
pub mod plan;
pub mod run;
pub mod tenant;
pub mod views;
