//! The projection: the current state, as routers load it and operators read it with `redis-cli`.

mod index;
mod status;

pub use index::Indexes;
pub use status::{Beat, ProjectionStatus};

pub(crate) use status::STATUS_KEY;

use crate::{Error, FencingToken};
use async_trait::async_trait;
use grey_core::change::{Event, Position};
use grey_core::key::RecordId;
use grey_core::record::Record;

/// Something stored that does not read back. The rest is read all the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where it is stored.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
    /// The record that it is part of; none if that cannot be told.
    pub record: Option<RecordId>,
}

/// What a record should be, so that it is written anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Repair {
    /// This.
    Put(Record),
    /// Nothing: there is no such record.
    Remove(RecordId),
}

/// The projection of the control database. It has no expiry and may be lost at any time.
///
/// Reading it is not atomic. What makes a load exact is the order of writes: the publisher appends
/// to the feed first, projects second, and moves [`ProjectionStatus::position`] last. A loader reads the
/// status, then every record, then applies the feed from that position to the feed's end: changes carry
/// whole facts, so applying some of them twice does no harm. Whether what it got is right, it knows by the digest.
#[async_trait]
pub trait Projection: Send + Sync {
    /// What the projection contains; none if there is none or its last rebuild was not finished.
    ///
    /// # Errors
    /// When the store is away; [`Error::Corrupt`] if the status does not read back.
    async fn status(&self) -> Result<Option<ProjectionStatus>, Error>;

    /// Leaves a sign of life of the publisher.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has written; otherwise as for [`Self::status`].
    async fn beat(&self, token: FencingToken, beat: &Beat) -> Result<(), Error>;

    /// The publisher's last sign of life, whether or not the projection is complete.
    ///
    /// # Errors
    /// As for [`Self::status`].
    async fn last_beat(&self) -> Result<Option<Beat>, Error>;

    /// Projects events that follow one another and then moves the position to the last of them.
    ///
    /// Each unit (a tenant, a service) is written once, and remembers the position of its last write, so a late write
    /// of an old leader cannot take it back. Events that are already contained change nothing. `reached` is
    /// the status after the last event.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has written; [`Error::Corrupt`] if the projection is not of
    /// this epoch at the revision before (it was lost, or never finished) or what the events change does not read
    /// back: repair or rebuild it; otherwise when the store is away, and the events are then to be applied again, with
    /// those that followed since or without.
    async fn apply(
        &self,
        token: FencingToken,
        events: &[Event],
        reached: &ProjectionStatus,
    ) -> Result<(), Error>;

    /// Replaces everything: [`Self::status`] answers none until [`Rebuild::finish`]. `position` is contained in what
    /// will be written.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer leader has written; otherwise when the store is away.
    async fn rebuild(&self, token: FencingToken, position: &Position)
    -> Result<Box<dyn Rebuild + '_>, Error>;

    /// Reads every record, in no order, services before tenants, and gives batches of them to `take`. What does not
    /// read back is left out and answered, at most [`MAX_DAMAGE`].
    ///
    /// # Errors
    /// When the store is away.
    async fn load(&self, take: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<Vec<Damage>, Error>;

    /// Writes single records anew, whatever is there now, with all that belongs to them. `at` is the projection's
    /// position.
    ///
    /// # Errors
    /// As for [`Self::rebuild`].
    async fn repair(&self, token: FencingToken, at: &Position, repairs: &[Repair]) -> Result<(), Error>;

    /// What the indexes name; of one that does not read back nothing.
    ///
    /// # Errors
    /// When the store is away.
    async fn indexes(&self) -> Result<Indexes, Error>;

    /// Makes the indexes name exactly this.
    ///
    /// # Errors
    /// As for [`Self::rebuild`].
    async fn reindex(&self, token: FencingToken, indexes: &Indexes) -> Result<(), Error>;
}

/// Most damage that is told apart.
pub const MAX_DAMAGE: usize = 1_000;

/// A rebuild under way.
#[async_trait]
pub trait Rebuild: Send {
    /// Writes some records.
    ///
    /// # Errors
    /// As for [`Projection::rebuild`].
    async fn write(&mut self, records: Vec<Record>) -> Result<(), Error>;

    /// Declares the projection complete: what was written is this.
    ///
    /// # Errors
    /// As for [`Projection::rebuild`]; [`Error::Fenced`] too if another rebuild was begun since.
    async fn finish(self: Box<Self>, status: &ProjectionStatus) -> Result<(), Error>;
}
