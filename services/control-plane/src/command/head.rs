//! The routing table at the log's head, which tells what a command would do before it is done.
//!
//! It is the table of a follower like the routers', folded on to the head within the command's transaction: what the
//! follower has not seen yet was committed a moment ago, most of it here. The follower brings the instances too.

use grey_core::change::{Event, FormatLevel, Position, Revision};
use grey_core::error::Reason;
use grey_core::table::Table;
use grey_proto::status::ApiError;
use grey_state::follower::{NotCurrent, Tables};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tokio::sync::mpsc;

use super::attempt::during;
use super::error::Error;
use crate::database::{self, Database};
use crate::entity::{events, signed};

/// Events read at once.
const CHUNK: u64 = 200;
/// Most events that are folded while a transaction holds the log; from further away the state is loaded.
const MAX_FOLDED: u64 = 10_000;
/// Batches of a snapshot that may wait to be taken.
const BATCHES: usize = 4;

/// The table at the log's head.
pub(super) struct HeadTable {
    database: Database,
    followed: Tables,
    /// As of the last command.
    held: Option<Table>,
}

impl HeadTable {
    pub(super) fn new(database: Database, followed: Tables) -> Self {
        Self { database, followed, held: None }
    }

    /// Whether there is any table to go on from.
    pub(super) fn is_there(&self) -> bool {
        self.held.is_some() || self.verified().is_some()
    }

    /// Loads the present state from the database; a follower without shared state has nothing.
    pub(super) async fn load(&mut self) -> Result<(), database::Error> {
        let (batches, mut taken) = mpsc::channel(BATCHES);
        let mut table = Table::default();
        let send = async {
            let snapshot = self.database.send_snapshot(&batches).await;
            drop(batches);
            snapshot
        };
        let take = async {
            while let Some(records) = taken.recv().await {
                records.into_iter().for_each(|record| table.insert(record));
            }
        };
        let (snapshot, ()) = tokio::join!(send, take);
        table.set_position(snapshot?.position);
        table.adopt_instances(&self.followed.load());
        self.held = Some(table);
        Ok(())
    }

    /// The table at `head`, which the transaction holds; none if nothing is near enough to go on from:
    /// [`HeadTable::load`] it then, outside of any transaction.
    pub(super) async fn reach(
        &mut self,
        transaction: &DatabaseTransaction,
        head: Position,
    ) -> Result<Option<Table>, Error> {
        let Some(mut table) = self.nearest(head) else { return Ok(None) };
        while table.position().revision < head.revision {
            let events = events_after(transaction, table.position().revision).await?;
            if events.is_empty() {
                return Ok(None);
            }
            for event in events {
                if event.revision <= head.revision && table.apply(&event).is_err() {
                    return Ok(None);
                }
            }
        }
        self.held = Some(table.clone());
        Ok(Some(table))
    }

    /// Takes over the table after what was committed.
    pub(super) fn committed(&mut self, after: Table) {
        self.held = Some(after);
    }

    /// The nearest table that can be folded on to `head`.
    fn nearest(&mut self, head: Position) -> Option<Table> {
        let is_near = |table: &Table| {
            let position = table.position();
            let away = head.revision.0.checked_sub(position.revision.0);
            position.epoch == head.epoch && away.is_some_and(|away| away <= MAX_FOLDED)
        };
        let held = self.held.take().filter(is_near);
        let followed = self.verified().filter(|table| is_near(table));
        match (held, followed) {
            (Some(held), Some(followed)) => {
                let is_newer = followed.position() >= held.position();
                // What runs where is news of the follower's alone.
                let has_news = followed.instances_digest() != held.instances_digest();
                Some(if is_newer || has_news { Table::clone(&followed) } else { held })
            }
            (held, followed) => held.or_else(|| followed.map(|followed| Table::clone(&followed))),
        }
    }

    /// The follower's table, unless it is known to be wrong.
    fn verified(&self) -> Option<std::sync::Arc<Table>> {
        let status = self.followed.status();
        let differs = matches!(status.not_current, Some(NotCurrent::Differs));
        (status.ready && !differs).then(|| self.followed.load_full())
    }
}

async fn events_after(transaction: &DatabaseTransaction, after: Revision) -> Result<Vec<Event>, Error> {
    let query = events::Entity::find()
        .filter(events::Column::Revision.gt(signed(after.0)))
        .order_by_asc(events::Column::Revision)
        .limit(CHUNK);
    let rows = query.all(transaction).await.map_err(during("read the newest events"))?;
    let events: Vec<Event> = rows.iter().map(events::Model::event).collect::<Result<_, _>>()?;
    match events.iter().find(|event| event.level > FormatLevel::CURRENT) {
        None => Ok(events),
        Some(event) => {
            let message = format!(
                "event {} needs format level {}, this control plane knows up to {}; ask a newer one, or upgrade this",
                event.revision,
                event.level,
                FormatLevel::CURRENT
            );
            Err(ApiError::new(Reason::Unavailable, message).into())
        }
    }
}
