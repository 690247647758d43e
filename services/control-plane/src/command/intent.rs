//! What a command means at the log's head: changes as they were stated, or those that the table there tells.

use std::borrow::Cow;

use grey_core::change::Change;
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::promotion::{NotPromotable, promotion};
use grey_core::selector::select;
use grey_core::service::{Hold, Pin};
use grey_core::table::{Row, ServiceTable, Table};
use grey_proto::status::ApiError;

use super::attempt::{moving, unknown_overlay, unknown_service, unknown_tenant, unknown_version};
use super::proposal::{Intent, MAX_SELECTED, Promotion, Proposed, SelectedPins, pin_of};

/// Most tenants that a refusal names.
const NAMED: usize = 5;

/// The changes of a command.
pub(super) struct Resolved<'a> {
    pub(super) changes: Cow<'a, [Proposed]>,
    /// Tenants that were meant.
    pub(super) selected: u64,
}

/// Works out the changes. For many tenants it takes a while.
pub(super) fn resolve<'a>(intent: &'a Intent, table: &Table) -> Result<Resolved<'a>, ApiError> {
    match intent {
        Intent::Changes(changes) => Ok(Resolved { changes: Cow::Borrowed(changes), selected: 0 }),
        Intent::Pins(pins) => selected_pins(pins, table),
        Intent::Promotion(promotion) => promoted(promotion, table),
    }
}

fn selected_pins<'a>(wanted: &SelectedPins, table: &Table) -> Result<Resolved<'a>, ApiError> {
    let SelectedPins { selector, service, pin } = wanted;
    let known = table.service(service.as_str()).filter(|known| known.default_version().is_some());
    let known = known.ok_or_else(|| unknown_service(service.as_str()))?;
    let listed = selector.conditions().into_iter().flat_map(|conditions| &conditions.tenants);
    let declared =
        |tenant: &TenantId| table.tenant(tenant.as_str()).is_some_and(|row| row.profile().is_some());
    if let Some(missing) = listed.into_iter().find(|tenant| !declared(tenant)) {
        return Err(unknown_tenant(missing.as_str()));
    }
    if let Some((service, version)) = selector.conditions().and_then(|it| it.on_version.as_ref()) {
        let on = table.service(service.as_str()).filter(|on| on.default_version().is_some());
        let on = on.ok_or_else(|| unknown_service(service.as_str()))?;
        let slot = on.slot(version).and_then(|at| on.versions().get(at));
        if slot.is_none_or(|slot| slot.window.is_none()) {
            return Err(unknown_version(service, version));
        }
    }
    let tenants = select(table, selector);
    if tenants.len() > MAX_SELECTED {
        let message = format!(
            "{} tenants are meant, at most {MAX_SELECTED} can be pinned at once; narrow the selector",
            tenants.len()
        );
        return Err(ApiError::new(Reason::TooLarge, message).with("field", "tenants"));
    }
    if let Some(pin) = pin {
        check_version(wanted, pin, &tenants, known)?;
    }
    if let Some((tenant, hold)) = held(table, service, tenants.iter().map(|(tenant, _)| *tenant)) {
        return Err(moving(tenant, service, hold.to.as_str()));
    }
    let selected = tenants.len() as u64;
    let differs = |(_, row): &(&TenantId, &Row)| known.assigned(Some(row)).pin.as_ref() != pin.as_ref();
    let change = |(tenant, _): (&TenantId, &Row)| {
        let (tenant, service) = (tenant.clone(), service.clone());
        let change = match pin {
            Some(pin) => Change::Put(Fact::Pin(tenant, service, pin.clone())),
            None => Change::Removed(Key::Pin(tenant, service)),
        };
        Proposed { change, expected: None }
    };
    let changes = tenants.into_iter().filter(differs).map(change).collect();
    Ok(Resolved { changes: Cow::Owned(changes), selected })
}

/// Tells of all tenants that lack the version's schema, and not just of the first.
fn check_version(
    wanted: &SelectedPins,
    pin: &Pin,
    tenants: &[(&TenantId, &Row)],
    known: &ServiceTable,
) -> Result<(), ApiError> {
    let (service, version) = (&wanted.service, &pin.version);
    let slot =
        known.slot(version).and_then(|at| known.versions().get(at)).filter(|slot| slot.window.is_some());
    let slot = slot.ok_or_else(|| unknown_version(service, version))?;
    let lacks = |(_, row): &&(&TenantId, &Row)| !slot.admits(known.assigned(Some(row)).schema.as_ref());
    let mut lacking = tenants.iter().filter(lacks).map(|(tenant, _)| *tenant);
    let named: Vec<&str> = lacking.by_ref().take(NAMED).map(TenantId::as_str).collect();
    if named.is_empty() {
        return Ok(());
    }
    let count = named.len() + lacking.count();
    let window = slot.window.clone().unwrap_or_default();
    let message = format!(
        "{count} of {} tenants do not have the schema for service `{service}` that version {version} works on \
         ({window}), among them {}; upgrade their databases first, or select others",
        tenants.len(),
        named.join(", ")
    );
    let refusal = ApiError::new(Reason::NoLegalVersion, message).with("service", service.as_str());
    Err(refusal.with("version", version.as_str()).with("tenants", count.to_string()))
}

/// The first of the tenants that a strict move holds.
fn held<'t>(
    table: &'t Table,
    service: &ServiceId,
    tenants: impl IntoIterator<Item = &'t TenantId>,
) -> Option<(&'t TenantId, &'t Hold)> {
    let hold = |tenant: &'t TenantId| Some((tenant, table.hold(tenant.as_str(), service.as_str())?));
    tenants.into_iter().find_map(hold)
}

fn promoted<'a>(wanted: &Promotion, table: &Table) -> Result<Resolved<'a>, ApiError> {
    let Promotion { service, overlay, variant, expected } = wanted;
    let changes = promotion(table, service, overlay, variant.as_ref()).map_err(not_promotable)?;
    let pinned: Vec<&TenantId> = changes.iter().filter_map(|change| Some(pin_of(change)?.0)).collect();
    if let Some((tenant, hold)) = held(table, service, pinned.iter().copied()) {
        return Err(moving(tenant, service, hold.to.as_str()));
    }
    let pinned = pinned.len();
    let propose = |change: Change| {
        // The caller has seen the overlay, and not all that its end takes.
        let expected = expected.filter(|_| matches!(change, Change::Removed(Key::Overlay(..))));
        Proposed { change, expected }
    };
    Ok(Resolved { changes: changes.into_iter().map(propose).collect(), selected: pinned as u64 })
}

fn not_promotable(why: NotPromotable) -> ApiError {
    let message = why.to_string();
    match why {
        NotPromotable::UnknownService(service) => unknown_service(service.as_str()),
        NotPromotable::UnknownOverlay(service, overlay) => unknown_overlay(&service, &overlay),
        NotPromotable::Variant => ApiError::new(Reason::InvalidArgument, message).with("field", "variant"),
        NotPromotable::Beside(other) => {
            ApiError::new(Reason::InUse, message).with("by", "overlay").with("overlay", other.as_str())
        }
        NotPromotable::NotByTenant(_) => ApiError::new(Reason::InvalidArgument, message).with("field", "id"),
        NotPromotable::Undeclared(version) => {
            ApiError::new(Reason::UnknownVersion, message).with("version", version.as_str())
        }
        NotPromotable::WouldMove { tenants, .. } => {
            ApiError::new(Reason::MovesOverBudget, message).with("tenants", tenants.to_string())
        }
    }
}
