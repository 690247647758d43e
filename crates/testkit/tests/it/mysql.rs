use anyhow::Result;
use grey_testkit::Mysql;
use tokio::net::TcpStream;

#[tokio::test]
async fn committed_rows_survive_a_kill_and_a_restart() -> Result<()> {
    if !Mysql::is_installed() {
        return Ok(());
    }
    let server = Mysql::start().await?;
    let addr = server.addr();
    assert!(server.database("mine").await?.ends_with("/mine"));
    assert!(!server.query("mine", "SELECT VERSION()").await?.contains("MariaDB"));
    server.query("grey", "CREATE TABLE kept (id int)").await?;
    server.query("grey", "INSERT INTO kept VALUES (7)").await?;
    server.kill9()?;
    assert!(TcpStream::connect(addr).await.is_err());
    server.restart().await?;
    assert_eq!(server.query("grey", "SELECT id FROM kept").await?, "7");
    server.restart().await?;
    assert_eq!(server.query("grey", "SELECT id FROM kept").await?, "7");
    assert!(server.database("a`; DROP").await.is_err());
    Ok(())
}
