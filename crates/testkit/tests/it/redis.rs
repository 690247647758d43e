use std::time::Duration;

use anyhow::Result;
use grey_testkit::Redis;
use redis::AsyncCommands as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn set(server: &Redis, key: &str, value: &str) -> Result<()> {
    Ok(server.connection().await?.set(key, value).await?)
}

async fn get(server: &Redis, key: &str) -> Result<Option<String>> {
    Ok(server.connection().await?.get(key).await?)
}

#[tokio::test]
async fn two_servers_are_separate() -> Result<()> {
    let (one, two) = tokio::try_join!(Redis::start(), Redis::start())?;
    assert_ne!(one.addr(), two.addr());
    set(&one, "name", "one").await?;
    assert_eq!(get(&one, "name").await?.as_deref(), Some("one"));
    assert_eq!(get(&two, "name").await?, None);
    Ok(())
}

#[tokio::test]
async fn killed_server_refuses_and_restarts_empty_on_its_port() -> Result<()> {
    let server = Redis::start().await?;
    let addr = server.addr();
    set(&server, "key", "value").await?;
    server.kill9()?;
    assert!(TcpStream::connect(addr).await.is_err());
    server.restart_empty().await?;
    assert_eq!(server.addr(), addr);
    assert_eq!(get(&server, "key").await?, None);
    Ok(())
}

#[tokio::test]
async fn restart_from_a_dump_shows_older_data() -> Result<()> {
    let server = Redis::start().await?;
    set(&server, "key", "older").await?;
    let dump = server.save_dump().await?;
    set(&server, "key", "newer").await?;
    set(&server, "late", "newer").await?;
    server.restart_from_dump(&dump).await?;
    assert_eq!(get(&server, "key").await?.as_deref(), Some("older"));
    assert_eq!(get(&server, "late").await?, None);
    server.restart_empty().await?;
    assert_eq!(get(&server, "key").await?, None);
    Ok(())
}

#[tokio::test]
async fn append_only_server_keeps_writes_through_a_kill() -> Result<()> {
    let builder = Redis::builder().directive("appendonly", "yes").directive("appendfsync", "always");
    let server = builder.start().await?;
    set(&server, "key", "kept").await?;
    server.kill9()?;
    server.restart().await?;
    assert_eq!(get(&server, "key").await?.as_deref(), Some("kept"));
    Ok(())
}

#[tokio::test]
async fn paused_server_is_silent_until_resumed() -> Result<()> {
    let server = Redis::start().await?;
    let mut connection = server.connection().await?;
    server.pause()?;
    let write = connection.set::<_, _, ()>("key", "value");
    tokio::pin!(write);
    assert!(timeout(Duration::from_millis(300), &mut write).await.is_err());
    server.resume()?;
    write.await?;
    assert_eq!(get(&server, "key").await?.as_deref(), Some("value"));
    Ok(())
}

#[tokio::test]
async fn password_is_required_and_in_the_url() -> Result<()> {
    let server = Redis::builder().password("secret1").start().await?;
    set(&server, "key", "value").await?;
    let stranger = redis::Client::open(format!("redis://{}/", server.addr()))?;
    let mut stranger = stranger.get_multiplexed_async_connection().await?;
    let refused = stranger.get::<_, Option<String>>("key").await;
    assert!(refused.is_err_and(|error| error.to_string().contains("NOAUTH")));
    Ok(())
}

#[tokio::test]
async fn refused_option_is_reported_with_the_servers_words() {
    let error = Redis::builder().directive("no-such-option", "1").start().await.unwrap_err();
    assert!(format!("{error:#}").contains("no-such-option"), "{error:#}");
}

#[tokio::test]
async fn dropped_server_leaves_neither_port_nor_directory() -> Result<()> {
    let server = Redis::start().await?;
    let (addr, dir) = (server.addr(), server.dir().to_owned());
    assert!(dir.is_dir());
    drop(server);
    assert!(TcpStream::connect(addr).await.is_err());
    assert!(!dir.exists());
    Ok(())
}

#[test]
fn start_can_be_spawned_onto_another_thread() {
    fn assert_send<T: Send>(_: &T) {}
    assert_send(&Redis::start());
    assert_send(&grey_testkit::RedisSentinel::start());
    assert_send(&grey_testkit::RedisCluster::start());
    assert_send(&grey_testkit::Postgres::start());
    assert_send(&grey_testkit::MariaDb::start());
    assert_send(&grey_testkit::Nacos::start());
}
