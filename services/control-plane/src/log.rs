//! The event log: as the publisher reads it, and as it is verified.

mod lead;
mod past;
mod records;
mod selected;
mod snapshot;
mod verify;

pub(crate) use selected::{Selection, Stretch};
pub use verify::{Fault, Verified};

use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use grey_core::change::{Epoch, Event, Position, Revision};
use grey_core::record::Record;
use grey_state::FencingToken;
use grey_state::publisher::{EventLog, Following, LogError, Snapshot, Tip};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect, Select,
    StreamTrait,
};
use tokio::sync::mpsc;

use crate::database::{Database, Error, head_with_hash};
use crate::entity::{events, signed};

/// Events are read until they have so many bytes: one may set the pins of a hundred thousand tenants.
const MAX_BYTES: usize = 16 << 20;

impl Database {
    /// Up to `limit` events after `after`, in order, without a gap; fewer where they are large, but one if there is one.
    ///
    /// # Errors
    /// When the database is away or an event does not read back.
    pub async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, Error> {
        let rows = self.event_rows(self.readers(), rows_after(after, limit), MAX_BYTES).await?;
        rows.iter().map(events::Model::event).collect()
    }

    /// The same after a tip, if the log holds what it names. Nothing of it is read again: the next event has its hash, and
    /// while there is none, the log's head has.
    async fn events_after_tip(&self, tip: &Tip, limit: usize) -> Result<Option<Following>, Error> {
        let rows = self.event_rows(self.readers(), rows_after(tip.revision, limit), MAX_BYTES).await?;
        let events = rows.iter().map(events::Model::event).collect::<Result<Vec<_>, _>>()?;
        let (Some(first), Some(last), Some(row)) = (events.first(), events.last(), rows.last()) else {
            let (head, hash) = self.read("read the log's head", head_with_hash(self.readers())).await?;
            let position = Position::try_from(head)?;
            // One that is ahead has just gone on.
            let holds =
                position.revision > tip.revision || (position.revision, hash) == (tip.revision, tip.hash);
            return Ok(holds.then(|| Following { events, tip: *tip }));
        };
        let follows = first.revision == tip.revision.next() && first.previous == tip.hash;
        let tip = Tip { revision: last.revision, hash: row.hash() };
        Ok(follows.then_some(Following { events, tip }))
    }

    /// The first rows that a query finds; fewer than all once they have more than `max_bytes`.
    async fn event_rows<C: ConnectionTrait + StreamTrait + Send + Sync>(
        &self,
        from: &C,
        query: Select<events::Entity>,
        max_bytes: usize,
    ) -> Result<Vec<events::Model>, Error> {
        let read = async {
            let (mut rows, mut bytes) = (Vec::new(), 0);
            let mut stream = query.stream(from).await?;
            while bytes < max_bytes
                && let Some(row) = stream.try_next().await?
            {
                bytes += row.body.len();
                rows.push(row);
            }
            Ok(rows)
        };
        self.read("read events", read).await
    }
}

fn rows_after(after: Revision, limit: usize) -> Select<events::Entity> {
    events::Entity::find()
        .filter(events::Column::Revision.gt(signed(after.0)))
        .order_by(events::Column::Revision, Order::Asc)
        .limit(u64::try_from(limit).unwrap_or(u64::MAX))
}

fn log_error(attempted: &'static str) -> impl Fn(Error) -> LogError {
    move |error| LogError { attempted, source: Box::new(error) }
}

#[async_trait]
impl EventLog for Database {
    async fn head(&self) -> Result<Position, LogError> {
        Self::head(self).await.map_err(log_error("read the log's head"))
    }

    async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, LogError> {
        Self::events(self, after, limit).await.map_err(log_error("read the log's events"))
    }

    async fn follow(&self, tip: &Tip, limit: usize) -> Result<Option<Following>, LogError> {
        self.events_after_tip(tip, limit).await.map_err(log_error("read what follows in the log"))
    }

    async fn snapshot(&self, records: mpsc::Sender<Vec<Record>>) -> Result<Snapshot, LogError> {
        self.send_snapshot(&records).await.map_err(log_error("read a snapshot of the control database"))
    }

    async fn start_epoch(&self, present: Epoch, seen: Epoch) -> Result<Position, LogError> {
        Self::start_epoch(self, present, seen).await.map_err(log_error("start an epoch"))
    }

    async fn note_published(&self, epoch: Epoch) -> Result<bool, LogError> {
        Self::note_published(self, epoch).await.map_err(log_error("note what is published"))
    }

    async fn lead(
        &self,
        holder: &str,
        ttl: Duration,
        above: FencingToken,
    ) -> Result<Option<FencingToken>, LogError> {
        self.take_lead(holder, ttl, above).await.map_err(log_error("take the lead of the publication"))
    }

    async fn resign(&self, holder: &str) -> Result<(), LogError> {
        self.give_up_lead(holder).await.map_err(log_error("give up the lead of the publication"))
    }
}
