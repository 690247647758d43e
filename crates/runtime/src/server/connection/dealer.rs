//! Connections to threads: each goes to the one that has the fewest.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{net::TcpStream, sync::mpsc};

use super::{Accepted, Slot};

/// Deals connections to threads.
#[derive(Debug)]
pub(in super::super) struct Dealer(Vec<Place>);

/// Of one thread.
#[derive(Debug)]
struct Place {
    open: Arc<AtomicUsize>,
    /// What is on its way is bounded by the limit of connections, of which each has a slot.
    sender: mpsc::UnboundedSender<(Sent, Dealt)>,
}

/// A connection on its way: a stream belongs to the runtime that waits for it.
#[derive(Debug)]
struct Sent {
    stream: std::net::TcpStream,
    peer: std::net::SocketAddr,
    slot: Slot,
}

/// What one thread is dealt.
#[derive(Debug)]
pub(in super::super) struct Hand(mpsc::UnboundedReceiver<(Sent, Dealt)>);

/// Counts a connection of a thread, until dropped.
#[derive(Debug)]
pub(in super::super) struct Dealt(Arc<AtomicUsize>);

impl Dealer {
    /// A dealer to so many threads, and what each is dealt.
    pub(in super::super) fn new(threads: usize) -> (Self, Vec<Hand>) {
        let (places, hands) = (0..threads)
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                (Place { open: Arc::default(), sender }, Hand(receiver))
            })
            .unzip();
        (Self(places), hands)
    }

    /// Deals a connection to the thread with the fewest, the first of several.
    pub(in super::super) fn deal(&self, accepted: Accepted) {
        let Some(place) = self.0.iter().min_by_key(|place| place.open.load(Relaxed)) else { return };
        let Accepted { stream, peer, slot } = accepted;
        match stream.into_std() {
            Ok(stream) => {
                place.open.fetch_add(1, Relaxed);
                let dealt = Dealt(Arc::clone(&place.open));
                // Of a thread that has ended, which all others then do, the connection is closed.
                place.sender.send((Sent { stream, peer, slot }, dealt)).ok();
            }
            Err(error) => {
                tracing::debug!(error = %error, client.address = %peer, "connection lost at its beginning");
            }
        }
    }
}

impl Hand {
    /// The next connection; none once nobody deals any more.
    pub(in super::super) async fn next(&mut self) -> Option<(Accepted, Dealt)> {
        loop {
            let (Sent { stream, peer, slot }, dealt) = self.0.recv().await?;
            match TcpStream::from_std(stream) {
                Ok(stream) => return Some((Accepted { stream, peer, slot }, dealt)),
                Err(error) => {
                    tracing::debug!(error = %error, client.address = %peer, "connection lost at its beginning");
                }
            }
        }
    }
}

impl Drop for Dealt {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
