use anyhow::Result;
use grey_testkit::RedisCluster;
use redis::AsyncCommands as _;
use redis::cluster::ClusterClient;

/// Enough keys for every master to hold some.
const KEYS: u32 = 60;

#[tokio::test]
async fn killed_master_is_taken_over_and_returns() -> Result<()> {
    let cluster = RedisCluster::start().await?;
    let client = ClusterClient::new(cluster.urls())?;
    let mut connection = client.get_async_connection().await?;
    for key in 0..KEYS {
        let () = connection.set(key, key).await?;
    }
    assert_eq!(cluster.masters().await?.len(), 3);

    let killed = cluster.kill_a_master().await?;
    cluster.wait_for_failover(killed).await?;
    let masters = cluster.masters().await?;
    assert_eq!(masters.len(), 3);
    assert!(!masters.contains(&killed));
    let mut connection = client.get_async_connection().await?;
    for key in 0..KEYS {
        let () = connection.set(key, key + 1).await?;
        assert_eq!(connection.get::<_, u32>(key).await?, key + 1);
    }

    cluster.restart(killed).await?;
    cluster.wait_until_healthy().await?;
    assert!(!cluster.masters().await?.contains(&killed));
    Ok(())
}

#[tokio::test]
async fn two_clusters_do_not_meet() -> Result<()> {
    let (one, two) = tokio::try_join!(RedisCluster::start(), RedisCluster::start())?;
    let (first, second) = (one.masters().await?, two.masters().await?);
    assert_eq!((first.len(), second.len()), (3, 3));
    assert!(first.iter().all(|addr| !second.contains(addr)));
    assert_eq!(one.urls().len(), 6);
    Ok(())
}
