//! Writes about many tenants: each one command, one event, one revision.

use grey_core::selector::Selector;
use grey_core::service::Pin;
use grey_edge::Caller;
use grey_proto::control::{PromoteOverlayRequest, PromoteOverlayResponse, PutPinsRequest, PutPinsResponse};
use grey_proto::status::ApiError;

use super::{Api, id, invalid, optional_id, required};
use crate::command::{Intent, Promotion, SelectedPins};

impl Api {
    /// Pins all tenants that are meant to a version, or removes their pins.
    ///
    /// # Errors
    /// As for every write, or the selector says nothing or means too many, or something that it or the pin names is
    /// unknown, or a tenant does not have the version's schema. Nothing was changed then.
    pub async fn put_pins(
        &self,
        caller: &Caller,
        request: PutPinsRequest,
    ) -> Result<PutPinsResponse, ApiError> {
        let selector: Selector = required("tenants", request.tenants)?;
        let service = id("service", &request.service)?;
        let version = optional_id("version", &request.version)?;
        let pin = match (version, request.remove) {
            (Some(version), false) => Some(Pin { version, locked: request.locked }),
            (None, true) if !request.locked => None,
            (None, true) => return Err(invalid("locked", "is of no use without pins")),
            (Some(_), true) => return Err(invalid("version", "must be empty to remove pins")),
            (None, false) => return Err(invalid("version", "is required, unless pins are to be removed")),
        };
        let intent = Intent::Pins(SelectedPins { selector, service, pin });
        let options = request.write.unwrap_or_default();
        let expected_log = options.expected_revision;
        let (committed, result) = self.execute(caller, options, intent, expected_log).await?;
        let changed = committed.applied.len() as u64;
        Ok(PutPinsResponse { result: Some(result), selected: committed.selected, changed })
    }

    /// Makes an overlay's version the default and removes the overlay, moving nobody.
    ///
    /// # Errors
    /// As for every write, or service, overlay or variant are unknown, or the overlay splits the calls of a tenant, or no
    /// pin can hold a tenant where it is.
    pub async fn promote_overlay(
        &self,
        caller: &Caller,
        request: PromoteOverlayRequest,
    ) -> Result<PromoteOverlayResponse, ApiError> {
        let options = request.write.unwrap_or_default();
        let promotion = Promotion {
            service: id("service", &request.service)?,
            overlay: id("id", &request.id)?,
            variant: optional_id("variant", &request.variant)?,
            expected: options.expected_revision,
        };
        let (committed, result) = self.execute(caller, options, Intent::Promotion(promotion), None).await?;
        Ok(PromoteOverlayResponse { result: Some(result), pinned: committed.selected })
    }
}
