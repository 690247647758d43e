//! The events of some records alone, found by the log's index.

use std::collections::BTreeSet;

use grey_core::change::Revision;
use sea_orm::{ColumnTrait, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect};

use super::Stretch;
use crate::database::{Database, Error};
use crate::entity::{events, record_history, signed};

/// Consecutive events of a record's history, not yet decoded.
pub(super) struct Span {
    pub(super) rows: Vec<events::Model>,
    /// Whether there are no more in what was asked for.
    pub(super) is_last: bool,
}

impl Database {
    /// The first `limit` revisions of a stretch that the index names under any of these kinds and ids, in its order.
    pub(super) async fn named(
        &self,
        sought: &[(&str, &str)],
        stretch: Stretch,
        limit: u64,
    ) -> Result<Vec<i64>, Error> {
        // The first of all lists are the first of all, so no list is read further than that.
        let mut named = BTreeSet::new();
        for (kind, id) in sought {
            let indexed = record_history::Entity::find()
                .select_only()
                .column(record_history::Column::Revision)
                .filter(record_history::Column::Kind.eq(*kind))
                .filter(record_history::Column::Id.eq(*id))
                .filter(record_history::Column::Revision.gt(signed(stretch.after.0)))
                .filter(record_history::Column::Revision.lt(signed(stretch.before.0)))
                .order_by(record_history::Column::Revision, stretch.order())
                .limit(limit)
                .into_tuple::<i64>();
            named.extend(self.read("read the log's index", indexed.all(self.readers())).await?);
        }
        let named = named.into_iter();
        let named: Box<dyn Iterator<Item = i64> + Send> =
            if stretch.newest_first { Box::new(named.rev()) } else { Box::new(named) };
        Ok(named.zip(0..limit).map(|(revision, _)| revision).collect())
    }

    /// The first events after `after` and up to `until` that changed a record, in order: at most `limit`, and not many
    /// more bytes than `bytes`. No other event is read.
    pub(super) async fn events_of(
        &self,
        record: (&str, &str),
        after: Revision,
        until: Revision,
        (limit, bytes): (u64, usize),
    ) -> Result<Span, Error> {
        let stretch = Stretch { after, before: until.next(), newest_first: false };
        let named = self.named(&[record], stretch, limit).await?;
        if named.is_empty() {
            return Ok(Span { rows: Vec::new(), is_last: true });
        }
        let query = events::Entity::find()
            .filter(events::Column::Revision.is_in(named.iter().copied()))
            .order_by(events::Column::Revision, Order::Asc);
        let rows = self.event_rows(self.readers(), query, bytes).await?;
        let mut found = rows.iter().map(|row| row.revision);
        match named.iter().take(rows.len().max(1)).find(|named| found.next() != Some(**named)) {
            None => {
                let are_all = u64::try_from(named.len()).is_ok_and(|named| named < limit);
                Ok(Span { is_last: are_all && rows.len() == named.len(), rows })
            }
            Some(lost) => Err(Error::Corrupt {
                table: events::TABLE,
                why: format!("event {lost}, which the index names, is missing"),
            }),
        }
    }
}
