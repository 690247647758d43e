//! Loading a table from the projection, exact as of one revision although reading is not atomic.

use crate::feed::FeedRead;
use crate::{Error, State};
use grey_core::table::Table;
use std::time::Duration;

/// How long one read of the feed's backlog may wait; the entries are there already.
const BACKLOG_WAIT: Duration = Duration::from_millis(100);

/// What came of a load.
pub(super) enum Loaded {
    /// A table, exact as of its revision.
    Complete(Box<Table>),
    /// A table that could not be compared, or differs from what the publisher has: the projection was being
    /// written anew or has drifted; its publisher mends both.
    Unverified(Box<Table>),
    /// The projection is missing, being rebuilt, or does not fit the feed; try again.
    NotYet(&'static str),
}

/// Reads status and records, then applies the feed up to where it ended after the last record was read:
/// a record can only hold effects of events that the feed already held.
pub(super) async fn load(state: &State, batch: usize) -> Result<Loaded, Error> {
    let Some(status) = state.projection.status().await? else {
        return Ok(Loaded::NotYet("there is no complete projection"));
    };
    let mut table = Table::default();
    state
        .projection
        .load(&mut |records| {
            for record in records {
                table.insert(record);
            }
        })
        .await?;
    table.set_position(status.position.clone());
    let Some(head) = state.feed.head().await? else {
        return Ok(Loaded::NotYet("there is no feed"));
    };
    let continues = head.first <= status.position.revision && status.position.revision <= head.last;
    if head.generation != status.position.generation || !continues {
        return Ok(Loaded::NotYet("the feed does not continue the projection"));
    }
    let mut digest = status.digest;
    while table.position().revision < head.last {
        match state.feed.read(table.position(), batch, BACKLOG_WAIT).await? {
            FeedRead::Entries(entries) => {
                for entry in entries.iter().take_while(|e| e.event.revision <= head.last) {
                    table.apply_again(&entry.event);
                    digest = entry.digest;
                }
            }
            FeedRead::Idle | FeedRead::Lost => return Ok(Loaded::NotYet("the feed's backlog is gone")),
        }
    }
    let after = state.projection.status().await?;
    if after.is_none_or(|after| after.position.generation != status.position.generation) {
        return Ok(Loaded::NotYet("the projection was rebuilt meanwhile"));
    }
    let verified = digest == table.digest();
    Ok(if verified { Loaded::Complete(Box::new(table)) } else { Loaded::Unverified(Box::new(table)) })
}
