//! The transaction of one command: prepare, apply by the rules, append the event.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grey_core::change::{Change, EntryHash, Epoch, Event, Position, Revision};
use grey_core::error::Reason;
use grey_core::key::{Fact, Key};
use grey_proto::status::ApiError;
use grey_state::Heartbeats;
use sea_orm::{DatabaseTransaction, EntityTrait, IntoActiveModel};

use super::attempt::{Attempt, Outcome, during, mismatch};
use super::error::{Error, chain};
use super::levels::refuse_above;
use super::proposal::{Applied, Command, Committed, Proposed};
use super::rules::{hold, overlay, pin, policy, schema, service, tenant, version};
use crate::database::{self, Database, advance, put_newest, within};
use crate::entity::{events, record_history, signed, unsigned};

/// Rows of the index of records that one statement writes.
const INDEXED_AT_ONCE: usize = 1_000;

/// Carries out a command that has been validated.
pub(super) async fn carry_out(
    database: &Database,
    heartbeats: &dyn Heartbeats,
    command: &Command,
    deadline: Duration,
) -> Result<Committed, Error> {
    let transaction = database.begin_write().await?;
    let attempted = "carry out a command";
    let late = |_| Error::Database(database::Error::Timeout { attempted, deadline });
    let prepared =
        tokio::time::timeout(deadline, prepare(&transaction, heartbeats, command)).await.map_err(late);
    let (committed, changed) = match prepared.flatten() {
        Ok(prepared) => prepared,
        Err(error) => {
            // Whether this arrives or not, what was not committed does not count.
            if let Err(error) = within("roll back a command", deadline, transaction.rollback()).await {
                tracing::warn!(error = %chain(&error), "rollback failed");
            }
            return Err(error);
        }
    };
    if !changed {
        // The present state is the wanted one: the transaction holds nothing but the unused revision.
        within("roll back a command", deadline, transaction.rollback()).await?;
        return Ok(committed);
    }
    match within("commit a command", deadline, transaction.commit()).await {
        Ok(()) => Ok(committed),
        Err(error) if error.is_refusal() => Err(Error::Database(error)),
        Err(error) => Err(Error::Unknown(error)),
    }
}

/// Does everything but the commit; tells whether there is anything to commit.
async fn prepare(
    transaction: &DatabaseTransaction,
    heartbeats: &dyn Heartbeats,
    command: &Command,
) -> Result<(Committed, bool), Error> {
    let (head, previous) = advance(transaction).await.map_err(during("take the next revision"))?;
    let mut position: Position = head.try_into()?;
    let (epoch, revision) = (position.epoch, position.revision);
    let before = Revision(revision.0.saturating_sub(1));
    if let Some(expected) = command.expected_log.filter(|expected| *expected != before.0) {
        return Err(mismatch("the log", expected, before.0).into());
    }
    if let Some(expected) = command.expected_epoch.filter(|expected| *expected != epoch) {
        return Err(another_epoch(expected, epoch).into());
    }
    let declares = command.changes.iter().filter_map(|proposed| match &proposed.change {
        Change::Put(Fact::Version(version)) => Some((&version.service, &version.version)),
        _ => None,
    });
    let attempt = Attempt { transaction, revision: signed(revision.0), declares: declares.collect() };
    let mut applied = Vec::with_capacity(command.changes.len());
    let mut changes = Vec::with_capacity(command.changes.len());
    for outcome in apply(&attempt, &command.changes).await? {
        let revision = unsigned("revision", outcome.revision)?;
        applied.push(Applied { revision, completed: outcome.completed });
        changes.extend(outcome.changes);
    }
    let changed = !changes.is_empty();
    if changed {
        refuse_above(changes.iter().map(Change::level).max().unwrap_or_default(), heartbeats).await?;
        append(&attempt, command, revision, previous, changes).await?;
    } else {
        position.revision = before;
    }
    Ok((Committed { position, applied }, changed))
}

