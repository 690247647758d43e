use anyhow::Result;
use grey_testkit::{Authority, MariaDb};
use tokio::net::TcpStream;

#[tokio::test]
async fn two_servers_are_separate() -> Result<()> {
    let (one, two) = tokio::try_join!(MariaDb::start(), MariaDb::start())?;
    assert!(one.database("mine").await?.ends_with("/mine"));
    assert_eq!(one.query("mine", "SELECT 40 + 2").await?, "42");
    assert!(two.query("mine", "SELECT 1").await.is_err());
    assert!(one.url().starts_with("mysql://grey:grey@127.0.0.1:"));
    Ok(())
}

#[tokio::test]
async fn committed_rows_survive_a_kill_and_a_restart() -> Result<()> {
    let server = MariaDb::start().await?;
    let addr = server.addr();
    server.query("grey", "CREATE TABLE kept (id int)").await?;
    server.query("grey", "INSERT INTO kept VALUES (7)").await?;
    server.kill9()?;
    assert!(TcpStream::connect(addr).await.is_err());
    server.restart().await?;
    assert_eq!(server.addr(), addr);
    assert_eq!(server.query("grey", "SELECT id FROM kept").await?, "7");
    server.restart().await?;
    assert_eq!(server.query("grey", "SELECT id FROM kept").await?, "7");
    Ok(())
}

#[tokio::test]
async fn odd_database_name_is_refused() -> Result<()> {
    let server = MariaDb::start().await?;
    assert!(server.database("a`; DROP").await.is_err());
    Ok(())
}

#[tokio::test]
async fn server_with_an_identity_speaks_tls() -> Result<()> {
    let identity = Authority::new()?.issue(&["127.0.0.1"])?;
    let server = MariaDb::builder().tls(identity).start().await?;
    let version = server.query("grey", "SHOW STATUS LIKE 'Ssl_version'").await?;
    assert!(version.contains("TLS"), "{version}");
    Ok(())
}
