//! HTTP/2 and HTTP/1.1 as no library writes them.

use super::port::{Ask, H1, H2 as ALPN, Port, TOKEN, Wire};
use std::collections::BTreeMap;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const INITIAL_WINDOW_SIZE: u16 = 4;
const FIRST_WINDOW: i64 = 65_535;
/// The most that a window may be.
pub(super) const WIDE: u32 = i32::MAX.cast_unsigned();
/// The most that a frame may hold unless its reader says otherwise.
pub(super) const FRAME: usize = 16_384;

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Known,
    Unknown,
}

pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A length in a header block: seven bits, then the rest in groups of seven.
fn length(out: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else { return out.push(length.to_le_bytes()[0]) };
    out.push(127);
    while rest >= 128 {
        out.push(0x80 | (rest & 0x7f).to_le_bytes()[0]);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// A header that is not remembered; `index` says its name in the static table, or 0 that the name follows.
pub(super) fn literal(out: &mut Vec<u8>, index: &[u8], name: &[u8], value: &[u8]) {
    out.extend_from_slice(index);
    if index == [0] {
        length(out, name.len());
        out.extend_from_slice(name);
    }
    length(out, value.len());
    out.extend_from_slice(value);
}

/// The headers of a request.
pub(super) fn headers(port: &Port, ask: &Ask, sender: Sender) -> Vec<u8> {
    let mut block = vec![if ask.method == "GET" { 0x82 } else { 0x83 }];
    block.push(if port.is_tls() { 0x87 } else { 0x86 });
    literal(&mut block, &[4], b"", ask.path.as_bytes());
    literal(&mut block, &[1], b"", port.addr.to_string().as_bytes());
    let kind: &[u8] = if port.is_grpc() { b"application/grpc" } else { b"application/json" };
    literal(&mut block, &[0x0f, 0x10], b"", kind);
    literal(&mut block, &[0], b"te", b"trailers");
    if sender == Sender::Known {
        literal(&mut block, &[0x0f, 0x08], b"", format!("Bearer {TOKEN}").as_bytes());
    }
    block
}

/// A request's head over HTTP/1.1, without the line that ends it.
pub(super) fn head(port: &Port, ask: &Ask, sender: Sender) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", ask.method, ask.path, port.addr);
    head += "content-type: application/json\r\n";
    if sender == Sender::Known {
        head += &format!("authorization: Bearer {TOKEN}\r\n");
    }
    head
}

/// A connection for HTTP/1.1.
pub(super) async fn http1(port: &Port) -> io::Result<Wire> {
    port.connect(H1).await
}

/// A connection on which the preface and these settings were sent.
pub(super) async fn preface(port: &Port, settings: &[(u16, u32)]) -> io::Result<Wire> {
    let mut wire = port.connect(ALPN).await?;
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| [name.to_be_bytes().as_slice(), &value.to_be_bytes()].concat())
        .collect();
    let mut out = PREFACE.to_vec();
    frame(&mut out, SETTINGS, 0, 0, &payload);
    wire.write_all(&out).await?;
    Ok(wire)
}

/// An HTTP/2 client that keeps to the server's windows, so that it is not turned away for breaking them.
pub(super) struct Client<'a> {
    port: &'a Port,
    wire: Wire,
    /// What may still be sent on the connection, on a new stream, and on those that are open.
    window: i64,
    first_window: i64,
    open: BTreeMap<u32, i64>,
    next: u32,
    /// Whether the server may send more for what is read.
    takes: bool,
}

impl<'a> Client<'a> {
    /// `window` is what each answer may take before this side says more.
    pub(super) async fn connect(port: &'a Port, window: u32) -> io::Result<Self> {
        let mut wire = preface(port, &[(INITIAL_WINDOW_SIZE, window)]).await?;
        if window > 0 {
            let mut out = Vec::new();
            frame(&mut out, WINDOW_UPDATE, 0, 0, &(WIDE - 65_535).to_be_bytes());
            wire.write_all(&out).await?;
        }
        Ok(Self {
            port,
            wire,
            window: FIRST_WINDOW,
            first_window: FIRST_WINDOW,
            open: BTreeMap::new(),
            next: 1,
            takes: true,
        })
    }

