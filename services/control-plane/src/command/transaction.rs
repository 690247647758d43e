//! The transaction of one command: prepare, apply by the rules, append the event.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grey_core::change::{Change, EntryHash, Epoch, Event, FormatLevel, Position, Revision};
use grey_core::error::Reason;
use grey_core::key::{Fact, Key};
use grey_core::table::Table;
use grey_proto::status::ApiError;
use grey_state::Heartbeats;
use sea_orm::{DatabaseTransaction, EntityTrait, IntoActiveModel};

use super::attempt::{Attempt, Outcome, during, mismatch};
use super::error::{Error, chain};
use super::head::HeadTable;
use super::index::{index, index_pins};
use super::intent::{self, Resolved};
use super::levels::refuse_above;
use super::moves::{self, Foreseen};
use super::proposal::{Applied, Command, Committed, Intent, Proposed, pin_of};
use super::rules::pins::Alike;
use super::rules::{
    database as registration, hold, overlay, pin, pins, policy, schema, service, tenant, version,
};
use crate::database::{self, Database, advance, put_newest, within};
use crate::entity::{events, signed, unsigned};

/// Times that the present state is loaded to go on from.
const MAX_LOADS: usize = 3;

/// Carries out a command that has been validated.
pub(super) async fn carry_out(
    database: &Database,
    table: &mut HeadTable,
    heartbeats: &dyn Heartbeats,
    command: &Command,
    deadline: Duration,
) -> Result<Committed, Error> {
    for _ in 0..MAX_LOADS {
        if !table.is_there() {
            table.load().await?;
        }
        if let Some(committed) = attempt(database, table, heartbeats, command, deadline).await? {
            return Ok(committed);
        }
        table.load().await?;
    }
    let message = "the log moves on faster than it can be read; nothing was changed, retry later";
    Err(ApiError::new(Reason::Unavailable, message).into())
}

/// Carries it out, unless the table is too far from the log's head.
async fn attempt(
    database: &Database,
    table: &mut HeadTable,
    heartbeats: &dyn Heartbeats,
    command: &Command,
    deadline: Duration,
) -> Result<Option<Committed>, Error> {
    let transaction = database.begin_write().await?;
    let attempted = "carry out a command";
    let late = |_| Error::Database(database::Error::Timeout { attempted, deadline });
    let prepare = prepare(&transaction, table, heartbeats, command);
    let prepared = tokio::time::timeout(deadline, prepare).await.map_err(late);
    let prepared = match prepared.flatten() {
        Ok(prepared) => prepared,
        Err(error) => {
            // Whether this arrives or not, what was not committed does not count.
            if let Err(error) = within("roll back a command", deadline, transaction.rollback()).await {
                tracing::warn!(error = %chain(&error), "rollback failed");
            }
            return Err(error);
        }
    };
    let Some(Prepared { committed, after: Some(after) }) = prepared else {
        // Nothing is wanted, or it is so already: the transaction holds nothing but the unused revision.
        within("roll back a command", deadline, transaction.rollback()).await?;
        return Ok(prepared.map(|prepared| prepared.committed));
    };
    match within("commit a command", deadline, transaction.commit()).await {
        Ok(()) => {
            table.committed(after);
            Ok(Some(committed))
        }
        Err(error) if error.is_refusal() => Err(Error::Database(error)),
        Err(error) => Err(Error::Unknown(error)),
    }
}

/// A command that is ready to be committed.
struct Prepared {
    committed: Committed,
    /// The table once it is committed; none if there is nothing to commit.
    after: Option<Table>,
}

/// Does everything but the commit; none if the table is too far from the log's head.
async fn prepare(
    transaction: &DatabaseTransaction,
    table: &mut HeadTable,
    heartbeats: &dyn Heartbeats,
    command: &Command,
) -> Result<Option<Prepared>, Error> {
    let (head, previous) = advance(transaction).await.map_err(during("take the next revision"))?;
    let position: Position = head.try_into()?;
    let epoch = position.epoch;
    if let Some(expected) = command.expected_epoch.filter(|expected| *expected != epoch) {
        return Err(another_epoch(expected, epoch).into());
    }
    let prepared = prepare_at(position, previous, transaction, table, heartbeats, command).await;
    prepared.map_err(|error| match error {
        // A revision is of use to whoever is refused only with its epoch.
        Error::Refused(refusal) if refusal.reason == Reason::RevisionMismatch => {
            Error::Refused(refusal.with("epoch", epoch.to_string()))
        }
        error => error,
    })
}

