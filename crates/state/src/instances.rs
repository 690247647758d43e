//! Instances: what runs, as the registry mirror writes it and routers follow it.

use crate::{Error, FencingToken};
use async_trait::async_trait;
use grey_core::ids::ServiceId;
use grey_core::instance::{self, Instance};
use grey_proto::codec::{self, DecodeError};
use std::time::Duration;

/// Name of the lease that the one writer holds, and under which readers leave their [`Doubt`]s for it.
pub const WRITER: &str = "instances";

/// The complete instance list of one service.
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceInstances {
    /// The service.
    pub service: ServiceId,
    /// All its instances of every version, by id.
    pub instances: Vec<Instance>,
}

impl ServiceInstances {
    /// Its share of the digest of all lists.
    #[must_use]
    pub fn digest(&self) -> u64 {
        instance::digest(&self.service, &self.instances)
    }
}

/// The order of instances within a list.
pub(crate) fn by_id(one: &Instance, other: &Instance) -> std::cmp::Ordering {
    one.id.cmp(&other.id)
}

/// A reader's place among the replacements. Opaque to everyone but the implementation that gave it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cursor(pub String);

/// All lists, as far as they read.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// One for each service that has or had instances, by service. Of a damaged one: what reads of it.
    pub lists: Vec<ServiceInstances>,
    /// What does not read back, or is not what was announced.
    pub damaged: Vec<Damaged>,
    /// The place to go on from. No replacement since is missed.
    pub cursor: Cursor,
    /// Digest of all lists as announced up to there; none if nothing was announced, or it does not read.
    pub digest: Option<u64>,
}

impl Loaded {
    /// Whether the list of `service` is among the damaged ones.
    #[must_use]
    pub fn is_damaged(&self, service: &ServiceId) -> bool {
        self.damaged.iter().any(|damaged| damaged.service.as_ref() == Some(service))
    }
}

/// Something stored that its writer must write again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// The service whose list it is; none if it is what all lists share, which any replacement mends.
    pub service: Option<ServiceId>,
    /// Where it is stored and what is wrong with it.
    pub why: String,
}

/// What a reader got.
#[derive(Clone, PartialEq, Debug)]
pub enum InstancesRead {
    /// Lists were replaced.
    Replaced {
        /// The replacements, in order.
        lists: Vec<ServiceInstances>,
        /// The place after them.
        next: Cursor,
        /// Digest of all lists at that place.
        digest: Option<u64>,
    },
    /// Nothing came within the wait.
    Idle {
        /// Digest of all lists at the reader's place, which is the end.
        digest: Option<u64>,
    },
    /// Replacements may have been missed, or taken back by a store that lost them: load again. What is loaded then
    /// may be less than what ran before (a wiped store), which is no proof that an instance is gone.
    Lost,
}

/// What a reader asks the writer to look at. Left among the [requests](crate::Requests) to [`WRITER`].
#[derive(Clone, PartialEq, Debug)]
pub enum Doubt {
    /// Something stored is damaged, or lists and digest do not agree.
    Stored,
    /// The store has no list of this service, and the reader has this one from before.
    Missing(ServiceInstances),
}

impl Doubt {
    /// As a request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Stored => Vec::new(),
            Self::Missing(list) => codec::encode_service_instances(&list.service, &list.instances),
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no list.
    pub fn decode(request: &[u8]) -> Result<Self, DecodeError> {
        if request.is_empty() {
            return Ok(Self::Stored);
        }
        let (service, instances) = codec::decode_service_instances(request)?;
        Ok(Self::Missing(ServiceInstances { service, instances }))
    }
}

/// Running instances. One writer at a time (fenced by its lease's token); everyone reads.
///
/// Each list has a digest, and so have all of them together: a reader whose lists have another one than was announced
/// has missed something, however that came about, and loads again.
#[async_trait]
pub trait Instances: Send + Sync {
    /// Replaces the whole list of one service at once: no reader sees an empty or partial list in between. What was
    /// damaged of it is mended.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has written; otherwise when the store is away.
    async fn replace(&self, token: FencingToken, list: &ServiceInstances) -> Result<(), Error>;

    /// Reads all lists. What is damaged is told and keeps nobody from reading the rest.
    ///
    /// # Errors
    /// When the store is away, or it does not read which services there are.
    async fn load(&self) -> Result<Loaded, Error>;

    /// Reads the list of one service, as far as it reads; empty if it has none.
    ///
    /// # Errors
    /// When the store is away.
    async fn list(&self, service: &ServiceId) -> Result<ServiceInstances, Error>;

    /// Reads replacements after `after`, waiting up to `wait` for the first.
    ///
    /// # Errors
    /// When the store is away.
    async fn read(&self, after: &Cursor, wait: Duration) -> Result<InstancesRead, Error>;

    /// Digest of all lists as announced last; none if nothing was announced, or it does not read.
    ///
    /// # Errors
    /// When the store is away.
    async fn digest(&self) -> Result<Option<u64>, Error>;
}
