//! Compares the projection with the log, record by record.

use super::mend::read;
use super::upkeep::{Beside, Done};
use super::{EventLog, Interrupted};
use crate::Error;
use crate::load::{Loaded, load};
use crate::projection::{Damage, Indexes, MAX_DAMAGE};
use grey_core::change::{Event, Position, Revision};
use grey_core::key::RecordId;
use grey_core::record::Record;
use std::collections::{BTreeMap, BTreeSet};

/// Most records that are mended one by one.
const MAX_RECORDS: usize = 10_000;

/// What of the projection is not what it should be.
pub(super) struct Findings {
    /// What these records should be; none: gone.
    pub(super) records: BTreeMap<RecordId, Option<Record>>,
    /// As of when.
    pub(super) at: Position,
    /// Members of indexes that are missing or should not be there.
    pub(super) strays: usize,
    /// What did not read back, a few.
    pub(super) damage: Vec<Damage>,
}

/// Loads the projection as a router does, and compares it with a table folded from the log. `suspects` are known to be
/// damaged, even if it does not show.
pub(super) async fn check(mut beside: Beside, suspects: BTreeSet<RecordId>) -> Result<Done, Interrupted> {
    let status = match beside.state.projection.status().await {
        Ok(Some(status)) => status,
        Ok(None) => return Ok(Done::NotYet("there is no complete projection")),
        Err(Error::Corrupt { key, why }) => return Ok(Done::BeyondRepair(format!("{key}: {why}"))),
        Err(error) => return Err(error.into()),
    };
    let (table, mut damage) = match load(&beside.state, beside.level, beside.batch).await? {
        Loaded::Table { table, damage, .. } => (table, damage),
        Loaded::Above(_) => {
            return Ok(Done::BeyondRepair("it states a higher format level than the log".to_owned()));
        }
        Loaded::NotYet(why) => return Ok(Done::NotYet(why)),
    };
    if damage.len() >= MAX_DAMAGE {
        return Ok(Done::BeyondRepair(format!("{} and more do not read back", damage[0].key)));
    }
    let mut mirror = beside.mirror.clone();
    for event in events(&*beside.log, mirror.position().revision, beside.batch).await? {
        if event.revision <= table.position().revision && mirror.apply(&event).is_err() {
            return Ok(Done::NotYet("the log changed meanwhile"));
        }
    }
    if mirror.position() != table.position() {
        return Ok(Done::NotYet("the feed is elsewhere"));
    }

    let mut records = suspects;
    records.extend(damage.iter().filter_map(|damage| damage.record.clone()));
    if mirror.digest() != table.digest() {
        let differing = tokio::task::spawn_blocking(move || mirror.differing(&table)).await;
        let differing = differing.map_err(|error| Interrupted::Fault(error.to_string()))?;
        if differing.is_empty() {
            return Ok(Done::BeyondRepair("it differs, and no record does".to_owned()));
        }
        records.extend(differing);
    }
    let strays = strays(&beside, status.position.revision, &damage, &records).await?;
    if records.is_empty() && strays == 0 {
        return Ok(Done::Sound);
    }
    if records.len() > MAX_RECORDS {
        return Ok(Done::BeyondRepair(format!("{} records differ", records.len())));
    }
    let mut records: BTreeMap<RecordId, Option<Record>> = records.into_iter().map(|id| (id, None)).collect();
    let snapshot = read(&*beside.log, |batch| {
        for record in batch {
            if let Some(place) = records.get_mut(&record.key().into()) {
                *place = Some(record);
            }
        }
    })
    .await?;
    beside.feed_reaches(snapshot.position).await?;
    damage.truncate(5);
    Ok(Done::Damaged(Findings { records, at: snapshot.position, strays, damage }))
}

/// How many members of indexes are missing or should not be there; those of damaged records are mended with these.
async fn strays(
    beside: &Beside,
    projected: Revision,
    damage: &[Damage],
    records: &BTreeSet<RecordId>,
) -> Result<usize, Interrupted> {
    let held = beside.state.projection.indexes().await?;
    // Read after the indexes: what they may hold already, or not yet.
    let since = events(&*beside.log, projected.min(beside.mirror.position().revision), beside.batch).await?;
    let changed = since.iter().flat_map(|event| &event.changes).map(|change| change.key().record().into());
    let but = records.iter().cloned().chain(changed).collect();
    let unreadable = damage.iter().filter(|damage| damage.record.is_none()).count();
    Ok(Indexes::of(&beside.mirror).differences(&held, &but).max(unreadable))
}

/// Every event after `after`.
async fn events(log: &dyn EventLog, after: Revision, batch: usize) -> Result<Vec<Event>, Interrupted> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let from = events.last().map_or(after, |event| event.revision);
        let more = log.events(from, batch).await?;
        if more.is_empty() {
            return Ok(events);
        }
        events.extend(more);
    }
}
