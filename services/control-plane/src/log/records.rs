//! The events of some records alone, found by the log's index.

use std::collections::BTreeSet;

use grey_core::change::Revision;
use grey_core::key::RecordKey;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::database::{Database, Error};
use crate::entity::{events, record_history, signed};

impl Database {
    /// Up to `limit` events after `after` and up to `until` that changed any of these records, in order, not yet decoded;
    /// fewer where they are large, but none only at the end. No other event is read.
    pub(crate) async fn events_of(
        &self,
        records: &[RecordKey<'_>],
        after: Revision,
        until: Revision,
        limit: u64,
    ) -> Result<Vec<events::Model>, Error> {
        // The first of both lists are the first of all, so neither list is read further than that.
        let mut named = BTreeSet::new();
        for record in records {
            let sought = record_history::Model::of(*record, signed(until.0));
            let indexed = record_history::Entity::find()
                .select_only()
                .column(record_history::Column::Revision)
                .filter(record_history::Column::Kind.eq(sought.kind))
                .filter(record_history::Column::Id.eq(sought.id))
                .filter(record_history::Column::Revision.gt(signed(after.0)))
                .filter(record_history::Column::Revision.lte(sought.revision))
                .order_by_asc(record_history::Column::Revision)
                .limit(limit)
                .into_tuple::<i64>();
            named.extend(self.read("read the log's index", indexed.all(self.readers())).await?);
        }
        let named: Vec<i64> = named.into_iter().zip(0..limit).map(|(revision, _)| revision).collect();
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let query = events::Entity::find()
            .filter(events::Column::Revision.is_in(named.iter().copied()))
            .order_by_asc(events::Column::Revision);
        let rows = self.event_rows(query).await?;
        let mut found = rows.iter().map(|row| row.revision);
        match named.iter().take(rows.len().max(1)).find(|named| found.next() != Some(**named)) {
            None => Ok(rows),
            Some(lost) => Err(Error::Corrupt {
                table: "events",
                why: format!("event {lost}, which the index names, is missing"),
            }),
        }
    }
}
