//! Real servers for tests: private Redis, PostgreSQL, PgBouncer, MariaDB, MySQL and Nacos on free ports, gone when the test ends.
//!
//! Every server lives in a directory and a process group of its own, both held by a small watchdog process
//! that notices the end of the test process in any form (return, panic, `kill -9`) and then removes them.
//! Nothing is shared between two servers, so tests may start as many as they like in parallel. What measures time learns
//! from [`others`] whether the machine was its own.
//!
//! What this crate does **not** do: install servers (`./scripts/install-servers.sh` does), hold fakes or
//! builders of domain types, or serve production code. It is only ever a dev-dependency.

#![allow(
    clippy::doc_markdown,
    reason = "PostgreSQL, PgBouncer and MariaDB are names of products, not of items"
)]

mod authority;
mod binaries;
mod eventually;
mod mariadb;
mod mysql;
mod nacos;
mod nest;
pub mod others;
mod pgbouncer;
mod port;
mod postgres;
pub mod process;
mod proxy;
mod redis;
mod server;

pub use self::authority::{Authority, Identity};
pub use self::binaries::gh_ost;
pub use self::eventually::eventually;
pub use self::mariadb::{MariaDb, MariaDbBuilder};
pub use self::mysql::Mysql;
pub use self::nacos::{Nacos, NacosBuilder};
pub use self::pgbouncer::{PgBouncer, PgBouncerBuilder};
pub use self::port::{ReservedPort, free_port};
pub use self::postgres::{Postgres, PostgresBuilder};
pub use self::process::Spawned;
pub use self::proxy::Proxy;
pub use self::redis::cluster::RedisCluster;
pub use self::redis::sentinel::RedisSentinel;
pub use self::redis::standalone::{Dump, Redis, RedisBuilder};
