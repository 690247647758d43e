//! Where connections come in, and from where those are looked after that are in.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Interval, MissedTickBehavior, interval, sleep},
};

use super::{Connections, Slot, admission::make_room_anywhere};

/// Pause after the operating system refused a connection, so that it does not become a busy loop; and where a connection is
/// about to make room.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// How long a newcomer waits for room before it is refused, and between two looks for it meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);
const ROOM_LOOKS: Duration = Duration::from_millis(10);

/// Between two such things in the log.
const TOLD: Duration = Duration::from_secs(1);

/// Between two looks for connections whose answers are not taken.
const LOOKS: Duration = Duration::from_millis(500);

/// Connections that a listener may have promised: bounds the work of closing it.
const MAX_BACKLOG: usize = 4096;

/// Lets connections in, and ends those whose clients do not take their answers.
pub(in super::super) struct Door {
    listener: TcpListener,
    connections: Connections,
    /// For a client to take its answers.
    within: Duration,
    looks: Interval,
    told: Option<Instant>,
    /// The one newcomer that waits for room; who comes after it waits in the kernel's backlog.
    first: Option<Newcomer>,
}

/// A connection that is not let in yet.
struct Newcomer {
    stream: TcpStream,
    peer: SocketAddr,
    since: Instant,
}

/// A connection that was let in.
pub(in super::super) struct Accepted {
    pub(in super::super) stream: TcpStream,
    pub(in super::super) peer: SocketAddr,
    pub(in super::super) slot: Slot,
}

impl Door {
    pub(in super::super) fn new(listener: TcpListener, connections: Connections, within: Duration) -> Self {
        let mut looks = interval(LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { listener, connections, within, looks, told: None, first: None }
    }

    /// The next connection. Waits out errors of the listener, and closes a connection for which no room was made in time.
    /// Dropped while it waits it loses none.
    pub(in super::super) async fn next(&mut self) -> Accepted {
        loop {
            if let Some(first) = self.first.take() {
                match self.connections.take() {
                    Some(slot) => {
                        if let Some(accepted) = first.enter(slot) {
                            return accepted;
                        }
                        continue;
                    }
                    None if first.since.elapsed() < PATIENCE => self.first = Some(first),
                    None => {
                        tracing::debug!(client.address = %first.peer, "connection refused, too many are in use");
                        continue;
                    }
                }
            }
            tokio::select! {
                accepted = self.listener.accept(), if self.first.is_none() => match accepted {
                    Ok((stream, peer)) => self.first = Some(Newcomer { stream, peer, since: Instant::now() }),
                    Err(error) => self.wait_out(&error).await,
                },
                () = sleep(ROOM_LOOKS), if self.first.is_some() => {}
                _ = self.looks.tick() => self.connections.end_stalled(self.within),
            }
        }
    }

    async fn wait_out(&mut self, error: &io::Error) {
        if self.told.is_none_or(|told| told.elapsed() >= TOLD) {
            tracing::warn!(error = %error, "connection not accepted");
            self.told = Some(Instant::now());
        }
        let is_room_made = lacks_handles(error) && make_room_anywhere(Instant::now());
        sleep(if is_room_made { ROOM_PAUSE } else { REFUSED_PAUSE }).await;
    }

    /// Closes the listener; returns the connections that the kernel has promised already and would otherwise reset.
    pub(in super::super) fn close(self) -> Vec<Accepted> {
        let Self { listener, connections, first, .. } = self;
        let mut promised: Vec<Newcomer> = first.into_iter().collect();
        if let Ok(listener) = listener.into_std() {
            while promised.len() < MAX_BACKLOG
                && let Ok((stream, peer)) = listener.accept()
            {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).ok();
                promised.extend(stream.map(|stream| Newcomer { stream, peer, since: Instant::now() }));
            }
        }
        promised.into_iter().filter_map(|newcomer| newcomer.enter(connections.take_free()?)).collect()
    }
}

impl Newcomer {
    fn enter(self, slot: Slot) -> Option<Accepted> {
        let Self { stream, peer, .. } = self;
        match stream.set_nodelay(true) {
            Ok(()) => Some(Accepted { stream, peer, slot }),
            Err(error) => {
                tracing::debug!(error = %error, client.address = %peer, "connection lost before its first byte");
                None
            }
        }
    }
}

/// Whether the process, or the machine, has no file handle left.
fn lacks_handles(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE))
}
