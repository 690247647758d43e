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
use grey_state::publisher::{EventLog, LogError, Snapshot};
use sea_orm::{ColumnTrait, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect, Select};
use tokio::sync::mpsc;

use crate::database::{Database, Error};
use crate::entity::{events, signed};

/// Events are read until they have so many bytes: one may set the pins of a hundred thousand tenants.
const MAX_BYTES: usize = 16 << 20;
/// So many are read however large: the publisher reads its last event again, and would never get to the next one.
const AT_LEAST: usize = 2;

impl Database {
    /// Up to `limit` events after `after`, in order, without a gap; fewer where they are large, but two if there are as many.
    ///
    /// # Errors
    /// When the database is away or an event does not read back.
    pub async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, Error> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let query = events::Entity::find()
            .filter(events::Column::Revision.gt(signed(after.0)))
            .order_by(events::Column::Revision, Order::Asc)
            .limit(limit);
        let rows = self.event_rows(query, MAX_BYTES).await?;
        rows.iter().map(events::Model::event).collect()
    }

    /// The first rows that a query finds; fewer than all once they have more than `max_bytes`.
    async fn event_rows(
        &self,
        query: Select<events::Entity>,
        max_bytes: usize,
    ) -> Result<Vec<events::Model>, Error> {
        let read = async {
            let (mut rows, mut bytes) = (Vec::new(), 0);
            let mut stream = query.stream(self.readers()).await?;
            while (bytes < max_bytes || rows.len() < AT_LEAST)
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

    async fn snapshot(&self, records: mpsc::Sender<Vec<Record>>) -> Result<Snapshot, LogError> {
        self.send_snapshot(&records).await.map_err(log_error("read a snapshot of the control database"))
    }

    async fn start_epoch(&self, present: Epoch, seen: Epoch) -> Result<Position, LogError> {
        Self::start_epoch(self, present, seen).await.map_err(log_error("start an epoch"))
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
