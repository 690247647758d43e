//! A connection's bytes, with deadlines: for the first of them, and for each that the client is to take.

use std::{
    io,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
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

/// A stream on which the client must say in time, and before the drain begins, which protocol it speaks: one that
/// connects and says nothing, or begins the preface and does not end it, would hold a slot for ever, and hyper waits for
/// its preface even when asked to shut down. It must also take what it is sent.
#[derive(Debug)]
pub(in super::super) struct Bounded<S> {
    stream: S,
    write: Duration,
    /// None once the protocol is clear.
    first: Option<First>,
    /// Since the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct First {
    deadline: Pin<Box<Sleep>>,
    drain: Drain,
    /// How many bytes of the preface have arrived.
    matched: usize,
}

impl First {
    /// Whether it is clear now which protocol the client speaks.
    fn is_over_with(&mut self, arrived: &[u8]) -> bool {
        let rest = &PREFACE[self.matched..];
        let compared = arrived.len().min(rest.len());
        self.matched += compared;
        self.matched == PREFACE.len() || arrived[..compared] != rest[..compared]
    }
}

impl<S> Bounded<S> {
    pub(in super::super) fn new(stream: S, bounds: Bounds, drain: Drain) -> Self {
        let first = First { deadline: Box::pin(sleep(bounds.first)), drain, matched: 0 };
        Self { stream, write: bounds.write, first: Some(first), stalled: None }
    }

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
        let Some(first) = &mut this.first else {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        };
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            if first.is_over_with(&buf.filled()[before..]) {
                this.first = None;
            }
            return Poll::Ready(result);
        }
        // The drain wakes this task through `Drain::run`.
        if first.drain.begun.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "no request before the drain",
            )));
        }
        ready!(first.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request on a new connection")))
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
