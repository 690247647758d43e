//! The event log: as the publisher reads it, and as it is verified.

mod lead;
mod snapshot;

use std::time::Duration;
mod verify;

pub use verify::{Fault, Verified};

use async_trait::async_trait;
use grey_core::change::{Epoch, Event, Position, Revision};
use grey_core::record::Record;
use grey_state::FencingToken;
use grey_state::publisher::{EventLog, LogError, Snapshot};
use sea_orm::{ColumnTrait, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect};
use tokio::sync::mpsc;

use crate::database::{Database, Error};
use crate::entity::{events, signed};

impl Database {
    /// Up to `limit` events after `after`, in order, without a gap.
    ///
    /// # Errors
    /// When the database is away or an event does not read back.
    pub async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, Error> {
        self.events_between(after, None, limit, false).await
    }

    /// Up to `limit` events after `after` and, if given, before `before`; oldest or newest first.
    pub(crate) async fn events_between(
        &self,
        after: Revision,
        before: Option<Revision>,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<Event>, Error> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let order = if newest_first { Order::Desc } else { Order::Asc };
        let mut query = events::Entity::find()
            .filter(events::Column::Revision.gt(signed(after.0)))
            .order_by(events::Column::Revision, order)
            .limit(limit);
        if let Some(before) = before {
            query = query.filter(events::Column::Revision.lt(signed(before.0)));
        }
        let rows = self.read("read events", query.all(self.readers())).await?;
        rows.iter().map(events::Model::event).collect()
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
