//! One connection: writes calls, counts and checks what comes back.

use super::Shape;
use super::frame::{self, Blocks, Head};
use anyhow::{Context as _, Result, bail, ensure};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

/// Bytes read at once.
const READ: usize = 256 << 10;
/// Bytes of a gRPC message's prefix.
const PREFIX: usize = 5;
/// Received bytes after which the server may send as many more.
const REPLENISH: u32 = 1 << 28;

/// A reply, complete and checked.
pub(super) struct Reply {
    /// When the call should have been sent.
    pub(super) intended: Instant,
    /// Whether the answer is what an answer looks like.
    pub(super) good: bool,
}

/// A call that waits for its answer.
#[derive(Clone, Copy)]
struct Waiting {
    stream: u32,
    intended: Instant,
    received: usize,
}

/// One HTTP/2 connection with calls to one method.
pub(super) struct Connection {
    socket: TcpStream,
    shape: Shape,
    blocks: Blocks,
    began: bool,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    written: usize,
    next_stream: u32,
    /// Calls by stream, in a ring; with streaming, by their order.
    waiting: Vec<Option<Waiting>>,
    in_flight: usize,
    /// Bytes that the server takes, on the connection and, with streaming, on the stream.
    window: i64,
    stream_window: i64,
    first_window: i64,
    unreplenished: u32,
    /// What is missing of the message that a stream is in the middle of; 0 with `prefix` bytes of the next.
    missing: usize,
    prefix: Vec<u8>,
    answered: u32,
    asked: u32,
}

impl Connection {
    pub(super) async fn open(addr: std::net::SocketAddr, path: &str, shape: Shape) -> Result<Self> {
        let socket = TcpStream::connect(addr).await.with_context(|| format!("connect to {addr}"))?;
        socket.set_nodelay(true)?;
        let mut output = Vec::with_capacity(64 << 10);
        frame::open(&mut output);
        Ok(Self {
            socket,
            shape,
            blocks: Blocks::new(path, &addr.to_string()),
            began: false,
            input: vec![0; READ],
            filled: 0,
            output,
            written: 0,
            next_stream: 1,
            waiting: vec![None; 4096],
            in_flight: 0,
            window: frame::FIRST_WINDOW,
            stream_window: frame::FIRST_WINDOW,
            first_window: frame::FIRST_WINDOW,
            unreplenished: 0,
            missing: 0,
            prefix: Vec::with_capacity(PREFIX),
            answered: 0,
            asked: 0,
        })
    }

    /// Calls that wait for their answers.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues a call with `message`, its prefix included; false if it cannot be sent now.
    pub(super) fn call(&mut self, message: &[u8], intended: Instant) -> bool {
        let length = i64::try_from(message.len()).unwrap_or(i64::MAX);
        let place = match self.shape {
            Shape::Unary => self.next_stream / 2,
            Shape::Stream => self.asked,
        };
        let place = place as usize % self.waiting.len();
        let paced = self.window < length || (self.shape == Shape::Stream && self.stream_window < length);
        if paced || self.waiting.get(place).is_some_and(Option::is_some) {
            return false;
        }
        let stream = self.next_stream;
        match self.shape {
            Shape::Unary => {
                let block = if self.began { &self.blocks.other } else { &self.blocks.first };
                frame::head(&mut self.output, block.len(), frame::HEADERS, frame::END_HEADERS, stream);
                self.output.extend_from_slice(block);
                frame::head(&mut self.output, message.len(), frame::DATA, frame::END_STREAM, stream);
                self.next_stream += 2;
            }
            Shape::Stream => {
                if !self.began {
                    let block = &self.blocks.first;
                    frame::head(&mut self.output, block.len(), frame::HEADERS, frame::END_HEADERS, stream);
                    self.output.extend_from_slice(block);
                }
                frame::head(&mut self.output, message.len(), frame::DATA, 0, stream);
                self.stream_window -= length;
                self.asked = self.asked.wrapping_add(1);
            }
        }
        self.began = true;
        self.window -= length;
        self.output.extend_from_slice(message);
        self.waiting[place] = Some(Waiting { stream, intended, received: 0 });
        self.in_flight += 1;
        true
    }

