//! The body of a request on its way: until it is there, its connection may have to make room, it must not take long, and
//! its bytes count.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::Flight;
use crate::server::{Counting, OverBudget};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Broken {
    /// The connection did.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    /// It took too long.
    #[error("the body did not arrive within {0:?}")]
    Late(Duration),
    /// It is too much now; gRPC's answers say so by the status.
    #[error("the body is more than may be held now")]
    OverBudget(#[source] Status),
}

impl From<OverBudget> for Broken {
    fn from(over: OverBudget) -> Self {
        Self::OverBudget(Status::resource_exhausted(over.to_string()))
    }
}

/// A request's body.
#[derive(Debug)]
pub(in super::super) struct Arriving {
    body: Incoming,
    flight: Flight,
    counting: Counting,
    within: Duration,
    /// None before the body is waited for.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    pub(in super::super) fn new(
        body: Incoming,
        flight: Flight,
        counting: Counting,
        within: Duration,
    ) -> Self {
        if body.is_end_stream() {
            flight.begin();
        }
        Self { body, flight, counting, within, deadline: None }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        this.counting.go_on();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if let Poll::Ready(over) = this.counting.poll_lost(cx) {
                return Poll::Ready(Some(Err(over.into())));
            }
            let within = this.within;
            let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(within)));
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Broken::Late(within))));
        };
        if frame.is_none() || this.body.is_end_stream() {
            this.flight.begin();
            if let Err(over) = this.counting.ended() {
                return Poll::Ready(Some(Err(over.into())));
            }
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.flight.arrive();
            if let Err(over) = this.counting.take(data) {
                return Poll::Ready(Some(Err(over.into())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Broken::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
