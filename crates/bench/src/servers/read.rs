//! The floor of a cold start: a bare client reads every key of the projection and drops what it gets.

use anyhow::{Context as _, Result};
use redis::aio::MultiplexedConnection;
use redis::{Client, Pipeline, Value, cmd};

/// Tenants asked for at once, three commands each, as the router does.
const BATCH: usize = 100;

pub(super) async fn projection(redis: &str) -> Result<()> {
    let mut redis =
        Client::open(redis)?.get_multiplexed_async_connection().await.context("connect to redis")?;
    let services = members(&mut redis, "services").await?;
    let mut ask = Pipeline::new();
    for service in &services {
        ask.cmd("GET").arg(format!("service:{{{service}}}:policy"));
    }
    let _policies: Vec<Value> = ask.query_async(&mut redis).await.context("read services")?;
    let tenants = members(&mut redis, "tenants").await?;
    for batch in tenants.chunks(BATCH) {
        let mut ask = Pipeline::with_capacity(3 * batch.len());
        for tenant in batch {
            for part in ["metadata", "services", "db_schema"] {
                ask.cmd("HGETALL").arg(format!("tenant:{{{tenant}}}:{part}"));
            }
        }
        let _hashes: Vec<Value> = ask.query_async(&mut redis).await.context("read tenants")?;
    }
    Ok(())
}

async fn members(redis: &mut MultiplexedConnection, key: &str) -> Result<Vec<String>> {
    cmd("SMEMBERS").arg(key).query_async(redis).await.with_context(|| format!("read {key}"))
}
