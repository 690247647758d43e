//! Encrypting a connection of the MySQL family for a driver that speaks in clear.
//!
//! Encryption is asked for between the server's greeting and the client's login. The driver is shown a greeting of a server
//! that cannot encrypt; its login goes on encrypted, as the second packet instead of the first.

use grey_runtime::Secret;
use rustls::pki_types::ServerName;
use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// The capability to encrypt, in the greeting's lower half and in the login.
const SSL: u16 = 0x0800;
/// Bytes of a login that also make up the request for encryption.
const REQUEST: usize = 32;
/// Most bytes of a packet of the login; passwords and names of plugins are far shorter.
const MOST: usize = 64 * 1024;

/// What the first byte of a packet of the login says.
const OK: u8 = 0x00;
const FAULT: u8 = 0xff;
const MORE: u8 = 0x01;
/// What `MORE` says beside it: nothing more is needed; the password itself is.
const FAST: u8 = 0x03;
const FULL: u8 = 0x04;

struct Packet {
    number: u8,
    payload: Vec<u8>,
}

/// Leads a driver's connection to a server, encrypted, until either ends it.
pub(super) async fn lead(
    mut client: UnixStream,
    mut server: TcpStream,
    connector: &TlsConnector,
    name: ServerName<'static>,
    password: &Secret,
) -> Result<()> {
    let mut greeting = read(&mut server).await?;
    // An error in the place of a greeting, such as too many connections.
    if greeting.payload.first() == Some(&FAULT) {
        return write(&mut client, &greeting).await;
    }
    hide(&mut greeting)?;
    write(&mut client, &greeting).await?;
    let mut login = read(&mut client).await?;
    let capabilities = login.payload.get_mut(1).ok_or_else(malformed)?;
    *capabilities |= SSL.to_be_bytes()[0];
    let request = login.payload.get(..REQUEST).ok_or_else(malformed)?.to_vec();
    write(&mut server, &Packet { number: login.number, payload: request }).await?;
    let mut server = connector.connect(name, server).await?;
    login.number = login.number.wrapping_add(1);
    write(&mut server, &login).await?;
    log_in(&mut client, &mut server, password).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Passes the packets of the login on, whose numbers differ by the one that asked for encryption.
async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut UnixStream,
    server: &mut S,
    password: &Secret,
) -> Result<()> {
    loop {
        let mut said = read(server).await?;
        let (first, second) = (said.payload.first().copied(), said.payload.get(1).copied());
        if (first, second) == (Some(MORE), Some(FULL)) {
            // Encrypted, the server takes the password as it is; a driver in clear would ask for a key.
            let mut payload = password.expose().as_bytes().to_vec();
            payload.push(0);
            write(server, &Packet { number: said.number.wrapping_add(1), payload }).await?;
            continue;
        }
        said.number = said.number.wrapping_sub(1);
        write(client, &said).await?;
        match (first, second) {
            (Some(OK | FAULT), _) => return Ok(()),
            (Some(MORE), Some(FAST)) => {}
            _ => {
                let mut answer = read(client).await?;
                answer.number = answer.number.wrapping_add(1);
                write(server, &answer).await?;
            }
        }
    }
}

/// Takes the capability to encrypt out of a greeting: behind the version, which ends with a zero, stand 13 bytes, then it.
fn hide(greeting: &mut Packet) -> Result<()> {
    let version = greeting.payload.iter().skip(1).position(|byte| *byte == 0).ok_or_else(malformed)?;
    let at = version + 2 + 13;
    let [low, high] = greeting.payload.get_mut(at..at + 2).ok_or_else(malformed)? else {
        return Err(malformed());
    };
    let capabilities = u16::from_le_bytes([*low, *high]);
    if capabilities & SSL == 0 {
        return Err(Error::new(ErrorKind::Unsupported, "server does not support TLS"));
    }
    [*low, *high] = (capabilities & !SSL).to_le_bytes();
    Ok(())
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Packet> {
    let mut header = [0; 4];
    from.read_exact(&mut header).await?;
    let [one, two, three, number] = header;
    let length = usize::from(one) | usize::from(two) << 8 | usize::from(three) << 16;
    if length > MOST {
        return Err(malformed());
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok(Packet { number, payload })
}

async fn write(to: &mut (impl AsyncWrite + Unpin), packet: &Packet) -> Result<()> {
    let length = u32::try_from(packet.payload.len()).map_err(|_| malformed())?;
    let [one, two, three, _] = length.to_le_bytes();
    let mut bytes = vec![one, two, three, packet.number];
    bytes.extend_from_slice(&packet.payload);
    to.write_all(&bytes).await?;
    to.flush().await
}

fn malformed() -> Error {
    Error::new(ErrorKind::InvalidData, "what was said is not the MySQL family's protocol")
}
