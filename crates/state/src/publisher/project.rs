//! Keeping the projection in step with the feed, and mending it once it is known what is wrong.

use super::Interrupted;
use super::backlog::Projection;
use super::check::Findings;
use super::lead::Lead;
use super::upkeep::{Done, Work};
use crate::feed::FeedEntry;
use crate::projection::{ProjectionStatus, Repair, STATUS_KEY};
use crate::{Digests, Error};
use grey_core::change::{Event, Position};
use grey_core::key::RecordId;
use grey_core::record::Record;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::sleep;

/// How long the projection of an event waits, for each of its changes: about what a router takes to apply one. Servers and
/// processors are for those who read the feed first.
const WAIT_PER_CHANGE: Duration = Duration::from_micros(3);
/// Events with no more changes are projected at once.
const FEW_CHANGES: usize = 1_000;
/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_millis(200);
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
    /// Has the next of what the projection lacks written, beside the publishing; nothing else may be under way.
    pub(super) async fn project(&mut self) -> Result<(), Interrupted> {
        let Projected::At(status) = &self.projected else { return Ok(()) };
        let (from, end) = (status.position.revision, self.mirror.position().revision);
        if from >= end {
            return Ok(());
        }
        let mut batch = self.backlog.batch_after(from);
        if batch.is_empty() {
            let events = self.publisher.log.events(from, self.publisher.options.batch).await?;
            for event in events.into_iter().take_while(|event| event.revision <= end) {
                self.backlog.push(FeedEntry { event, digests: Digests::unknown() });
            }
            batch = self.backlog.batch_after(from);
        }
        let Some(last) = batch.last() else { return Ok(()) };
        let mut reached = self.status();
        if last.event.revision != end {
            reached.position.revision = last.event.revision;
            reached.digests = last.digests.clone();
        }
        let events: Vec<Event> = batch.into_iter().map(|entry| entry.event).collect();
        let changes: usize = events.iter().map(|event| event.changes.len()).sum();
        let wait = WAIT_PER_CHANGE.saturating_mul(u32::try_from(changes).unwrap_or(u32::MAX));
        let (projection, token) = (Arc::clone(&self.publisher.state.projection), self.token);
        self.underway.start(async move {
            if changes > FEW_CHANGES {
                sleep(wait.min(LONGEST_WAIT)).await;
            }
            let outcome = projection.apply(token, &events, &reached).await;
            Projection { events, reached, outcome }
        });
        Ok(())
    }

    /// Acts on what came of projecting a batch.
    pub(super) fn projected(&mut self, done: Projection) -> Result<(), Interrupted> {
        let Projection { events, reached, outcome } = done;
        match outcome {
            // Not if it was found to be lost meanwhile.
            Ok(()) if matches!(self.projected, Projected::At(_)) => self.projected = Projected::At(reached),
            Ok(()) => {}
            Err(error @ Error::Corrupt { .. }) => self.stumble(&error, &events),
            Err(error) => return Err(error.into()),
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
            log: Arc::clone(&self.publisher.log),
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
