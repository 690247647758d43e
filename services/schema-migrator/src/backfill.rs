//! Updates of all rows of a large table, range by range.
//!
//! Each range of keys is one transaction that also writes into the journal how far it came, so a crash neither leaves a
//! row out nor does one twice. Ranges are found by the key, never by counting rows off, so the last one costs what the
//! first one did.
//!
//! The largest key is looked up once, at the beginning: rows with larger ones come from whoever writes meanwhile, and so
//! do rows that are put between keys that are done already. Such rows must get their value as they are written, from a
//! default for instance, which a migration sets before it backfills.

mod key;
mod pace;
mod table;

pub use pace::Pacing;

use crate::files::Backfill;
use crate::tenant::{Connection, Error, Mark, Record, Stop};
use key::{Key, Reached};
use pace::Pace;
use std::time::Duration;
use table::Table;
use tokio::time::{Instant, sleep};

/// How far a backfill is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Rows whose keys are done.
    pub done: u64,
    /// Rows that there are, by an estimate that is never below `done`.
    pub total: u64,
}

/// Runs a backfill from where `record` says that it came to, and marks it done there.
///
/// # Errors
/// When the table does not suit it, the database refuses a range for another reason than a lock or a time limit, does so
/// too often, or is lost; and when it is time to stop, which is looked at between ranges and stops a running one. Ranges
/// that were done stay done, and the journal tells which.
pub async fn run(
    connection: &Connection,
    step: &Backfill,
    mut record: Record,
    pacing: &Pacing,
    progress: &mut (dyn FnMut(Progress) + Send),
    stop: &Stop,
) -> Result<(), Error> {
    stop.check()?;
    let table = Box::pin(Table::find(connection, step)).await?;
    let mut reached = match record.reached.as_deref() {
        Some(text) => Some(Reached::read(text)?),
        None => Box::pin(table.last_key()).await?.map(Reached::nothing_before),
    };
    let mut pace = Pace::new(pacing, step.batch);
    while let Some(now) = &mut reached {
        stop.check()?;
        let range = Box::pin(table.range(now.last.as_ref(), &now.upto, pace.size())).await;
        let begun = Instant::now();
        let done = match range {
            Ok(None) => break,
            Ok(Some(range)) => {
                let next =
                    Reached { done: now.done + range.keys, last: Some(range.high.clone()), ..now.clone() };
                record.reached = Some(next.write());
                let (low, high) = (table.literal(&range.low), table.literal(&range.high));
                let sql = step.between(&low, &high);
                let done = Box::pin(one_range(connection, &sql, step.statement.line, &record, stop)).await;
                done.map(|()| next)
            }
            Err(error) => Err(error),
        };
        match done {
            Ok(next) => {
                *now = next;
                progress(Progress { done: now.done, total: table.estimate().max(now.done) });
                pace.done(begun.elapsed());
                pause(step.pause, stop).await;
            }
            Err(error) => {
                let wait = pace.refused(error)?;
                pause(wait.max(step.pause), stop).await;
            }
        }
    }
    record.reached = reached.map(|reached| reached.write());
    record.mark = Mark::Done;
    connection.journal(connection.db(), &record).await
}

/// One range and how far it came, in one transaction.
async fn one_range(
    connection: &Connection,
    sql: &str,
    line: u32,
    record: &Record,
    stop: &Stop,
) -> Result<(), Error> {
    let transaction = connection.begin().await?;
    let both = async {
        connection.execute(&transaction, sql, line, stop).await?;
        let verified = connection.verified(&transaction).await?;
        connection.journal(&transaction, record).await?;
        Ok(verified)
    };
    match Box::pin(both).await {
        Ok(verified) => connection.commit_verified(transaction, verified).await,
        Err(error) => {
            connection.roll_back(transaction).await;
            Err(error)
        }
    }
}

async fn pause(time: Duration, stop: &Stop) {
    tokio::select! {
        () = sleep(time) => {}
        () = stop.token.cancelled() => {}
        () = tokio::time::sleep_until(stop.deadline) => {}
    }
}

/// A range of keys, both ends included.
struct Range {
    low: Key,
    high: Key,
    /// Keys in it.
    keys: u64,
}
