//! The body of an answer: what it gives to the HTTP library waits until it is written, or given up with its stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Buf, Bytes, Frame, SizeHint};

use super::{InFlight, Slot};

/// The body of an answer. Its request is in flight until this is dropped, and the connection not idle before its pieces are
/// written.
#[derive(Debug)]
pub(in super::super) struct Answer<B> {
    body: B,
    request: InFlight,
}

/// Bytes of an answer. The HTTP library advances over them as it writes them, and drops what it will not write.
#[derive(Debug)]
pub(in super::super) struct Piece {
    bytes: Bytes,
    slot: Slot,
}

impl<B> Answer<B> {
    pub(in super::super) fn new(body: B, request: InFlight) -> Self {
        Self { body, request }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let wait = |bytes| Piece::new(bytes, this.request.slot());
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(wait))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Piece {
    fn new(bytes: Bytes, slot: Slot) -> Self {
        slot.progress().hand(bytes.len());
        Self { bytes, slot }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.slot.progress().take(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // As a rule all of it is written.
        if !self.bytes.is_empty() {
            self.slot.progress().forget(self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use axum::body::Body as AnyBody;

    use super::*;
    use crate::server::connection::Connections;

    #[test]
    fn what_a_body_gives_waits_until_it_is_written_or_given_up() {
        let slot = Connections::new(1).take().unwrap();
        let mut answer = Answer::new(AnyBody::from("0123456789"), slot.begin());
        assert_eq!(slot.progress().waiting(), 0);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut answer).poll_frame(cx) else {
            unreachable!("it is there");
        };
        let mut piece = frame.into_data().unwrap();
        drop(answer);
        assert_eq!((slot.progress().waiting(), slot.progress().is_idle()), (10, false));
        piece.advance(4);
        assert_eq!((piece.chunk(), slot.progress().waiting()), (&b"456789"[..], 6));
        drop(piece);
        assert!(slot.progress().is_idle());
    }
}