/// The same once the log's head is locked: the event is to be at `position`.
async fn prepare_at(
    mut position: Position,
    previous: EntryHash,
    transaction: &DatabaseTransaction,
    table: &mut HeadTable,
    heartbeats: &dyn Heartbeats,
    command: &Command,
) -> Result<Option<Prepared>, Error> {
    let (epoch, revision) = (position.epoch, position.revision);
    let before = Revision(revision.0.saturating_sub(1));
    if let Some(expected) = command.expected_log.filter(|expected| *expected != before.0) {
        return Err(mismatch("the log", expected, before.0).into());
    }
    let Some(table) = table.reach(transaction, Position { epoch, revision: before }).await? else {
        return Ok(None);
    };
    let Resolved { changes: proposed, selected } = resolve(&command.intent, &table).await?;
    let declares = proposed.iter().filter_map(|proposed| match &proposed.change {
        Change::Put(Fact::Version(version)) => Some((version.service.clone(), version.version.clone())),
        _ => None,
    });
    let (at_ms, declares) = (now_ms(), declares.collect());
    let attempt = Attempt { transaction, command, revision: signed(revision.0), at_ms, declares };
    let header = Event {
        revision,
        at_ms,
        principal: command.principal.clone(),
        reason: command.reason.clone(),
        cause: command.cause.clone(),
        level: command.level,
        previous,
        ..Event::default()
    };
    let draft = move |changes| Draft::new(header, changes);
    let is_bulk_of_pins = command.is_bulk() && proposed.iter().all(is_pin);
    let is_of_new_tenants = !command.is_bulk() && declare_tenants(&proposed, &table);
    let is_certain = is_bulk_of_pins || is_of_new_tenants;
    let (applied, foreseen) = if is_certain {
        // Such changes are what is wanted, and nothing follows from them: the database and this process work at once.
        let applied = vec![Applied { revision: revision.0, completed: None }; proposed.len()];
        let foreseen = if is_bulk_of_pins {
            let pins = pins::sorted(&proposed);
            let changes = proposed.into_owned().into_iter().map(|proposed| proposed.change).collect();
            tokio::try_join!(put_and_index(&attempt, &pins), moves::foresee(table, changes, draft))?.1
        } else {
            let changes = proposed.iter().map(|proposed| proposed.change.clone()).collect();
            tokio::try_join!(declare_and_index(&attempt, &proposed), moves::foresee(table, changes, draft))?.1
        };
        (applied, foreseen)
    } else {
        let outcomes = match command.is_bulk() {
            true => apply_bulk(&attempt, &proposed).await?,
            false => apply(&attempt, &proposed).await?,
        };
        let (applied, changes) = settled(outcomes)?;
        (applied, moves::foresee(table, changes, draft).await?)
    };
    let Foreseen { moves, drafted: Draft { event, row, hash }, mut after } = foreseen;
    moves::hold_to_budget(command, &event.changes, &moves)?;
    refuse_above(event.level, heartbeats).await?;
    let is_wanted = !event.changes.is_empty() && !command.dry_run;
    let after = if is_wanted {
        append(&attempt, row, &hash, event.level).await?;
        if !is_certain {
            index(&attempt, event.changes.iter().map(Change::key)).await?;
        }
        after.set_position(position);
        Some(after)
    } else {
        position.revision = before;
        None
    };
    Ok(Some(Prepared { committed: Committed { position, at_ms, applied, selected, moves }, after }))
}

/// An event as it is to be appended.
struct Draft {
    event: Event,
    row: events::Model,
    hash: EntryHash,
}

impl Draft {
    /// The event of `changes` under `header`.
    fn new(header: Event, changes: Vec<Change>) -> Self {
        let level = changes.iter().map(Change::level).fold(header.level, FormatLevel::max);
        let event = Event { level, changes, ..header };
        let row = events::Model::of(&event);
        let hash = row.hash();
        Self { event, row, hash }
    }
}

/// What became of each change, and what changed by it.
fn settled(outcomes: Vec<Outcome>) -> Result<(Vec<Applied>, Vec<Change>), Error> {
    let mut applied = Vec::with_capacity(outcomes.len());
    let mut changes = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let revision = unsigned("revision", outcome.revision)?;
        applied.push(Applied { revision, completed: outcome.completed });
        changes.extend(outcome.changes);
    }
    Ok((applied, changes))
}

fn is_pin(proposed: &Proposed) -> bool {
    pin_of(&proposed.change).is_some()
}

fn puts_tenant(proposed: &Proposed) -> bool {
    matches!(proposed.change, Change::Put(Fact::Tenant(_)))
}

