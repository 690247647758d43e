//! What was known of a tenant or a service as of any revision.
//!
//! Its history is folded from the newest checkpoint before, and each span that is folded leaves a checkpoint: so a state
//! that was asked for once, or lies near one that was, costs one span, however long the history is. A fold that is
//! given up leaves what it came to, and the next one goes on from there. Two that fold the same write the same.

use grey_core::change::Revision;
use grey_core::record::Record;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder};

use super::records::Span;
use crate::command::chain;
use crate::database::{Database, Error};
use crate::entity::checkpoints::{Column, Entity, Model, Part};
use crate::entity::{events, signed, unsigned};

/// Most events between two checkpoints, and most bytes, about: one event may set the pins of a hundred thousand tenants.
const SPAN: (u64, usize) = (200, 2 << 20);

/// How far a history was folded.
struct Folded {
    reached: Revision,
    record: Option<Record>,
}

impl Database {
    /// A part of a record as of a revision; none: it was not declared, or gone.
    pub(crate) async fn part_at(&self, part: &Part, until: Revision) -> Result<Option<Record>, Error> {
        let mut folded = self.checkpoint(part, until).await?;
        loop {
            let record = (part.kind, part.id.as_str());
            let span = self.events_of(record, folded.reached, until, SPAN).await?;
            let checkpoint;
            (folded, checkpoint) = fold(part, folded, span).await?;
            match checkpoint {
                Some(checkpoint) => self.keep(checkpoint).await,
                None => return Ok(folded.record),
            }
        }
    }

    /// The newest checkpoint up to a revision that can be believed; those that cannot go.
    async fn checkpoint(&self, part: &Part, until: Revision) -> Result<Folded, Error> {
        let mut below = until.next();
        loop {
            let newest = Entity::find()
                .filter(Column::Kind.eq(part.kind))
                .filter(Column::Id.eq(part.id.as_str()))
                .filter(Column::Service.eq(part.service.as_str()))
                .filter(Column::Revision.lt(signed(below.0)))
                .order_by_desc(Column::Revision);
            let newest = self.read("read a checkpoint", newest.one(self.readers())).await?;
            let Some(row) = newest else { return Ok(Folded { reached: Revision(0), record: None }) };
            let event = events::Entity::find_by_id(row.revision).one(self.readers());
            let event = self.read("read an event", event).await?;
            let known = event.ok_or_else(|| "there is no event".to_owned());
            match known.and_then(|event| row.record(part, &event.hash())) {
                Ok(record) => {
                    let reached = Revision(unsigned("checkpoints", row.revision)?);
                    return Ok(Folded { reached, record });
                }
                Err(why) => {
                    let (kind, id, revision) = (part.kind, part.id.as_str(), row.revision);
                    tracing::warn!(kind, id, revision, why, "a checkpoint is not believed, and made again");
                    below = Revision(unsigned("checkpoints", revision)?);
                    let key = (row.kind, row.id, row.service, row.revision);
                    let forgotten = Entity::delete_by_id(key).exec(self.readers());
                    told(self.read("forget a checkpoint", forgotten).await);
                }
            }
        }
    }

    /// Keeps what was folded.
    async fn keep(&self, checkpoint: Model) {
        let key = [Column::Kind, Column::Id, Column::Service, Column::Revision];
        let replace = OnConflict::columns(key).update_columns([Column::Seal, Column::Body]).to_owned();
        let insert = Entity::insert(checkpoint.into_active_model()).on_conflict(replace);
        told(self.read("keep a checkpoint", insert.exec_without_returning(self.readers())).await);
    }
}

/// A checkpoint that cannot be written keeps nobody from an answer: the next one only takes longer.
fn told<T>(written: Result<T, Error>) {
    if let Err(error) = written {
        tracing::warn!(error = %chain(&error), "checkpoints of the log are not kept up");
    }
}

/// Folds a span, and makes the checkpoint at its end unless it is the last one. It may hold changes of many thousand
/// tenants, so this is done apart from what answers calls.
async fn fold(part: &Part, before: Folded, span: Span) -> Result<(Folded, Option<Model>), Error> {
    let part = part.clone();
    let work = move || -> Result<_, Error> {
        let mut folded = before;
        for row in &span.rows {
            let record = part.fold(folded.record, &row.event()?);
            folded = Folded { reached: Revision(unsigned(events::TABLE, row.revision)?), record };
        }
        let end = span.rows.last().filter(|_| !span.is_last);
        let record = folded.record.as_ref();
        let checkpoint = end.map(|end| Model::of(&part, folded.reached, &end.hash(), record.cloned()));
        Ok((folded, checkpoint))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Failed {
        attempted: "fold events",
        source: DbErr::Custom(error.to_string()),
    })?
}
