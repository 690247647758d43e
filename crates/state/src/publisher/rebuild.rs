//! Writes the whole projection anew from the log.

use super::Interrupted;
use super::upkeep::{Beside, Done};
use crate::Digests;
use crate::projection::ProjectionStatus;
use grey_core::record::Record;
use grey_core::table::Table;
use tokio::sync::mpsc;

/// Batches of records on their way from the log to the projection.
const RECORDS_IN_FLIGHT: usize = 4;

/// Declares the projection complete once the feed holds all that was written: loaders rely on it.
pub(super) async fn rebuild(mut beside: Beside) -> Result<Done, Interrupted> {
    tracing::info!("rebuilding the projection");
    // Events up to here are contained in what the snapshot below reads.
    let before = beside.log.head().await?;
    let state = beside.state.clone();
    let mut rebuild = state.projection.rebuild(beside.token, &before).await?;
    let (sender, mut receiver) = mpsc::channel::<Vec<Record>>(RECORDS_IN_FLIGHT);
    let mut table = Table::default();
    let write = async {
        while let Some(records) = receiver.recv().await {
            records.iter().cloned().for_each(|record| table.insert(record));
            rebuild.write(records).await?;
        }
        // Moved in, so that a failed write ends the snapshot's sending at once.
        drop(receiver);
        Ok::<_, crate::Error>(rebuild)
    };
    let (snapshot, rebuild) = tokio::join!(beside.log.snapshot(sender), write);
    let (snapshot, rebuild) = (snapshot?, rebuild?);
    let status =
        ProjectionStatus { position: snapshot.position, digests: Digests::of(&table), level: snapshot.level };
    beside.feed_reaches(snapshot.position).await?;
    rebuild.finish(&status).await?;
    Ok(Done::Rebuilt(status))
}
