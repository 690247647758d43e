use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use grey_testkit::Nacos;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far longer than an answer over loopback takes; what is silent for so long is silent.
const SILENCE: Duration = Duration::from_millis(300);

async fn ask(addr: SocketAddr, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let length = body.len();
    let form = "Content-Type: application/x-www-form-urlencoded";
    let head = format!(
        "{method} /nacos/v1/{path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\nContent-Length: {length}\r\n{form}"
    );
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply)
}

async fn list(server: &Nacos) -> Result<String> {
    ask(server.addr(), "GET", "ns/service/list?pageNo=1&pageSize=10", "").await
}

async fn register(server: &Nacos, service: &str) -> Result<()> {
    let body = format!("serviceName={service}&ip=10.0.0.1&port=80&ephemeral=true");
    let reply = ask(server.addr(), "POST", "ns/instance", &body).await?;
    assert!(reply.contains(" 200 "), "{reply}");
    Ok(())
}

#[tokio::test]
async fn two_servers_are_separate_and_speak_grpc_a_thousand_ports_above() -> Result<()> {
    let (one, two) = tokio::try_join!(Nacos::start(), Nacos::start())?;
    register(&one, "payment").await?;
    assert!(list(&one).await?.contains("payment"));
    assert!(!list(&two).await?.contains("payment"));
    assert_eq!(one.grpc_addr().port(), one.addr().port() + 1000);
    TcpStream::connect(one.grpc_addr()).await?;
    Ok(())
}

#[tokio::test]
async fn killed_server_refuses_and_restarts_empty_on_its_ports() -> Result<()> {
    let server = Nacos::start().await?;
    let (addr, id) = (server.addr(), server.id());
    register(&server, "payment").await?;
    server.kill9()?;
    assert!(server.id().is_none() && server.pause().is_err());
    assert!(TcpStream::connect(addr).await.is_err());
    assert!(TcpStream::connect(server.grpc_addr()).await.is_err());
    server.restart().await?;
    server.restart_empty().await?;
    assert_eq!(server.addr(), addr);
    assert_ne!(server.id(), id);
    assert!(!list(&server).await?.contains("payment"));
    Ok(())
}

#[tokio::test]
async fn paused_server_answers_after_it_resumes() -> Result<()> {
    let server = Nacos::start().await?;
    server.pause()?;
    assert!(timeout(SILENCE, list(&server)).await.is_err());
    server.resume()?;
    assert!(list(&server).await?.contains(" 200 "));
    Ok(())
}

#[tokio::test]
async fn server_with_a_user_refuses_strangers() -> Result<()> {
    let server = Nacos::builder().auth("grey", "secret99").start().await?;
    assert!(list(&server).await?.contains(" 403 "));
    let login = |form: &'static str| ask(server.addr(), "POST", "auth/login", form);
    assert!(login("username=grey&password=secret99").await?.contains("accessToken"));
    assert!(!login("username=grey&password=wrong").await?.contains("accessToken"));
    assert!(Nacos::builder().auth("grey", "a&b").start().await.is_err());
    Ok(())
}
