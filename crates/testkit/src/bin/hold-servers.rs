//! Starts one of each private server, prints their URLs and holds them until it is ended, in whatever way.
//!
//! For trying things by hand, and for the test that a killed process leaves nothing behind.

use std::io::Write as _;

use anyhow::Result;
use grey_testkit::{MariaDb, Nacos, Postgres, Redis, RedisCluster, RedisSentinel};

#[tokio::main]
async fn main() -> Result<()> {
    let (redis, sentinel, cluster, postgres, mariadb, nacos) = tokio::try_join!(
        Redis::start(),
        RedisSentinel::start(),
        RedisCluster::start(),
        Postgres::start(),
        MariaDb::start(),
        Nacos::start()
    )?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "redis {}", redis.url())?;
    for url in sentinel.sentinel_urls() {
        writeln!(out, "sentinel {url}")?;
    }
    for url in cluster.urls() {
        writeln!(out, "cluster {url}")?;
    }
    writeln!(out, "postgres {}", postgres.url())?;
    writeln!(out, "mariadb {}", mariadb.url())?;
    writeln!(out, "nacos http://{}", nacos.addr())?;
    writeln!(out, "nacos grpc://{}", nacos.grpc_addr())?;
    writeln!(out, "holding")?;
    out.flush()?;
    std::future::pending().await
}
