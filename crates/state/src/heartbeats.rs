//! Heartbeats: which routers live, and what each has applied.

use crate::Error;
use async_trait::async_trait;
use grey_core::change::{FormatLevel, Position};
use grey_core::ids::InstanceId;
use std::time::Duration;

/// What a router says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Unique among live routers; of the characters that an instance id may have.
    pub router: String,
    /// Drawn at its start, below 2^63: tells this run of it from earlier ones; 0 if it does not read back.
    pub run: u64,
    /// Where it serves gRPC, as `host:port`.
    pub address: String,
    /// Its region; may be empty.
    pub region: String,
    /// Its zone; may be empty.
    pub zone: String,
    /// What its table contains.
    pub position: Position,
    /// Digest of its table.
    pub digest: u64,
    /// Its table is not known to be the present one.
    pub stale: bool,
    /// The format level of the events that it obeys.
    pub level: FormatLevel,
    /// How long it counts as live without another heartbeat.
    pub lease: Duration,
}

impl Heartbeat {
    /// A router that is announced, of which nothing else is known: its heartbeat does not read back.
    pub(crate) fn unreadable(router: &str) -> Self {
        Self {
            router: router.to_owned(),
            run: 0,
            address: String::new(),
            region: String::new(),
            zone: String::new(),
            position: Position::default(),
            digest: 0,
            stale: true,
            level: FormatLevel(0),
            lease: Duration::ZERO,
        }
    }
}

/// What a router says when it drains. It holds for one run: shared state may be restored to a time at which an earlier run
/// had just ended.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Goodbye {
    /// The router.
    pub router: String,
    /// The run of it that ends.
    pub run: u64,
}

/// The routers that would not obey an event of `level`: a command that needs it must be refused, naming them.
pub fn below(level: FormatLevel, routers: &[Heartbeat]) -> impl Iterator<Item = &Heartbeat> {
    routers.iter().filter(move |router| router.level < level)
}

/// How long a router's goodbye is remembered: far longer than anyone who must hear it is away.
pub const GOODBYE_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// Refuses ids that could forge a key.
pub(crate) fn check_router(router: &str) -> Result<(), Error> {
    match InstanceId::new(router) {
        Ok(_) => Ok(()),
        Err(refused) => Err(Error::Config(format!("announce the router: {refused}"))),
    }
}

/// The routers' heartbeats.
#[async_trait]
pub trait Heartbeats: Send + Sync {
    /// Announces a router for its lease, and takes an earlier goodbye of this run of it back.
    ///
    /// # Errors
    /// When the store is away; [`Error::Config`] if the router's id cannot be one.
    async fn beat(&self, heartbeat: &Heartbeat) -> Result<(), Error>;

    /// Takes a router off the list at once, and remembers its goodbye for [`GOODBYE_KEPT`]: it is draining.
    ///
    /// # Errors
    /// When the store is away; the entry then expires by itself, which is no goodbye.
    async fn leave(&self, goodbye: &Goodbye) -> Result<(), Error>;

    /// The routers announced and not expired, by id. One whose heartbeat does not read back is among them, at no
    /// position and no level, since it may well serve.
    ///
    /// # Errors
    /// When the store is away; [`Error::Corrupt`] if the list of routers does not read back.
    async fn live(&self) -> Result<Vec<Heartbeat>, Error>;

    /// The goodbyes, by router and run. A heartbeat that merely expired is none.
    ///
    /// # Errors
    /// When the store is away.
    async fn left(&self) -> Result<Vec<Goodbye>, Error>;
}
