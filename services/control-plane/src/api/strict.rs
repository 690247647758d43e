//! Strict moves: two versions never serve a tenant at the same time, whichever router is cut off.
//!
//! A move is prepared: every router refuses the tenant's calls of the service. Once every router that may still answer has
//! acknowledged that, it flips: the hold goes and the pin comes, in one event. A router that is cut off in between goes on
//! refusing. Unless all acknowledge in time the hold is taken back and nothing has changed.

use std::time::Duration;

use grey_core::change::{Change, Position};
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::service::{Hold, Pin};
use grey_edge::Caller;
use grey_proto::control::{WriteOptions, WriteResult};
use grey_proto::status::ApiError;
use sea_orm::EntityTrait;
use tokio::time::Instant;

use super::fleet::USUAL_WAIT;
use super::{Api, Written, command, wait};
use crate::command::{Applied, Committed, Intent, Proposed, chain, check_budget, now_ms};
use crate::entity::pins;
use crate::fleet::missing;

/// Time for the flip after the wait: a hold that is older was left behind.
const MARGIN: Duration = Duration::from_secs(15);
/// The routers are waited for at least so long after the flip.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// What is moved, and as whom.
#[derive(Clone)]
struct Move {
    caller: Caller,
    tenant: TenantId,
    service: ServiceId,
    pin: Pin,
    options: WriteOptions,
}

impl Api {
    /// Pins a tenant by a strict move.
    pub(super) async fn pin_strictly(
        &self,
        caller: &Caller,
        (tenant, service, pin): (TenantId, ServiceId, Pin),
        options: Option<WriteOptions>,
    ) -> Result<Written, ApiError> {
        let options = options.unwrap_or_default();
        let limit = wait(options.wait, "write.wait")?.unwrap_or(USUAL_WAIT);
        if options.dry_run || self.is_pinned(&tenant, &service, &pin).await? {
            // No version changes, so none needs to be kept from serving.
            return self.write(caller, Change::Put(Fact::Pin(tenant, service, pin)), Some(options)).await;
        }
        let moving = Move { caller: caller.clone(), tenant, service, pin, options };
        self.judge(&moving).await?;
        let api = self.clone();
        // It goes on even if the caller hangs up: what is prepared must be ended.
        let ended = tokio::spawn(async move { api.carry_out(moving, limit).await }).await;
        ended.unwrap_or_else(|error| Err(ApiError::new(Reason::Internal, error.to_string())))
    }

    async fn is_pinned(&self, tenant: &TenantId, service: &ServiceId, pin: &Pin) -> Result<bool, ApiError> {
        let row = pins::Entity::find_by_id((tenant.to_string(), service.to_string()));
        let database = &self.0.database;
        let row = database.read("read a pin", row.one(database.readers())).await?;
        let pinned = row.map(|row| row.pin()).transpose()?;
        Ok(pinned.is_some_and(|(_, pinned)| pinned.version == pin.version))
    }

    /// Refuses what the flip would be refused for, before any call of the tenant is.
    async fn judge(&self, moving: &Move) -> Result<(), ApiError> {
        let Move { caller, tenant, service, pin, options } = moving;
        let change = Change::Put(Fact::Pin(tenant.clone(), service.clone(), pin.clone()));
        let changes = vec![Proposed { change, expected: options.expected_revision }];
        let options = WriteOptions { dry_run: true, ..options.clone() };
        let foreseen = self.0.commands.execute(command(caller, options, Intent::Changes(changes))?).await?;
        check_budget(&foreseen.moves, moving.options.max_moves)
    }

    async fn carry_out(&self, moving: Move, limit: Duration) -> Result<Written, ApiError> {
        let begun = Instant::now();
        let prepared = self.prepare(&moving, limit).await?.position;
        let progress = self.0.fleet.wait(&prepared, limit).await;
        if !progress.complete {
            self.take_back(&moving, &prepared).await;
            let missing = missing(&progress);
            let message = format!(
                "nothing was changed: the move was not acknowledged by every router that may still answer: {missing}; \
                 see `grey routers list`, and dismiss those that are no more"
            );
            return Err(ApiError::new(Reason::RoutersBehind, message).with("routers", missing));
        }
        let mut flipped = match self.flip(&moving, &prepared).await {
            Ok(flipped) => flipped,
            Err(error) => {
                self.take_back(&moving, &prepared).await;
                return Err(error);
            }
        };
        let left = limit.saturating_sub(begun.elapsed()).max(LEAST_WAIT);
        let Applied { revision, completed } = flipped.applied.pop().unwrap_or_default();
        let result = self.result(&flipped.position, Some(left)).await;
        let result = WriteResult { moves: Some((&flipped.moves).into()), ..result };
        Ok(Written { result, revision, completed })
    }

    /// From here on the tenant's calls are refused.
    async fn prepare(&self, moving: &Move, limit: Duration) -> Result<Committed, ApiError> {
        let until = u64::try_from((limit + MARGIN).as_millis()).unwrap_or(u64::MAX);
        let hold = Hold { to: moving.pin.version.clone(), until_ms: now_ms().saturating_add(until) };
        let change = Change::Put(Fact::Hold(moving.tenant.clone(), moving.service.clone(), hold));
        let expected = moving.options.expected_revision;
        self.commit(moving, vec![Proposed { change, expected }]).await
    }

    /// The tenant's calls are served again, by the other version.
    async fn flip(&self, moving: &Move, prepared: &Position) -> Result<Committed, ApiError> {
        let Move { tenant, service, pin, .. } = moving;
        let change = Change::Put(Fact::Pin(tenant.clone(), service.clone(), pin.clone()));
        let expected = moving.options.expected_revision;
        self.commit(moving, vec![moving.lift(prepared), Proposed { change, expected }]).await
    }

    /// The tenant's calls are served as before. If this fails the hold goes at its deadline.
    async fn take_back(&self, moving: &Move, prepared: &Position) {
        let lifted = self.commit(moving, vec![moving.lift(prepared)]).await;
        // A flip whose outcome is unknown may have lifted it.
        if let Err(error) = lifted.as_ref().map_err(|error| error.reason)
            && error != Reason::RevisionMismatch
        {
            let (tenant, service) = (moving.tenant.as_str(), moving.service.as_str());
            tracing::warn!(
                tenant.id = tenant,
                service.id = service,
                error = lifted.err().map(|error| chain(&error)),
                "a hold could not be taken back yet"
            );
        }
    }

    /// Commits a step of the move.
    async fn commit(&self, moving: &Move, changes: Vec<Proposed>) -> Result<Committed, ApiError> {
        let command = command(&moving.caller, moving.options.clone(), Intent::Changes(changes))?;
        Ok(self.0.commands.execute(command).await?)
    }
}

impl Move {
    /// Lifts the hold that was set by the preparation, and no other.
    fn lift(&self, prepared: &Position) -> Proposed {
        let change = Change::Removed(Key::Hold(self.tenant.clone(), self.service.clone()));
        Proposed { change, expected: Some(prepared.revision.0) }
    }
}