/// A revision of another history says nothing of this one, whichever is the greater.
fn another_epoch(expected: Epoch, present: Epoch) -> ApiError {
    let message = format!(
        "the control database has been restored or replaced since: its history is epoch {present}, not {expected}; \
         read again what is to be changed"
    );
    ApiError::new(Reason::RevisionMismatch, message).with("epoch", present.to_string())
}

/// Appends the event, and indexes it by the records that it changed.
async fn append(
    attempt: &Attempt<'_>,
    command: &Command,
    revision: Revision,
    previous: EntryHash,
    changes: Vec<Change>,
) -> Result<(), Error> {
    let event = Event {
        revision,
        at_ms: now_ms(),
        principal: command.principal.clone(),
        reason: command.reason.clone(),
        cause: command.cause.clone(),
        level: changes.iter().map(Change::level).max().unwrap_or_default(),
        previous,
        changes,
        ..Event::default()
    };
    let row = events::Model::of(&event);
    let hash = row.hash();
    let insert = events::Entity::insert(row.into_active_model());
    insert.exec_without_returning(attempt.transaction).await.map_err(during("append the event"))?;
    let noted = put_newest(attempt.transaction, &hash, event.level).await;
    noted.map_err(during("note the event's hash"))?;
    let keys: Vec<Key> = event.changes.iter().map(Change::key).collect();
    let records: BTreeSet<_> = keys.iter().map(Key::record).collect();
    let records: Vec<_> = records.into_iter().collect();
    for some in records.chunks(INDEXED_AT_ONCE) {
        let rows = some.iter().map(|record| record_history::Model::of(*record, attempt.revision));
        let insert = record_history::Entity::insert_many(rows.map(IntoActiveModel::into_active_model));
        insert.exec_without_returning(attempt.transaction).await.map_err(during("index the event"))?;
    }
    Ok(())
}

/// Checks and applies the changes in order. Neighbouring changes of pins go together: a wave of a rollout is one
/// query and one statement instead of two thousand.
async fn apply(attempt: &Attempt<'_>, changes: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    let is_pin = |proposed: &&Proposed| {
        matches!(proposed.change, Change::Put(Fact::Pin(..)) | Change::Removed(Key::Pin(..)))
    };
    let mut outcomes = Vec::with_capacity(changes.len());
    let mut rest = changes;
    while let Some(first) = rest.first() {
        let pins = rest.iter().take_while(is_pin).count();
        let (run, more) = rest.split_at(pins.max(1));
        outcomes.extend(apply_run(attempt, first, run).await?);
        rest = more;
    }
    Ok(outcomes)
}

/// Applies a run of pins, or one other change.
async fn apply_run(attempt: &Attempt<'_>, first: &Proposed, run: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    let outcome = match &first.change {
        Change::Put(fact) => match fact {
            Fact::Tenant(tenant) => tenant::put(attempt, first, tenant).await,
            Fact::Service(service) => service::put(attempt, first, service).await,
            Fact::Version(version) => version::put(attempt, first, version).await,
            Fact::Policy(service, policy) => policy::put(attempt, first, service, policy).await,
            Fact::Overlay(service, overlay) => overlay::put(attempt, first, service, overlay).await,
            Fact::Pin(..) => return pin::apply(attempt, run).await,
            Fact::Schema(tenant, service, seen) => {
                schema::observe(attempt, first, (tenant, service), Some(seen)).await
            }
            Fact::Hold(tenant, service, held) => hold::put(attempt, first, (tenant, service), held).await,
        },
        Change::Removed(key) => match key {
            Key::Tenant(tenant) => tenant::remove(attempt, first, tenant).await,
            Key::Service(service) => service::remove(attempt, first, service).await,
            Key::Version(service, version) => version::remove(attempt, first, service, version).await,
            Key::Policy(service) => policy::remove(attempt, first, service).await,
            Key::Overlay(service, id) => overlay::remove(attempt, first, service, id).await,
            Key::Pin(..) => return pin::apply(attempt, run).await,
            Key::Schema(tenant, service) => schema::observe(attempt, first, (tenant, service), None).await,
            Key::Hold(tenant, service) => hold::remove(attempt, first, (tenant, service)).await,
        },
    };
    Ok(vec![outcome?])
}

/// The present time in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
