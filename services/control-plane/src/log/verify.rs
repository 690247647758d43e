//! Whether the log is as it was written: each event keeps the hash of the one before it, the head that of the last; and
//! whether each is found by what it says and by what it changed.

use grey_core::change::{Change, EntryHash, Position, Revision};
use grey_core::key::Key;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
};

use crate::database::{Database, Error, head_with_hash};
use crate::entity::{events, record_history, signed};

/// Rows read at once; fewer where they are large.
const CHUNK: usize = 50;
/// Rows of the index looked for at once: each is three of the parameters that a statement may have.
const ROWS: usize = 5_000;

/// How far the log proves to be as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The last event that is.
    pub reached: Revision,
    /// The first that is not.
    pub fault: Option<Fault>,
    /// Whether the log ends there.
    pub is_complete: bool,
}

/// An event that is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub revision: Revision,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Database {
    /// Checks up to `limit` events after `after`, which is itself taken as it is.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn verify(&self, after: Revision, limit: usize) -> Result<Verified, Error> {
        let snapshot = self.begin_snapshot().await?;
        let (head, newest) = self.read("read the log's head", head_with_hash(&snapshot)).await?;
        let end = Position::try_from(head)?.revision;
        let last = events::Entity::find_by_id(signed(after.0)).one(&snapshot);
        let last = self.read("read an event", last).await?;
        let mut chain =
            Chain { from: after, reached: after, hash: last.map_or(EntryHash::default(), |row| row.hash()) };
        let mut fault = None;
        let until = Revision(after.0.saturating_add(u64::try_from(limit).unwrap_or(u64::MAX)).min(end.0));
        while fault.is_none() && chain.reached < until {
            let rows = events::Entity::find()
                .filter(events::Column::Revision.gt(signed(chain.reached.0)))
                .filter(events::Column::Revision.lte(signed(until.0)))
                .order_by_asc(events::Column::Revision)
                .limit(u64::try_from(CHUNK).unwrap_or(u64::MAX));
            let rows = self.event_rows(&snapshot, rows, super::MAX_BYTES).await?;
            if rows.is_empty() {
                fault = Some(Fault { revision: chain.reached.next(), why: MISSING });
            }
            let before = chain.reached;
            fault = fault.or_else(|| rows.iter().find_map(|row| chain.follow(row)));
            if let Some(unnoted) = self.first_unnoted(&snapshot, &rows, before, chain.reached).await? {
                fault = Some(Fault { revision: unnoted, why: UNNOTED });
                chain.reached = unnoted.before();
            }
        }
        if let Some(unlinked) = fault.filter(|fault| fault.why == UNLINKED) {
            // Two events are not linked: one of both is another. It is the later one, if nothing follows it either.
            let later = unlinked.revision.next();
            if !self.is_followed(&snapshot, later, end, newest).await? {
                fault = Some(Fault { revision: later, why: ALTERED });
                chain.reached = unlinked.revision;
            }
        }
        self.read("end a snapshot", snapshot.commit()).await?;
        let is_complete = fault.is_none() && chain.reached >= end;
        if is_complete && chain.reached == end && chain.hash != newest {
            let fault = Some(Fault { revision: end, why: NOT_THE_LAST });
            return Ok(Verified { reached: end.before(), fault, is_complete: false });
        }
        Ok(Verified { reached: chain.reached, fault, is_complete })
    }
}

impl Database {
    /// The first event of `rows`, of those after `after` and up to `until`, that the index does not name under all that it
    /// changed.
    async fn first_unnoted(
        &self,
        snapshot: &DatabaseTransaction,
        rows: &[events::Model],
        after: Revision,
        until: Revision,
    ) -> Result<Option<Revision>, Error> {
        let mut noted = Vec::new();
        for row in rows.iter().filter(|row| (signed(after.0) + 1..=signed(until.0)).contains(&row.revision)) {
            let event = row.event()?;
            let keys: Vec<Key> = event.changes.iter().map(Change::key).collect();
            let of_event = record_history::Noted::of(&keys);
            noted.extend(of_event.rows().map(|(kind, id)| (event.revision, kind, id.to_owned())));
        }
        for some in noted.chunks(ROWS) {
            if self.are_noted(snapshot, some).await? {
                continue;
            }
            for of_event in some.chunk_by(|(one, ..), (next, ..)| one == next) {
                if !self.are_noted(snapshot, of_event).await? {
                    return Ok(of_event.first().map(|(revision, ..)| *revision));
                }
            }
        }
        Ok(None)
    }

    async fn are_noted(
        &self,
        snapshot: &DatabaseTransaction,
        noted: &[(Revision, &'static str, String)],
    ) -> Result<bool, Error> {
        use record_history::Column;
        use sea_orm::sea_query::ExprTrait;
        let row = [Column::Kind, Column::Id, Column::Revision].map(Expr::col);
        let rows = noted.iter().map(|(revision, kind, id)| (*kind, id.as_str(), signed(revision.0)));
        let found = record_history::Entity::find().filter(Expr::tuple(row).in_tuples(rows)).count(snapshot);
        let found = self.read("look events up in the index", Box::pin(found)).await?;
        Ok(u64::try_from(noted.len()) == Ok(found))
    }

    /// Whether the event after this one, or the log's head if it is the last, knows it as it is.
    async fn is_followed(
        &self,
        snapshot: &DatabaseTransaction,
        revision: Revision,
        end: Revision,
        newest: EntryHash,
    ) -> Result<bool, Error> {
        let find = |revision: Revision| events::Entity::find_by_id(signed(revision.0)).one(snapshot);
        let Some(row) = self.read("read an event", find(revision)).await? else { return Ok(false) };
        if revision == end {
            return Ok(row.hash() == newest);
        }
        let next = self.read("read an event", find(revision.next())).await?;
        Ok(next.and_then(|next| next.event().ok()).is_some_and(|next| next.previous == row.hash()))
    }
}

const MISSING: &str = "it is missing";
const ALTERED: &str =
    "neither does it follow the event before it, nor is it the one that the next was written after";
const DISAGREES: &str =
    "its columns were changed: it is found by another time, principal or reason than it has";
const UNNOTED: &str = "the index lacks it: it is missing in the history of what it changed";
const UNREADABLE: &str = "it does not read back";
const ANOTHER: &str = "it is another event than its place says";
const UNLINKED: &str = "it is not the one that the next event was written after";
const NOT_THE_FIRST: &str = "it was written after another event than there is before it";
const NOT_THE_LAST: &str = "it is not the one that was committed last";

/// How far the events are linked.
struct Chain {
    /// Taken as it is.
    from: Revision,
    reached: Revision,
    hash: EntryHash,
}

impl Chain {
    /// Goes on to the next event, or tells what is wrong with it.
    fn follow(&mut self, row: &events::Model) -> Option<Fault> {
        let revision = self.reached.next();
        let fault = |why| Some(Fault { revision, why });
        if row.revision != signed(revision.0) {
            return fault(MISSING);
        }
        let Ok(event) = row.event() else { return fault(UNREADABLE) };
        if event.revision != revision {
            return fault(ANOTHER);
        }
        if event.previous != self.hash {
            if self.reached == self.from {
                return fault(NOT_THE_FIRST);
            }
            // Whatever was altered in this one, the next would not know it either: it is the one before that is another.
            let altered = self.reached;
            self.reached = altered.before();
            return Some(Fault { revision: altered, why: UNLINKED });
        }
        if !row.agrees(&event) {
            return fault(DISAGREES);
        }
        (self.reached, self.hash) = (revision, row.hash());
        None
    }
}
