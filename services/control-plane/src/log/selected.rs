//! The log a piece at a time, as far as it is asked for.
//!
//! Events of a tenant or a service are found by the log's index. Who and when are columns of the events themselves, read
//! over so many of them at once: times need not grow with revisions, since replicas have clocks of their own.

use grey_core::change::{Event, Revision};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::Key;
use sea_orm::{ColumnTrait, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect};

use crate::database::{Database, Error};
use crate::entity::record_history::{SERVICE, TENANT, TIED};
use crate::entity::{events, signed, unsigned};

/// Events that are looked at by the index at once.
const INDEXED: u64 = 500;
/// Events that are looked at without it at once.
const UNINDEXED: u64 = 5_000;
/// Events are read until they have so many bytes: one may set the pins of a hundred thousand tenants.
const MAX_BYTES: usize = 4 << 20;
/// Events that are read at once if some of them may turn out not to be wanted.
const DECODED: u64 = 50;

/// Which events are wanted: those with a change that is all of this.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Of this tenant, or of what ties it to services.
    pub(crate) tenant: Option<TenantId>,
    /// Of this service, or of what ties tenants to it.
    pub(crate) service: Option<ServiceId>,
    /// By the principal of this id.
    pub(crate) actor: Option<String>,
    /// Not before, in milliseconds since the Unix epoch.
    pub(crate) from_ms: Option<u64>,
    /// Before, in milliseconds since the Unix epoch.
    pub(crate) to_ms: Option<u64>,
}

impl Selection {
    /// Whether a change of what is under the key is wanted.
    pub(crate) fn is_of(&self, key: &Key) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| key.tenant() == Some(tenant))
            && self.service.as_ref().is_none_or(|service| key.service() == Some(service))
    }

    /// Whether only some changes are wanted.
    pub(crate) fn is_of_some(&self) -> bool {
        self.tenant.is_some() || self.service.is_some()
    }

    /// Where the index names the events; nothing: it does not.
    fn indexed(&self) -> Vec<(&str, &str)> {
        match (&self.tenant, &self.service) {
            (Some(tenant), _) => vec![(TENANT, tenant.as_str())],
            (None, Some(service)) => vec![(SERVICE, service.as_str()), (TIED, service.as_str())],
            (None, None) => Vec::new(),
        }
    }
}

/// A part of the log, without its two ends, and from which of them it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) after: Revision,
    pub(crate) before: Revision,
    pub(crate) newest_first: bool,
}

impl Stretch {
    pub(super) fn order(&self) -> Order {
        if self.newest_first { Order::Desc } else { Order::Asc }
    }

    /// What is left behind a revision of it.
    fn beyond(self, revision: Revision) -> Option<Self> {
        let rest = if self.newest_first {
            Self { before: revision, ..self }
        } else {
            Self { after: revision, ..self }
        };
        rest.some()
    }

    /// The first so many events of it.
    fn first(self, events: u64) -> Self {
        if self.newest_first {
            let after = Revision(self.before.0.saturating_sub(events + 1));
            Self { after: after.max(self.after), ..self }
        } else {
            let before = Revision(self.after.0.saturating_add(events + 1));
            Self { before: before.min(self.before), ..self }
        }
    }

    /// The stretch, if there is anything in it.
    pub(crate) fn some(self) -> Option<Self> {
        (self.after.next() < self.before).then_some(self)
    }
}

/// What was found in the first part of a stretch.
pub(crate) struct Found {
    /// What is wanted of it.
    pub(crate) events: Vec<Event>,
    /// What was not looked at.
    pub(crate) rest: Option<Stretch>,
}

impl Database {
    /// Up to `limit` wanted events, from the first part of a stretch: what one look costs is bounded, whatever it finds.
    pub(crate) async fn select(
        &self,
        selection: &Selection,
        stretch: Stretch,
        limit: u64,
    ) -> Result<Found, Error> {
        let mut query = events::Entity::find().order_by(events::Column::Revision, stretch.order());
        let sought = selection.indexed();
        // Read up to here, unless there is too much of it; none: all of it is.
        let end = if sought.is_empty() {
            let looked = stretch.first(UNINDEXED);
            query = query
                .filter(events::Column::Revision.gt(signed(looked.after.0)))
                .filter(events::Column::Revision.lt(signed(looked.before.0)));
            Some(if stretch.newest_first { looked.after.next() } else { looked.before.before() })
        } else {
            let named = self.named(&sought, stretch, INDEXED).await?;
            query = query.filter(events::Column::Revision.is_in(named.iter().copied()));
            let is_all = u64::try_from(named.len()).is_ok_and(|named| named < INDEXED);
            let last = named.last().copied().filter(|_| !is_all);
            last.map(|last| unsigned(events::TABLE, last)).transpose()?.map(Revision)
        };
        if let Some(actor) = &selection.actor {
            query = query.filter(events::Column::Principal.eq(actor.as_str()));
        }
        if let Some(from) = selection.from_ms {
            query = query.filter(events::Column::AtMs.gte(signed(from)));
        }
        if let Some(to) = selection.to_ms {
            query = query.filter(events::Column::AtMs.lt(signed(to)));
        }
        let limit = if selection.is_of_some() { DECODED } else { limit };
        let rows = self.event_rows(self.readers(), query.limit(limit), MAX_BYTES).await?;
        let bytes: usize = rows.iter().map(|row| row.body.len()).sum();
        let is_cut = bytes >= MAX_BYTES || u64::try_from(rows.len()).is_ok_and(|read| read >= limit);
        let mut wanted = rows.iter().map(in_place).collect::<Result<Vec<Event>, _>>()?;
        let end = if is_cut { wanted.last().map(|last| last.revision) } else { end };
        if selection.is_of_some() {
            wanted.retain(|event| event.changes.iter().any(|change| selection.is_of(&change.key())));
        }
        Ok(Found { events: wanted, rest: end.and_then(|end| stretch.beyond(end)) })
    }
}

/// The event of a row. One of another place would send who reads on from it elsewhere.
fn in_place(row: &events::Model) -> Result<Event, Error> {
    let event = row.event()?;
    if signed(event.revision.0) == row.revision {
        return Ok(event);
    }
    let why = format!("event {}: it is another event than its place says", row.revision);
    Err(Error::Corrupt { table: events::TABLE, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_read_to_their_end_from_either_side() {
        for newest_first in [false, true] {
            let mut rest = Some(Stretch { after: Revision(3), before: Revision(11), newest_first });
            let mut seen = Vec::new();
            while let Some(stretch) = rest {
                let first = stretch.first(3);
                let mut revisions: Vec<u64> = (first.after.0 + 1..first.before.0).collect();
                if newest_first {
                    revisions.reverse();
                }
                rest = revisions.last().and_then(|last| stretch.beyond(Revision(*last)));
                seen.extend(revisions);
            }
            let mut expected: Vec<u64> = (4..11).collect();
            if newest_first {
                expected.reverse();
            }
            assert_eq!(seen, expected);
        }
    }
}
