//! The transaction of one command.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grey_core::change::{Change, Event, Position, Revision};
use grey_core::ids::ServiceId;
use grey_core::version::Version;
use sea_orm::{DatabaseTransaction, EntityTrait, IntoActiveModel};

use super::{Command, Committed, Error, Proposed, catalog, chain, mismatch, pin, policy, schema, tenant};
use crate::database::{self, Database, advance, within};
use crate::entity::{events, unsigned};

/// What is needed to check and apply a change.
pub(super) struct Attempt<'a> {
    pub(super) transaction: &'a DatabaseTransaction,
    /// The revision of the command's event.
    pub(super) revision: i64,
    /// Versions that some change of the command declares.
    pub(super) declares: BTreeSet<(&'a ServiceId, &'a Version)>,
}

/// What became of one change.
pub(super) struct Outcome {
    /// When the thing changed last; 0 if it is gone.
    pub(super) thing: i64,
    /// What to write into the log; nothing if it was so already.
    pub(super) changes: Vec<Change>,
}

impl Outcome {
    /// It was so already.
    pub(super) fn unchanged(thing: i64) -> Self {
        Self { thing, changes: Vec::new() }
    }
}

impl Attempt<'_> {
    /// The change took effect.
    pub(super) fn changed(&self, change: &Change) -> Outcome {
        Outcome { thing: self.revision, changes: vec![change.clone()] }
    }

    /// The change took effect, and the thing is gone.
    pub(super) fn removed(change: &Change) -> Outcome {
        Outcome { thing: 0, changes: vec![change.clone()] }
    }
}

/// A statement that failed while `attempted`.
pub(super) fn during(attempted: &'static str) -> impl Fn(sea_orm::DbErr) -> Error {
    move |source| Error::Database(database::Error::Failed { attempted, source })
}

/// The revision of a thing for the caller's expectation: 0 if there is none.
pub(super) fn present(revision: Option<i64>) -> Result<u64, Error> {
    Ok(revision.map_or(Ok(0), |revision| unsigned("revision", revision))?)
}

/// Carries out a command that has been validated.
pub(super) async fn carry_out(
    database: &Database,
    command: &Command,
    deadline: Duration,
) -> Result<Committed, Error> {
    let transaction = database.begin_write().await?;
    let attempted = "carry out a command";
    let late = |_| Error::Database(database::Error::Timeout { attempted, deadline });
    let prepared = tokio::time::timeout(deadline, prepare(&transaction, command)).await.map_err(late);
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
async fn prepare(transaction: &DatabaseTransaction, command: &Command) -> Result<(Committed, bool), Error> {
    let head = advance(transaction).await.map_err(during("take the next revision"))?;
    let before = unsigned("log_head", head.revision - 1)?;
    if let Some(expected) = command.expected_log.filter(|expected| *expected != before) {
        return Err(mismatch("the log", expected, before).into());
    }
    let declares = command.changes.iter().filter_map(|proposed| match &proposed.change {
        Change::VersionPut(version) => Some((&version.service, &version.version)),
        _ => None,
    });
    let attempt = Attempt { transaction, revision: head.revision, declares: declares.collect() };
    let outcomes = apply(&attempt, &command.changes).await?;
    let mut things = Vec::with_capacity(outcomes.len());
    let mut changes = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        things.push(unsigned("revision", outcome.thing)?);
        changes.extend(outcome.changes);
    }
    let mut position: Position = head.try_into()?;
    let changed = !changes.is_empty();
    if changed {
        append(transaction, command, position.revision, changes).await?;
    } else {
        position.revision = Revision(before);
    }
    Ok((Committed { position, things }, changed))
}

async fn append(
    transaction: &DatabaseTransaction,
    command: &Command,
    revision: Revision,
    changes: Vec<Change>,
) -> Result<(), Error> {
    let (actor, reason) = (command.actor.clone(), command.reason.clone());
    let event = Event { revision, at_ms: now_ms(), actor, reason, changes };
    let row = events::Model::of(&event).into_active_model();
    let insert = events::Entity::insert(row).exec_without_returning(transaction);
    insert.await.map_err(during("append the event"))?;
    Ok(())
}

/// Checks and applies the changes in order. Neighbouring changes of pins go together: a wave of a rollout is one
/// query and one statement instead of two thousand.
async fn apply(attempt: &Attempt<'_>, changes: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::with_capacity(changes.len());
    let mut rest = changes;
    while let Some(proposed) = rest.first() {
        let is_pin = |p: &&Proposed| matches!(p.change, Change::PinPut { .. } | Change::PinRemoved { .. });
        let pins = rest.iter().take_while(is_pin).count();
        let taken = if pins > 0 {
            let (run, _) = rest.split_at(pins);
            outcomes.extend(pin::apply(attempt, run).await?);
            pins
        } else {
            outcomes.push(apply_one(attempt, proposed).await?);
            1
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(outcomes)
}

async fn apply_one(attempt: &Attempt<'_>, proposed: &Proposed) -> Result<Outcome, Error> {
    match &proposed.change {
        Change::TenantPut(tenant) => tenant::put(attempt, proposed, tenant).await,
        Change::TenantRemoved(tenant) => tenant::remove(attempt, proposed, tenant).await,
        Change::ServicePut(service) => catalog::put_service(attempt, proposed, service).await,
        Change::ServiceRemoved(service) => catalog::remove_service(attempt, proposed, service).await,
        Change::VersionPut(version) => catalog::put_version(attempt, proposed, version).await,
        Change::VersionRemoved { service, version } => {
            catalog::remove_version(attempt, proposed, service, version).await
        }
        Change::PolicyPut { service, policy } => policy::put(attempt, proposed, service, policy).await,
        Change::SchemaObserved { tenant, service, schema, at_ms } => {
            schema::observe(attempt, proposed, (tenant, service), schema.as_ref(), *at_ms).await
        }
        Change::PinPut { .. } | Change::PinRemoved { .. } => {
            let run = std::slice::from_ref(proposed);
            let outcome = pin::apply(attempt, run).await?.pop();
            Ok(outcome.expect("one outcome for one change"))
        }
    }
}

/// The present time in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
