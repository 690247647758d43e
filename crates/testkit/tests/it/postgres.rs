use anyhow::Result;
use grey_testkit::{Authority, Postgres};
use tokio::net::TcpStream;

#[tokio::test]
async fn two_servers_are_separate() -> Result<()> {
    let (one, two) = tokio::try_join!(Postgres::start(), Postgres::start())?;
    assert!(one.database("mine").await?.ends_with("/mine"));
    assert_eq!(one.query("mine", "SELECT 40 + 2").await?, "42");
    assert!(two.query("mine", "SELECT 1").await.is_err());
    Ok(())
}

#[tokio::test]
async fn committed_rows_survive_a_kill_and_a_restart() -> Result<()> {
    let server = Postgres::start().await?;
    let addr = server.addr();
    server.query("postgres", "CREATE TABLE kept (id int)").await?;
    server.query("postgres", "INSERT INTO kept VALUES (7)").await?;
    server.kill9()?;
    assert!(TcpStream::connect(addr).await.is_err());
    server.restart().await?;
    assert_eq!(server.addr(), addr);
    assert_eq!(server.query("postgres", "SELECT id FROM kept").await?, "7");
    server.restart().await?;
    assert_eq!(server.query("postgres", "SELECT id FROM kept").await?, "7");
    Ok(())
}

#[tokio::test]
async fn durable_server_syncs_and_the_default_does_not() -> Result<()> {
    let durable = Postgres::builder().durable(true).start().await?;
    assert_eq!(durable.query("postgres", "SHOW fsync").await?, "on");
    assert_eq!(durable.query("postgres", "SHOW synchronous_commit").await?, "on");
    let fast = Postgres::start().await?;
    assert_eq!(fast.query("postgres", "SHOW fsync").await?, "off");
    Ok(())
}

#[tokio::test]
async fn odd_database_name_is_refused() -> Result<()> {
    let server = Postgres::start().await?;
    assert!(server.database("a\"; DROP").await.is_err());
    Ok(())
}

#[tokio::test]
async fn server_with_an_identity_speaks_tls() -> Result<()> {
    let identity = Authority::new()?.issue(&["127.0.0.1"])?;
    let server = Postgres::builder().tls(identity).start().await?;
    let version =
        server.query("postgres", "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await?;
    assert!(version.contains("TLS"), "{version}");
    Ok(())
}
