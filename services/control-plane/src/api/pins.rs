//! Pins, and several changes at once.

use grey_core::change::Change;
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::service::Pin;
use grey_edge::{Caller, Role};
use grey_proto::control::{
    self, ApplyChangeSetRequest, ApplyChangeSetResponse, DeletePinRequest, DeletePinResponse,
    ListPinsRequest, ListPinsResponse, PutPinRequest, PutPinResponse,
};
use grey_proto::convert::{InvalidMessage, change_at};
use grey_proto::status::ApiError;

use super::catalog::clear_output;
use super::pairs::{Pairs, token};
use super::{Api, Written, cut, id, invalid, optional_id, page_size, required};
use crate::command::{Intent, Proposed, now_ms};
use crate::entity::pins;

impl Api {
    /// Lists pins of a tenant by service, or of a service by tenant.
    ///
    /// # Errors
    /// A malformed filter or page, no filter, or the database is away.
    pub async fn list_pins(
        &self,
        _: &Caller,
        request: ListPinsRequest,
    ) -> Result<ListPinsResponse, ApiError> {
        let size = page_size("page_size", request.page_size)?;
        let tenant: Option<TenantId> = optional_id("tenant", &request.tenant)?;
        let service: Option<ServiceId> = optional_id("service", &request.service)?;
        if tenant.is_none() && service.is_none() {
            return Err(invalid("tenant", "tenant or service is required"));
        }
        let columns = (pins::Column::Tenant, pins::Column::Service);
        let query = Pairs { tenant, service }.page::<pins::Entity>(columns, size, &request.page_token)?;
        let lists = &self.0.lanes.lists;
        let rows = lists.read("list pins", Box::pin(query.all(lists.database().readers()))).await?;
        let mut pins: Vec<control::Pin> = rows.iter().map(pins::Model::message).collect::<Result<_, _>>()?;
        let more = cut(&mut pins, size);
        let last = pins.last().map(|pin| token(&pin.tenant, &pin.service)).filter(|_| more);
        Ok(ListPinsResponse { pins, next_page_token: last.unwrap_or_default() })
    }

    /// Pins a tenant to a version. A tenant that lacks the version's schema is refused; or, if the request says so, its
    /// database is upgraded first, and the migrator pins once that has succeeded. A strict move is described in `strict`.
    ///
    /// # Errors
    /// As for every write, or something that the pin names is unknown, or the tenant does not have the version's
    /// schema, or what an upgrade is refused for. Nothing was changed then.
    pub async fn put_pin(&self, caller: &Caller, request: PutPinRequest) -> Result<PutPinResponse, ApiError> {
        let (tenant, service, pin): (TenantId, ServiceId, Pin) = required("pin", request.pin)?;
        // A dry run starts no upgrade.
        let migrate = request.migrate && !request.write.as_ref().is_some_and(|write| write.dry_run);
        if request.strict && request.migrate {
            return Err(invalid("strict", "cannot be combined with migrate; upgrade first, then move"));
        }
        let mut message = control::Pin::from((&tenant, &service, &pin));
        let written = if request.strict {
            self.pin_strictly(caller, (tenant, service, pin), request.write.clone()).await
        } else {
            self.write(caller, Change::Put(Fact::Pin(tenant, service, pin)), request.write.clone()).await
        };
        let Written { result, revision, .. } = match written {
            // The window is the last thing that a pin is checked for: nothing else speaks against it.
            Err(refusal) if migrate && refusal.reason == Reason::NoLegalVersion => {
                let options = request.write.unwrap_or_default();
                let upgrade = self.migrate_and_pin(caller, message, options).await?.id;
                return Ok(PutPinResponse { result: None, pin: None, upgrade });
            }
            written => written?,
        };
        message.revision = revision;
        Ok(PutPinResponse { result: Some(result), pin: Some(message), upgrade: String::new() })
    }

    /// Lets a tenant go back to the service's default.
    ///
    /// # Errors
    /// As for every write, or there is no such pin.
    pub async fn delete_pin(
        &self,
        caller: &Caller,
        request: DeletePinRequest,
    ) -> Result<DeletePinResponse, ApiError> {
        let (tenant, service) = (id("tenant", &request.tenant)?, id("service", &request.service)?);
        let change = Change::Removed(Key::Pin(tenant, service));
        let written = self.write(caller, change, request.write).await?;
        Ok(DeletePinResponse { result: Some(written.result) })
    }

    /// Applies several changes as one event.
    ///
    /// # Errors
    /// As for every write; nothing is changed then. Only administrators may change more than pins and schemas.
    pub async fn apply_change_set(
        &self,
        caller: &Caller,
        request: ApplyChangeSetRequest,
    ) -> Result<ApplyChangeSetResponse, ApiError> {
        let options = request.write.unwrap_or_default();
        let now_ms = now_ms();
        let mut changes = Vec::with_capacity(request.changes.len());
        for (i, proposed) in request.changes.into_iter().enumerate() {
            let field = format!("changes[{i}]");
            let mut change =
                proposed.change.ok_or_else(|| InvalidMessage::missing("change").under(&field))?;
            if let Some(control::change::Change::OverlayPut(overlay)) = &mut change.change {
                clear_output(overlay);
            }
            let change = change_at(change, now_ms).map_err(|fault| fault.under("change").under(&field))?;
            if let Change::Put(Fact::Hold(..)) = change {
                return Err(invalid(&field, "holds are made by strict moves only; pin with strict"));
            }
            if let Key::Database(..) = change.key() {
                let why = "databases are registered with their URL, and forgotten, by themselves only";
                return Err(invalid(&field, why));
            }
            if !is_operators(&change) {
                caller.require(Role::Admin, "apply change sets of more than pins and schemas")?;
            }
            changes.push(Proposed { change, expected: proposed.expected_revision });
        }
        let expected_log = options.expected_revision;
        let (_, result) = self.execute(caller, options, Intent::Changes(changes), expected_log).await?;
        Ok(ApplyChangeSetResponse { result: Some(result) })
    }
}

/// Whether operators may make the change by itself.
fn is_operators(change: &Change) -> bool {
    matches!(change.key(), Key::Pin(..) | Key::Schema(..) | Key::Hold(..))
}