    /// Writes what is queued and reads what has come, as far as the socket allows without waiting.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>, mut take: impl FnMut(Reply)) -> Result<()> {
        while self.written < self.output.len() {
            let rest = self.output.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Ready(written) => self.written += written.context("write to the server")?,
                Poll::Pending => break,
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        let mut buffer = ReadBuf::new(self.input.get_mut(self.filled..).unwrap_or_default());
        match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(()),
            Poll::Ready(read) => read.context("read from the server")?,
        }
        let read = buffer.filled().len();
        ensure!(read > 0, "the server closed the connection");
        self.filled += read;
        let input = std::mem::take(&mut self.input);
        let parsed = self.parse(input.get(..self.filled).unwrap_or_default(), &mut take);
        self.input = input;
        let parsed = parsed?;
        self.input.copy_within(parsed..self.filled, 0);
        self.filled -= parsed;
        Ok(())
    }

    /// Takes whole frames in and returns how many bytes they had.
    fn parse(&mut self, input: &[u8], take: &mut impl FnMut(Reply)) -> Result<usize> {
        let mut at = 0;
        while let Some(rest) = input.get(at..)
            && let Some(head) = Head::read(rest)
            && let Some(payload) = rest.get(frame::HEADER..frame::HEADER + head.length)
        {
            self.frame(head, payload, take)?;
            at += frame::HEADER + head.length;
        }
        Ok(at)
    }

    fn frame(&mut self, head: Head, payload: &[u8], take: &mut impl FnMut(Reply)) -> Result<()> {
        match head.kind {
            frame::DATA => {
                self.unreplenished += u32::try_from(payload.len())?;
                if self.unreplenished >= REPLENISH {
                    frame::window_update(&mut self.output, 0, self.unreplenished);
                    if self.shape == Shape::Stream {
                        frame::window_update(&mut self.output, head.stream, self.unreplenished);
                    }
                    self.unreplenished = 0;
                }
                match self.shape {
                    Shape::Stream => self.messages(payload, take),
                    Shape::Unary => {
                        if let Some(waiting) = self.place(head.stream) {
                            waiting.received += payload.len();
                        }
                    }
                }
                ensure!(head.flags & frame::END_STREAM == 0, "the server ended a call without a status");
            }
            frame::HEADERS if head.flags & frame::END_STREAM != 0 => {
                ensure!(self.shape == Shape::Unary, "the server ended the stream");
                self.finish(head.stream, frame::says_ok(payload), take);
            }
            frame::RST_STREAM => {
                ensure!(self.shape == Shape::Unary, "the server reset the stream");
                self.finish(head.stream, false, take);
            }
            frame::SETTINGS if head.flags & frame::ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    if let [0, 4, a, b, c, d] = *setting {
                        let window = i64::from(u32::from_be_bytes([a, b, c, d]));
                        self.stream_window += window - self.first_window;
                        self.first_window = window;
                    }
                }
                frame::head(&mut self.output, 0, frame::SETTINGS, frame::ACK, 0);
            }
            frame::PING if head.flags & frame::ACK == 0 => {
                frame::head(&mut self.output, payload.len(), frame::PING, frame::ACK, 0);
                self.output.extend_from_slice(payload);
            }
            frame::WINDOW_UPDATE => {
                let more = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                if head.stream == 0 {
                    self.window += i64::from(more);
                } else if self.shape == Shape::Stream {
                    self.stream_window += i64::from(more);
                }
            }
            frame::GOAWAY => bail!("the server says goodbye"),
            frame::CONTINUATION => bail!("the server sends headers in parts"),
            _ => {}
        }
        Ok(())
    }

    /// Follows the messages of a stream through its frames.
    fn messages(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Reply)) {
        while !bytes.is_empty() {
            if self.missing == 0 {
                let wanted = (PREFIX - self.prefix.len()).min(bytes.len());
                let (prefix, rest) = bytes.split_at(wanted);
                self.prefix.extend_from_slice(prefix);
                bytes = rest;
                let Some([0, a, b, c, d]) = self.prefix.first_chunk::<PREFIX>().copied() else { continue };
                self.missing = u32::from_be_bytes([a, b, c, d]) as usize;
                self.prefix.clear();
            }
            let here = self.missing.min(bytes.len());
            bytes = bytes.get(here..).unwrap_or_default();
            self.missing -= here;
            if self.missing == 0 {
                let place = self.answered as usize % self.waiting.len();
                self.answered = self.answered.wrapping_add(1);
                if let Some(waiting) = self.waiting.get_mut(place).and_then(Option::take) {
                    self.in_flight -= 1;
                    take(Reply { intended: waiting.intended, good: true });
                }
            }
        }
    }

    fn place(&mut self, stream: u32) -> Option<&mut Waiting> {
        let place = (stream / 2) as usize % self.waiting.len();
        self.waiting.get_mut(place)?.as_mut().filter(|waiting| waiting.stream == stream)
    }

    fn finish(&mut self, stream: u32, said_ok: bool, take: &mut impl FnMut(Reply)) {
        let Some(Waiting { intended, received, .. }) = self.place(stream).copied() else { return };
        let place = (stream / 2) as usize % self.waiting.len();
        self.waiting[place] = None;
        self.in_flight -= 1;
        // No answer of any method called here is as short as this.
        take(Reply { intended, good: said_ok && received > PREFIX + 16 });
    }
}
