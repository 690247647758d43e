//! A connection's bytes, with deadlines: for the first of them, and for each that the client is to take.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::Drain;

/// What every HTTP/2 client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Bounds {
    /// Until it is clear which protocol it speaks.
    pub(in super::super) first: Duration,
    /// Until it takes some of what it is sent.
    pub(in super::super) write: Duration,
}

/// A stream whose client has said which protocol it speaks, and must take what it is sent.
#[derive(Debug)]
pub(in super::super) struct Bounded<S> {
    stream: S,
    /// What was read to tell the protocol; given to the reader first.
    greeting: Greeting,
    given: usize,
    write: Duration,
    /// Since the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// The first bytes of a connection.
#[derive(Debug, Default)]
struct Greeting {
    bytes: [u8; PREFACE.len()],
    read: usize,
}

impl Greeting {
    /// Whether it is clear now which protocol the client speaks.
    fn is_clear(&self) -> bool {
        self.read == PREFACE.len() || self.bytes[..self.read] != PREFACE[..self.read]
    }

    /// Reads until it is clear.
    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        while !self.is_clear() {
            match stream.read(&mut self.bytes[self.read..]).await? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no request")),
                read => self.read += read,
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> Bounded<S> {
    /// Waits until it is clear which protocol the client speaks: until then nothing else is set up for it, as most that
    /// a connection costs is for what may be asked on it.
    ///
    /// # Errors
    /// The client does not say so in time, or before the drain begins: one that connects and says nothing, or begins the
    /// preface and does not end it, would hold a slot for ever, and hyper waits for its preface even when asked to shut
    /// down.
    pub(in super::super) async fn greeted(mut stream: S, bounds: Bounds, drain: &Drain) -> io::Result<Self> {
        let mut greeting = Greeting::default();
        tokio::select! {
            biased;
            read = greeting.read(&mut stream) => read?,
            () = drain.begins() => {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "no request before the drain"));
            }
            () = sleep(bounds.first) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no request on a new connection"));
            }
        }
        Ok(Self { stream, greeting, given: 0, write: bounds.write, stalled: None })
    }
}

impl<S> Bounded<S> {
    /// Passes on what writing came to; fails once the client has taken nothing for too long.
    fn written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.is_some() {
                self.stalled = None;
            }
            return written;
        }
        let write = self.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = &this.greeting.bytes[this.given..this.greeting.read];
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let given = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..given]);
        this.given += given;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
