//! The projection: the current state, as routers load it and operators read it with `redis-cli`.

use crate::{Error, FencingToken};
use async_trait::async_trait;
use grey_core::change::{Event, Generation, Position, Record, Revision};

/// Where a projection's status is stored.
pub(crate) const STATUS_KEY: &str = "grey:projection";

/// What a projection says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProjectionStatus {
    /// Every event up to here is contained. Single keys may already hold later ones.
    pub position: Position,
    /// Digest of a table loaded at exactly that position.
    pub digest: u64,
}

impl ProjectionStatus {
    /// Whether the event at `revision` is the next one; false if it is contained already.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no projection of that generation up to the revision before.
    pub(crate) fn continues(
        status: Option<&Self>,
        generation: &Generation,
        revision: Revision,
    ) -> Result<bool, Error> {
        let why = match status.map(|status| &status.position) {
            None => "there is no complete projection".to_owned(),
            Some(held) if held.generation != *generation => {
                format!("it belongs to generation `{}`", held.generation)
            }
            Some(held) if held.revision.next() < revision => {
                format!("it is at revision {}, before the one to go on from", held.revision)
            }
            Some(held) => return Ok(held.revision < revision),
        };
        Err(Error::Corrupt { key: STATUS_KEY.to_owned(), why })
    }
}

/// The projection of the control database. It has no expiry and may be lost at any time.
///
/// Reading it is not atomic. What makes a load exact is the order of writes: the publisher appends
/// to the feed first, projects second, and moves [`ProjectionStatus::position`] last. A loader reads the
/// status, then every record, then applies the feed from that position to the feed's end: changes carry
/// whole facts, so applying some of them twice does no harm.
#[async_trait]
pub trait Projection: Send + Sync {
    /// What the projection contains; none if there is none or its last rebuild was not finished.
    ///
    /// # Errors
    /// When the store is away or the status does not read back.
    async fn status(&self) -> Result<Option<ProjectionStatus>, Error>;

    /// Projects one event and moves the position to it.
    ///
    /// Each unit (a tenant, a service) remembers the position of its last write, so a late write of an
    /// old leader cannot take it back. An event that is already contained changes nothing. `reached` is
    /// the event's own position.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has written; [`Error::Corrupt`] if the projection is not of
    /// this generation at the revision before (it was lost, or never finished): rebuild it; otherwise
    /// when the store is away, and the event is then to be applied again.
    async fn apply(
        &self,
        token: FencingToken,
        event: &Event,
        reached: &ProjectionStatus,
    ) -> Result<(), Error>;

    /// Replaces everything: [`Self::status`] answers none until [`Rebuild::finish`].
    ///
    /// # Errors
    /// As for [`Self::apply`].
    async fn rebuild(&self, token: FencingToken, position: &Position)
    -> Result<Box<dyn Rebuild + '_>, Error>;

    /// Reads every record, in no order, services before tenants, and gives batches of them to `take`.
    ///
    /// # Errors
    /// When the store is away or a record does not read back.
    async fn load(&self, take: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<(), Error>;
}

/// A rebuild under way.
#[async_trait]
pub trait Rebuild: Send {
    /// Writes some records.
    ///
    /// # Errors
    /// As for [`Projection::apply`].
    async fn write(&mut self, records: Vec<Record>) -> Result<(), Error>;

    /// Declares the projection complete.
    ///
    /// # Errors
    /// As for [`Projection::apply`]; [`Error::Fenced`] too if another rebuild was begun since.
    async fn finish(self: Box<Self>, digest: u64) -> Result<(), Error>;
}
