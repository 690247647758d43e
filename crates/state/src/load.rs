//! Loading a table from the projection, exact as of one revision although reading is not atomic.

use crate::feed::FeedRead;
use crate::projection::Damage;
use crate::{Error, State};
use grey_core::change::FormatLevel;
use grey_core::table::Table;
use std::time::Duration;

/// How long one read of the feed's backlog may wait; the entries are there already.
const BACKLOG_WAIT: Duration = Duration::from_millis(100);

/// What came of a load.
pub(crate) enum Loaded {
    /// A table as of its revision.
    Table {
        table: Box<Table>,
        /// It is what the publisher has at that revision. If not, the projection was being written anew or has
        /// drifted; its publisher mends both.
        verified: bool,
        /// What did not read back, and is missing unless a later event brought it.
        damage: Vec<Damage>,
    },
    /// The records, or the events after them, need this level.
    Above(FormatLevel),
    /// The projection is missing, being rebuilt, or does not fit the feed; try again.
    NotYet(&'static str),
}

/// Reads status and records, then applies the feed up to where it ended after the last record was read:
/// a record can only hold effects of events that the feed already held.
pub(crate) async fn load(state: &State, level: FormatLevel, batch: usize) -> Result<Loaded, Error> {
    let Some(status) = state.projection.status().await? else {
        return Ok(Loaded::NotYet("there is no complete projection"));
    };
    if status.level > level {
        return Ok(Loaded::Above(status.level));
    }
    let mut table = Table::default();
    let damage = state
        .projection
        .load(&mut |records| records.into_iter().for_each(|record| table.insert(record)))
        .await?;
    table.set_position(status.position);
    let Some(head) = state.feed.head().await? else {
        return Ok(Loaded::NotYet("there is no feed"));
    };
    let continues = head.first <= status.position.revision && status.position.revision <= head.last;
    if head.epoch != status.position.epoch || !continues {
        return Ok(Loaded::NotYet("the feed does not continue the projection"));
    }
    let mut digests = status.digests;
    while table.position().revision < head.last {
        match state.feed.read(&table.position(), level, batch, BACKLOG_WAIT).await? {
            FeedRead::Entries(entries) => {
                for entry in entries.into_iter().take_while(|e| e.event.revision <= head.last) {
                    table.apply_again(&entry.event);
                    digests = entry.digests;
                }
            }
            FeedRead::Above(needed) => return Ok(Loaded::Above(needed)),
            FeedRead::Idle | FeedRead::Lost => return Ok(Loaded::NotYet("the feed's backlog is gone")),
        }
    }
    let after = state.projection.status().await?;
    if after.is_none_or(|after| after.position.epoch != status.position.epoch) {
        return Ok(Loaded::NotYet("the projection was rebuilt meanwhile"));
    }
    let verified = digests.at(level) == Some(table.digest());
    Ok(Loaded::Table { table: Box::new(table), verified, damage })
}
