//! Instances: what runs, as the registry mirror writes it and routers follow it.

use crate::{Error, FencingToken};
use async_trait::async_trait;
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use std::time::Duration;

/// Name of the lease that the one writer holds.
pub const WRITER_LEASE: &str = "instances";

/// The complete instance list of one service.
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceInstances {
    /// The service.
    pub service: ServiceId,
    /// All its instances of every version, by id.
    pub instances: Vec<Instance>,
}

/// The order of instances within a list.
pub(crate) fn by_id(one: &Instance, other: &Instance) -> std::cmp::Ordering {
    one.id.cmp(&other.id)
}

/// A reader's place among the replacements. Opaque to everyone but the implementation that gave it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cursor(pub String);

/// What a reader got.
#[derive(Clone, PartialEq, Debug)]
pub enum InstancesRead {
    /// Replacements in order, and the place after them.
    Replaced(Vec<ServiceInstances>, Cursor),
    /// Nothing came within the wait.
    Idle,
    /// Replacements may have been missed: load again. What is loaded then may be less than what ran
    /// before (a wiped store), which is no proof that an instance is gone.
    Lost,
}

/// Running instances. One writer at a time (fenced by its lease's token); everyone reads.
#[async_trait]
pub trait Instances: Send + Sync {
    /// Replaces the whole list of one service at once: no reader sees an empty or partial list in between.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has written; otherwise when the store is away.
    async fn replace(&self, token: FencingToken, list: &ServiceInstances) -> Result<(), Error>;

    /// Reads all lists, and the place to go on from. No replacement between the two is missed.
    ///
    /// # Errors
    /// When the store is away or a list does not read back.
    async fn load(&self) -> Result<(Vec<ServiceInstances>, Cursor), Error>;

    /// Reads replacements after `after`, waiting up to `wait` for the first.
    ///
    /// # Errors
    /// When the store is away.
    async fn read(&self, after: &Cursor, wait: Duration) -> Result<InstancesRead, Error>;
}
