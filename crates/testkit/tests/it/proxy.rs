use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Result;
use grey_testkit::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Far longer than an echo over loopback takes; what is silent for so long is silent.
const SILENCE: Duration = Duration::from_millis(300);

/// A proxy in front of a server that sends back what it gets.
async fn echo_proxy() -> Result<Proxy> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    Proxy::start(addr).await
}

async fn echo(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"ping").await?;
    read_ping(stream).await
}

async fn read_ping(stream: &mut TcpStream) -> Result<()> {
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await?;
    assert_eq!(&reply, b"ping");
    Ok(())
}

#[tokio::test]
async fn open_link_forwards_both_ways_and_passes_the_end_on() -> Result<()> {
    let proxy = echo_proxy().await?;
    let mut stream = TcpStream::connect(proxy.addr()).await?;
    echo(&mut stream).await?;
    stream.write_all(&[7; 300_000]).await?;
    stream.shutdown().await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    assert_eq!(rest, [7; 300_000]);
    Ok(())
}

#[tokio::test]
async fn cut_link_drops_and_refuses_until_healed() -> Result<()> {
    let proxy = echo_proxy().await?;
    let mut stream = TcpStream::connect(proxy.addr()).await?;
    echo(&mut stream).await?;
    proxy.cut().await?;
    assert!(echo(&mut stream).await.is_err());
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    proxy.heal().await?;
    echo(&mut TcpStream::connect(proxy.addr()).await?).await
}

#[tokio::test]
async fn link_with_an_allowance_is_cut_when_it_is_spent() -> Result<()> {
    let proxy = echo_proxy().await?;
    let mut stream = TcpStream::connect(proxy.addr()).await?;
    proxy.cut_after(10);
    echo(&mut stream).await?;
    echo(&mut stream).await?;
    assert!(echo(&mut stream).await.is_err());
    proxy.until_cut().await?;
    proxy.heal().await?;
    let mut stream = TcpStream::connect(proxy.addr()).await?;
    for _ in 0..10 {
        echo(&mut stream).await?;
    }
    Ok(())
}

#[tokio::test]
async fn stalled_link_keeps_connections_and_delivers_after_healing() -> Result<()> {
    let proxy = echo_proxy().await?;
    let mut old = TcpStream::connect(proxy.addr()).await?;
    echo(&mut old).await?;
    proxy.stall().await?;
    let mut new = TcpStream::connect(proxy.addr()).await?;
    for stream in [&mut old, &mut new] {
        stream.write_all(b"ping").await?;
        assert!(timeout(SILENCE, stream.read_u8()).await.is_err());
    }
    proxy.heal().await?;
    read_ping(&mut old).await?;
    read_ping(&mut new).await
}

#[tokio::test]
async fn dropped_proxy_closes_its_connections() -> Result<()> {
    let proxy = echo_proxy().await?;
    let mut stream = TcpStream::connect(proxy.addr()).await?;
    echo(&mut stream).await?;
    drop(proxy);
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    Ok(())
}

#[tokio::test]
async fn unreachable_server_closes_the_connection() -> Result<()> {
    let nobody = grey_testkit::ReservedPort::any()?;
    let proxy = Proxy::start(nobody.addr()).await?;
    let mut stream = TcpStream::connect(proxy.addr()).await?;
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    Ok(())
}
