use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use grey_testkit::{RedisSentinel, eventually};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

async fn connect(addr: SocketAddr) -> Result<MultiplexedConnection> {
    Ok(redis::Client::open(format!("redis://{addr}/"))?.get_multiplexed_async_connection().await?)
}

#[tokio::test]
async fn killed_master_is_replaced_and_returns_as_a_replica() -> Result<()> {
    let servers = RedisSentinel::start().await?;
    let master = servers.master_addr().await?;
    let mut connection = connect(master).await?;
    let () = connection.set("key", "value").await?;
    let acknowledged: u32 = redis::cmd("WAIT").arg(2).arg(0).query_async(&mut connection).await?;
    assert_eq!(acknowledged, 2);

    let killed = servers.kill_master().await?;
    assert_eq!(killed, master);
    assert!(connect(killed).await.is_err());
    let elected = servers.wait_for_new_master(killed).await?;
    assert_ne!(elected, killed);
    let mut connection = connect(elected).await?;
    assert_eq!(connection.get::<_, String>("key").await?, "value");
    let () = connection.set("key", "newer").await?;

    servers.restart(killed).await?;
    eventually(Duration::from_secs(60), "the old master follows the new one", async || {
        let Ok(mut connection) = connect(killed).await else { return false };
        let info: redis::RedisResult<String> =
            redis::cmd("INFO").arg("replication").query_async(&mut connection).await;
        info.is_ok_and(|info| info.contains("role:slave"))
            && connection.get::<_, String>("key").await.is_ok_and(|value| value == "newer")
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn two_sets_of_sentinels_do_not_meet() -> Result<()> {
    let (one, two) = tokio::try_join!(RedisSentinel::start(), RedisSentinel::start())?;
    assert_eq!(one.master_name(), two.master_name());
    let untouched = two.master_addr().await?;
    let killed = one.kill_master().await?;
    one.wait_for_new_master(killed).await?;
    assert_eq!(two.master_addr().await?, untouched);
    assert_eq!(one.sentinel_urls().len(), 3);
    Ok(())
}

#[tokio::test]
async fn sentinel_url_serves_a_sentinel_client() -> Result<()> {
    let servers = RedisSentinel::start().await?;
    let mut sentinel = redis::sentinel::Sentinel::build(servers.sentinel_urls())?;
    let client = sentinel.async_master_for(servers.master_name(), None).await?;
    let () = client.get_multiplexed_async_connection().await?.set("key", "value").await?;
    let mut master = connect(servers.master_addr().await?).await?;
    assert_eq!(master.get::<_, String>("key").await?, "value");
    Ok(())
}
