//! Keeping the projection in step with the feed, and mending it once it is known what is wrong.

use super::Interrupted;
use super::check::Findings;
use super::lead::Lead;
use super::upkeep::{Done, Work};
use crate::projection::{ProjectionStatus, Repair, STATUS_KEY};
use crate::{Digests, Error};
use grey_core::change::{Event, Position};
use grey_core::key::RecordId;
use grey_core::record::Record;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

/// Changes after which another batch of events is projected: as many units may have to be written anew if one of them
/// turns out to be damaged, and a router that loads meanwhile has them to fold.
const BATCH_CHANGES: usize = 4_000;
/// Repairs in a row after which the whole projection is rebuilt.
const MAX_REPAIRS: u32 = 3;

/// How the projection stands.
pub(super) enum Projected {
    /// Its status is this; it may be behind the feed.
    At(ProjectionStatus),
    /// The same, but the next events could not be projected: one of these records is damaged.
    Stuck(ProjectionStatus, BTreeSet<RecordId>),
    /// It is not there, or of no use.
    Missing,
}

impl Lead<'_> {
    /// Projects some of what the projection lacks; true if it lacks more.
    pub(super) async fn catch_up(&mut self) -> Result<bool, Interrupted> {
        let end = self.mirror.position().revision;
        let Projected::At(status) = &self.projected else { return Ok(false) };
        let from = status.position.revision;
        if from >= end {
            return Ok(false);
        }
        let events = self.publisher.log.events(from, self.publisher.options.batch).await?;
        let held = events.partition_point(|event| event.revision <= end);
        self.project(events.get(..held).unwrap_or_default(), &[]).await?;
        let is_behind = matches!(&self.projected, Projected::At(status) if status.position.revision < end);
        Ok(is_behind && !events.is_empty())
    }

    /// Projects events that the feed holds, if the projection holds all before them. `digests` are those of a table
    /// after each, as far as they are at hand.
    pub(super) async fn project(&mut self, events: &[Event], digests: &[Digests]) -> Result<(), Interrupted> {
        let mut done = 0;
        for batch in batches(events) {
            done += batch.len();
            let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
            let follows = |status: &ProjectionStatus| status.position.revision.next() == first.revision;
            if !matches!(&self.projected, Projected::At(status) if follows(status)) {
                return Ok(());
            }
            let mut reached = self.status();
            if last.revision != reached.position.revision {
                reached.position.revision = last.revision;
                reached.digests = digests.get(done - 1).cloned().unwrap_or_else(Digests::unknown);
            }
            match self.publisher.state.projection.apply(self.token, batch, &reached).await {
                Ok(()) => self.projected = Projected::At(reached),
                Err(error @ Error::Corrupt { .. }) => self.stumble(&error, batch),
                Err(error) => return Err(error.into()),
            }
            self.beat().await?;
        }
        Ok(())
    }

    /// Events cannot be projected, because something does not read back.
    fn stumble(&mut self, error: &Error, events: &[Event]) {
        let is_status = matches!(error, Error::Corrupt { key, .. } if key == STATUS_KEY);
        match std::mem::replace(&mut self.projected, Projected::Missing) {
            Projected::At(status) if !is_status => {
                tracing::error!(%error, "projection is damaged; what the events change is written anew");
                let changes = events.iter().flat_map(|event| &event.changes);
                let records = changes.map(|change| change.key().record().into()).collect();
                self.projected = Projected::Stuck(status, records);
                self.upkeep.want(Work::Check);
            }
            _ => self.lose_projection(error),
        }
    }

    /// The projection is of no use any more.
    pub(super) fn lose_projection(&mut self, error: &Error) {
        tracing::error!(%error, "projection is damaged; it is rebuilt");
        self.projected = Projected::Missing;
        self.upkeep.want(Work::Rebuild);
    }

    /// Begins what is wanted, beside the publishing.
    pub(super) fn start_work(&mut self) {
        let suspects = match &self.projected {
            Projected::Stuck(_, records) => records.clone(),
            _ => BTreeSet::new(),
        };
        let beside = super::upkeep::Beside {
            state: self.publisher.state.clone(),
            log: std::sync::Arc::clone(&self.publisher.log),
            token: self.token,
            level: self.publisher.options.level,
            batch: self.publisher.options.batch,
            mirror: self.mirror.clone(),
            reached: self.reached.subscribe(),
        };
        match self.upkeep.next() {
            Some(Work::Check) => self.upkeep.start(Work::Check, super::check::check(beside, suspects)),
            Some(Work::Rebuild) => {
                self.publisher.handle.0.rebuilds.fetch_add(1, Relaxed);
                self.projected = Projected::Missing;
                self.upkeep.start(Work::Rebuild, super::rebuild::rebuild(beside));
            }
            None => {}
        }
    }

    /// Acts on what a work beside came to.
    pub(super) async fn settle(&mut self, done: Result<Done, Interrupted>) -> Result<(), Interrupted> {
        match done {
            Ok(Done::Sound) => self.upkeep.repairs_in_row = 0,
            Ok(Done::Damaged(findings)) => self.repair(findings).await?,
            Ok(Done::BeyondRepair(why)) => {
                let error = Error::Corrupt { key: STATUS_KEY.to_owned(), why };
                self.lose_projection(&error);
            }
            Ok(Done::Rebuilt(status)) => {
                tracing::info!(projection.revision = %status.position.revision, "projection is rebuilt");
                self.upkeep.repairs_in_row = 0;
                self.projected = Projected::At(status);
            }
            Ok(Done::NotYet(why)) => tracing::debug!(why, "projection cannot be compared yet"),
            Err(Interrupted::State(error @ Error::Fenced { .. })) => return Err(error.into()),
            Err(error) => {
                self.publisher.handle.0.failures.fetch_add(1, Relaxed);
                tracing::warn!(
                    error = super::told(&error),
                    "work beside the publication failed; it is tried again"
                );
            }
        }
        Ok(())
    }

    /// Writes what was found damaged anew, as of the feed's end.
    async fn repair(&mut self, mut findings: Findings) -> Result<(), Interrupted> {
        let (Projected::At(status) | Projected::Stuck(status, _)) = &self.projected else { return Ok(()) };
        let status = status.clone();
        self.fold_since(&mut findings).await?;
        let (records, strays) = (findings.records.len(), findings.strays);
        let named: Vec<String> = findings.records.keys().take(5).map(|id| format!("{id:?}")).collect();
        tracing::error!(
            records, indexes = strays, damage = ?findings.damage, named = named.join(", "),
            "projection differs from the log; what differs is written anew"
        );
        let repairs: Vec<Repair> = findings
            .records
            .into_iter()
            .map(|(id, record)| record.map_or(Repair::Remove(id), Repair::Put))
            .collect();
        let projection = &self.publisher.state.projection;
        let written = async {
            projection.repair(self.token, &status.position, &repairs).await?;
            if strays > 0 {
                let indexes = crate::projection::Indexes::of(&self.mirror);
                projection.reindex(self.token, &indexes).await?;
            }
            Ok(())
        };
        match written.await {
            Ok(()) => {
                self.publisher.handle.0.repairs.fetch_add((records + strays) as u64, Relaxed);
                self.projected = Projected::At(status);
                self.upkeep.repairs_in_row += 1;
                // The next look shows whether that was all.
                let more = self.upkeep.repairs_in_row >= MAX_REPAIRS;
                self.upkeep.want(if more { Work::Rebuild } else { Work::Check });
            }
            Err(error @ Error::Corrupt { .. }) => self.lose_projection(&error),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Brings records that were read a moment ago up to the feed's end.
    async fn fold_since(&self, findings: &mut Findings) -> Result<(), Interrupted> {
        let end: Position = self.mirror.position();
        let mut at = findings.at.revision;
        while at < end.revision {
            let events = self.publisher.log.events(at, self.publisher.options.batch).await?;
            let Some(last) = events.last().map(|event| event.revision) else { break };
            for change in events.iter().take_while(|e| e.revision <= end.revision).flat_map(|e| &e.changes) {
                if let Some(record) = findings.records.get_mut(&change.key().record().into()) {
                    *record = Record::fold(record.take(), change);
                }
            }
            at = last;
        }
        Ok(())
    }
}

/// Events in batches of a bounded number of changes, each of one event at least.
fn batches(mut events: &[Event]) -> impl Iterator<Item = &[Event]> {
    std::iter::from_fn(move || {
        let mut changes = 0;
        let fits = |event: &&Event| {
            changes += event.changes.len();
            changes <= BATCH_CHANGES
        };
        let fitting = events.iter().take_while(fits).count();
        let (batch, rest) = events.split_at(fitting.max(1).min(events.len()));
        events = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_core::change::{Change, Revision};
    use grey_core::ids::TenantId;
    use grey_core::key::Key;

    #[test]
    fn batches_are_bounded_and_leave_no_event_out() {
        let tenant = TenantId::new("acme").unwrap();
        let event = |(revision, changes): (u64, usize)| Event {
            revision: Revision(revision),
            changes: vec![Change::Removed(Key::Tenant(tenant.clone())); changes],
            ..Event::default()
        };
        let sizes = [1, 2, BATCH_CHANGES - 3, 1, 3 * BATCH_CHANGES, 0, BATCH_CHANGES, BATCH_CHANGES];
        let events: Vec<Event> = (1..).zip(sizes).map(event).collect();
        let cut: Vec<usize> = batches(&events).map(<[Event]>::len).collect();
        assert_eq!(cut, [3, 1, 1, 2, 1]);
        assert_eq!(batches(&events).flatten().count(), events.len());
        assert_eq!(batches(&[]).count(), 0);
    }
}
