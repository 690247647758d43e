//! Servers: one tuned for the data plane ([`PerCore`]), one for everything else ([`http::Server`]).
//!
//! Both bound their connections, set deadlines on handshakes, and drain: they stop accepting, ask each client to go
//! elsewhere (GOAWAY in HTTP/2, `connection: close` in HTTP/1.1), and give calls in flight a grace to finish.

mod browser;
mod budget;
mod connection;
pub mod http;
mod percore;
mod purpose;
mod under_way;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    config::{Faults, Validate},
    tls,
};

pub use browser::{LastHost, Pages, RefusedPage};
pub use budget::{Budget, Counting, OverBudget, Share, check_body};
pub use percore::{PerCore, PerCoreHandle};
pub use purpose::Purpose;
pub use under_way::{Requests, Sent, TooManyRequests, UnderWay};

/// HTTP/2 window of a stream, the protocol's own: what is not read of one body keeps others of the connection from coming.
const STREAM_WINDOW: u32 = LEAST_WINDOW;
/// HTTP/2 knows no smaller window of a connection.
const LEAST_WINDOW: u32 = 65_535;
/// Far more than any network needs.
const MOST_WINDOW: u32 = 16 << 20;
/// Less could not take a small message.
const LEAST_BUDGET: usize = 1 << 20;

fn check_room(faults: &mut Faults, window: u32, budget: usize) {
    let fits = (LEAST_WINDOW..=MOST_WINDOW).contains(&window);
    faults.check(fits, "connection_window_bytes", "must be between 65535 and 16777216");
    faults.check(budget >= LEAST_BUDGET, "body_budget_bytes", "must be at least 1048576");
}

/// How the data-plane server treats its connections.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Encrypts the connections; none: plain HTTP/2.
    #[serde(skip)]
    pub tls: Option<tls::Acceptor>,
    /// Calls in flight on one connection; more wait at the client.
    pub max_concurrent_streams: u32,
    /// Calls under way, of all connections together, but for checks of health, and for calls that are answered as soon as
    /// they are there: of those, so many may be waited for on each thread. What is more is refused.
    pub max_requests: usize,
    /// Connections of all threads together; beyond them one makes room on which nothing is under way, first those that never
    /// had a call; else one whose client leaves an answer waiting, else one that asked and took nothing for a second. While there is
    /// none, newcomers wait, and are closed after a second.
    pub max_connections: usize,
    /// Size of all headers of one call, in bytes as HTTP/2 counts them.
    pub max_header_list_bytes: u32,
    /// Bytes that a connection may send before what it sent is read.
    pub connection_window_bytes: u32,
    /// Bytes of bodies that have come and are not answered, of all connections together; one may hold a quarter of them.
    /// What is more is refused, unless bodies that come too slowly can make room. A byte costs up to 2.7 of memory: what reads
    /// a message has a copy of it that grows.
    pub body_budget_bytes: usize,
    /// Bytes buffered per call towards a client that reads slowly.
    pub max_send_buffer_bytes: usize,
    /// Silence after which a client is asked whether it is still there.
    #[serde(with = "crate::config::duration")]
    pub keepalive_interval: Duration,
    /// How long it has to answer.
    #[serde(with = "crate::config::duration")]
    pub keepalive_timeout: Duration,
    /// From the connection's acceptance to its TLS handshake, and from there to its HTTP/2 preface.
    #[serde(with = "crate::config::duration")]
    pub handshake_timeout: Duration,
    /// For a client to take all that waits of its answers, or 64 KiB of it; where more than 16 MiB wait at the port, it must
    /// take them at that rate after a second. And for any byte of what the connection has no room for.
    #[serde(with = "crate::config::duration")]
    pub write_timeout: Duration,
    /// How long calls in flight may go on once the drain has begun.
    #[serde(with = "crate::config::duration")]
    pub drain_grace: Duration,
    /// Task polls between looks at the network: small values shorten the tail when many connections are busy.
    pub event_interval: u32,
    /// Task polls between looks at work handed over by other threads.
    pub global_queue_interval: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: None,
            max_concurrent_streams: 1024,
            max_requests: 32_768,
            max_connections: 4096,
            max_header_list_bytes: 16 << 10,
            connection_window_bytes: 64 << 10,
            body_budget_bytes: 64 << 20,
            max_send_buffer_bytes: 256 << 10,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            drain_grace: Duration::from_secs(10),
            event_interval: 16,
            global_queue_interval: 16,
        }
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.max_concurrent_streams > 0, "max_concurrent_streams", "must be at least 1");
        faults.check(self.max_connections > 0, "max_connections", "must be at least 1");
        faults.check(self.max_requests > 0, "max_requests", "must be at least 1");
        faults.check(self.max_header_list_bytes >= 1024, "max_header_list_bytes", "must be at least 1024");
        check_room(faults, self.connection_window_bytes, self.body_budget_bytes);
        let fits = (1024..=1 << 30).contains(&self.max_send_buffer_bytes);
        faults.check(fits, "max_send_buffer_bytes", "must be between 1024 and 1073741824");
        for (key, value) in [
            ("keepalive_interval", self.keepalive_interval),
            ("keepalive_timeout", self.keepalive_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("write_timeout", self.write_timeout),
        ] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
        for (key, value) in
            [("event_interval", self.event_interval), ("global_queue_interval", self.global_queue_interval)]
        {
            faults.check(value > 0, key, "must be at least 1");
        }
    }
}