    /// Sends a request's headers; what follows is left to [`Client::push`].
    pub(super) async fn begin(&mut self, ask: &Ask, sender: Sender) -> io::Result<u32> {
        self.head(ask, sender, END_HEADERS).await
    }

    async fn head(&mut self, ask: &Ask, sender: Sender, flags: u8) -> io::Result<u32> {
        let (stream, mut out) = (self.next, Vec::new());
        self.next += 2;
        frame(&mut out, HEADERS, flags, stream, &headers(self.port, ask, sender));
        self.open.insert(stream, self.first_window);
        self.wire.write_all(&out).await?;
        Ok(stream)
    }

    /// Sends a whole request, and reads while the server's windows leave no room for it.
    pub(super) async fn send(&mut self, ask: &Ask, sender: Sender) -> io::Result<()> {
        if ask.body.is_empty() {
            return self.head(ask, sender, END_HEADERS | END_STREAM).await.map(drop);
        }
        let (stream, mut sent) = (self.begin(ask, sender).await?, 0);
        while sent < ask.body.len() && self.is_open(stream) {
            match self.push(stream, &ask.body[sent..]).await? {
                0 => self.read().await?,
                more => sent += more,
            }
        }
        let mut out = Vec::new();
        if self.is_open(stream) {
            frame(&mut out, DATA, END_STREAM, stream, &[]);
        }
        self.wire.write_all(&out).await
    }

    /// Sends as much of `bytes` as may be sent now; says how much it was.
    pub(super) async fn push(&mut self, stream: u32, bytes: &[u8]) -> io::Result<usize> {
        let Some(window) = self.open.get_mut(&stream) else { return Ok(0) };
        let allowed = usize::try_from(self.window.min(*window)).unwrap_or(0).min(bytes.len()).min(FRAME);
        if allowed == 0 {
            return Ok(0);
        }
        let sent = i64::try_from(allowed).unwrap();
        (self.window, *window) = (self.window - sent, *window - sent);
        let mut out = Vec::new();
        frame(&mut out, DATA, 0, stream, &bytes[..allowed]);
        self.wire.write_all(&out).await?;
        Ok(allowed)
    }

    pub(super) fn is_open(&self, stream: u32) -> bool {
        self.open.contains_key(&stream)
    }

    /// Whether anything asked is not answered to its end.
    pub(super) fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    /// From now on answers may come as far as their windows go.
    pub(super) fn stop_taking(&mut self) {
        self.takes = false;
    }

    /// Reads one frame, and does what it asks.
    pub(super) async fn read(&mut self) -> io::Result<()> {
        let mut head = [0; 9];
        self.wire.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.wire.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        let mut out = Vec::new();
        match kind {
            DATA if self.takes && !payload.is_empty() => {
                let taken = u32::try_from(payload.len()).unwrap().to_be_bytes();
                frame(&mut out, WINDOW_UPDATE, 0, 0, &taken);
                if flags & END_STREAM == 0 {
                    frame(&mut out, WINDOW_UPDATE, 0, stream, &taken);
                }
            }
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE {
                        self.resize(i64::from(number(&setting[2..])));
                    }
                }
                frame(&mut out, SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => frame(&mut out, PING, ACK, 0, &payload),
            WINDOW_UPDATE if stream == 0 => self.window += i64::from(number(&payload)),
            WINDOW_UPDATE => {
                if let Some(window) = self.open.get_mut(&stream) {
                    *window += i64::from(number(&payload));
                }
            }
            GOAWAY => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        if kind == RST_STREAM || (matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0) {
            self.open.remove(&stream);
        }
        self.wire.write_all(&out).await
    }

    fn resize(&mut self, first: i64) {
        for window in self.open.values_mut() {
            *window += first - self.first_window;
        }
        self.first_window = first;
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}
