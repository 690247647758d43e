//! The little of HTTP/2 that a generator needs: writing requests of one shape, reading frame headers.

/// Bytes of a frame's header.
pub(super) const HEADER: usize = 9;
/// The flow-control window that both sides begin with.
pub(super) const FIRST_WINDOW: i64 = 65_535;
/// The largest window.
pub(super) const LAST_WINDOW: u32 = i32::MAX.cast_unsigned();

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// On DATA and HEADERS: nothing follows on the stream. On SETTINGS and PING: an answer.
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTING_HEADER_TABLE_SIZE: u16 = 1;
const SETTING_ENABLE_PUSH: u16 = 2;
const SETTING_INITIAL_WINDOW_SIZE: u16 = 4;

/// What `grpc-status: 0` looks like in trailers: the Huffman code of the name, then the value, with that code or
/// without. It is always written out, since this side allows no dynamic table.
const STATUS_NAME: [u8; 8] = [0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];
const STATUS_OK: [&[u8]; 2] = [&[0x81, 0x07], &[0x01, b'0']];

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// Reads a header from the first bytes of `input`; none if there are too few.
    pub(super) fn read(input: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *input.first_chunk::<HEADER>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        Some(Self { length, kind, flags, stream })
    }
}

/// Appends the header of a frame.
pub(super) fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let length = u32::try_from(length).expect("frames written here are small").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Appends what opens a connection: no dynamic table for responses, windows so large that they never pace.
pub(super) fn open(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    let settings = [
        (SETTING_HEADER_TABLE_SIZE, 0),
        (SETTING_ENABLE_PUSH, 0),
        (SETTING_INITIAL_WINDOW_SIZE, LAST_WINDOW),
    ];
    head(out, settings.len() * 6, SETTINGS, 0, 0);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&u32::to_be_bytes(value));
    }
    window_update(out, 0, LAST_WINDOW - 65_535);
}

/// Appends permission to send more.
pub(super) fn window_update(out: &mut Vec<u8>, stream: u32, more: u32) {
    head(out, 4, WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&more.to_be_bytes());
}

/// The header blocks of requests to one path: the first of a connection fills the server's dynamic table, the others
/// refer to it, as those of real clients do.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    pub(super) first: Vec<u8>,
    pub(super) other: Vec<u8>,
}

impl Blocks {
    pub(super) fn new(path: &str, authority: &str) -> Self {
        let mut first = vec![0x83, 0x86]; // :method POST, :scheme http
        let mut literal = |name: &[u8], value: &str| {
            first.extend_from_slice(name);
            first.push(u8::try_from(value.len()).ok().filter(|length| *length < 127).expect("short headers"));
            first.extend_from_slice(value.as_bytes());
        };
        literal(&[0x44], path);
        literal(&[0x41], authority);
        literal(&[0x5f], "application/grpc");
        literal(b"\x40\x02te", "trailers");
        // The newest entry of the dynamic table is number 62.
        Self { first, other: vec![0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62] }
    }
}

/// Whether a block of trailers says `grpc-status: 0`.
pub(super) fn says_ok(block: &[u8]) -> bool {
    block.windows(STATUS_NAME.len()).position(|bytes| bytes == STATUS_NAME).is_some_and(|at| {
        let rest = block.get(at + STATUS_NAME.len()..).unwrap_or_default();
        STATUS_OK.iter().any(|ok| rest.starts_with(ok))
    })
}
