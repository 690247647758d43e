use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::TcpListener as PlainListener;

use anyhow::Result;
use grey_testkit::{ReservedPort, free_port};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn reserved_port_refuses_until_its_server_listens() -> Result<()> {
    let port = ReservedPort::any()?;
    let refused = TcpStream::connect(port.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let listener = TcpListener::bind(port.addr()).await?;
    TcpStream::connect(port.addr()).await?;
    drop(listener);
    TcpListener::bind(port.addr()).await?;
    Ok(())
}

#[test]
fn reserved_ports_differ_and_stay_reserved() -> Result<()> {
    let ports = (0..50).map(|_| ReservedPort::any()).collect::<Result<Vec<_>, _>>()?;
    let numbers: HashSet<u16> = ports.iter().map(ReservedPort::number).collect();
    assert_eq!(numbers.len(), ports.len());
    assert!((0..50).map(|_| free_port().unwrap()).all(|port| !numbers.contains(&port)));
    Ok(())
}

#[test]
fn port_in_use_is_not_reserved() -> Result<()> {
    let listener = PlainListener::bind(("127.0.0.1", 0))?;
    assert!(ReservedPort::exactly(listener.local_addr()?.port()).is_err());
    Ok(())
}