/// Whether each puts another tenant that the table at the log's head does not have.
fn declare_tenants(proposed: &[Proposed], table: &Table) -> bool {
    let mut ids = HashSet::with_capacity(proposed.len());
    for proposed in proposed {
        let Change::Put(Fact::Tenant(tenant)) = &proposed.change else { return false };
        let id = tenant.id.as_str();
        let is_there = table.tenant(id).is_some_and(|row| row.profile().is_some());
        if is_there || !ids.insert(id) {
            return false;
        }
    }
    !proposed.is_empty()
}

/// What the command means at the log's head.
async fn resolve<'a>(intent: &'a Intent, table: &Table) -> Result<Resolved<'a>, Error> {
    if let Intent::Changes(_) = intent {
        return Ok(intent::resolve(intent, table)?);
    }
    let (intent, table) = (intent.clone(), table.clone());
    let resolved = moves::apart(move || {
        let resolved = intent::resolve(&intent, &table)?;
        Ok::<_, ApiError>((resolved.changes.into_owned(), resolved.selected))
    });
    let (changes, selected) = resolved.await??;
    Ok(Resolved { changes: changes.into(), selected })
}

/// A revision of another history says nothing of this one, whichever is the greater.
fn another_epoch(expected: Epoch, present: Epoch) -> ApiError {
    let message = format!(
        "the control database has been restored or replaced since: its history is epoch {present}, not {expected}; \
         read again what is to be changed"
    );
    ApiError::new(Reason::RevisionMismatch, message).with("epoch", present.to_string())
}

/// Applies changes of pins, and notes them in the log's index unless this only tells what would happen.
async fn put_and_index(attempt: &Attempt<'_>, pins: &[Alike]) -> Result<(), Error> {
    pins::put(attempt, pins).await?;
    if attempt.command.dry_run { Ok(()) } else { index_pins(attempt, pins).await }
}

/// The same for tenants that are new.
async fn declare_and_index(attempt: &Attempt<'_>, tenants: &[Proposed]) -> Result<(), Error> {
    tenant::declare(attempt, tenants).await?;
    if attempt.command.dry_run {
        return Ok(());
    }
    index(attempt, tenants.iter().map(|proposed| proposed.change.key())).await
}

/// Appends the event.
async fn append(
    attempt: &Attempt<'_>,
    row: events::Model,
    hash: &EntryHash,
    level: FormatLevel,
) -> Result<(), Error> {
    let insert = events::Entity::insert(row.into_active_model());
    insert.exec_without_returning(attempt.transaction).await.map_err(during("append the event"))?;
    put_newest(attempt.transaction, hash, level).await.map_err(during("note the event's hash"))
}

/// Checks and applies the changes in order. Neighbouring changes of pins go together, and neighbouring tenants: a wave of
/// a rollout, or of tenants, is one query and one statement instead of thousands.
async fn apply(attempt: &Attempt<'_>, changes: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::with_capacity(changes.len());
    let mut rest = changes;
    while let Some(first) = rest.first() {
        let pins = rest.iter().take_while(|proposed| is_pin(proposed)).count();
        let tenants = rest.iter().take_while(|proposed| puts_tenant(proposed)).count();
        let (run, more) = rest.split_at(pins.max(tenants).max(1));
        outcomes.extend(apply_run(attempt, first, run).await?);
        rest = more;
    }
    Ok(outcomes)
}

/// The same for changes that were worked out at the log's head: pins first, then what else there is.
async fn apply_bulk(attempt: &Attempt<'_>, changes: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    let (first, rest) = changes.split_at(changes.partition_point(is_pin));
    let mut outcomes = pins::apply(attempt, first).await?;
    outcomes.extend(apply(attempt, rest).await?);
    Ok(outcomes)
}

/// Applies a run of pins or of tenants, or one other change.
async fn apply_run(attempt: &Attempt<'_>, first: &Proposed, run: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    let outcome = match &first.change {
        Change::Put(fact) => match fact {
            Fact::Tenant(_) => return tenant::put(attempt, run).await,
            Fact::Service(service) => service::put(attempt, first, service).await,
            Fact::Version(version) => version::put(attempt, first, version).await,
            Fact::Policy(service, policy) => policy::put(attempt, first, service, policy).await,
            Fact::Overlay(service, overlay) => overlay::put(attempt, first, service, overlay).await,
            Fact::Pin(..) => return pin::apply(attempt, run).await,
            Fact::Schema(tenant, service, seen) => {
                schema::observe(attempt, first, (tenant, service), Some(seen)).await
            }
            Fact::Hold(tenant, service, held) => hold::put(attempt, first, (tenant, service), held).await,
            Fact::Database(tenant, service, database) => {
                registration::put(attempt, first, (tenant, service), database).await
            }
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
            Key::Database(tenant, service) => registration::remove(attempt, first, (tenant, service)).await,
        },
    };
    Ok(vec![outcome?])
}

/// The present time in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
