//! Promoting what an overlay tries out to the default, so that nobody moves.
//!
//! Without care it moves tenants back: an overlay lies over pins, so a tenant that a canary moved still has its pin
//! on the baseline, and falls back to it once the canary is gone. And a canary of 30 % leaves 70 % on the old
//! default, which a new default would take along. So whoever would move is pinned to the version that it has.

use crate::change::Change;
use crate::decide::{Answer, Call, VersionChoice, answer_chosen, choose_assigned};
use crate::error::Refusal;
use crate::ids::{OverlayId, ServiceId, TenantId};
use crate::key::{Fact, Key};
use crate::moves::compare;
use crate::policy::{Overlay, OverlayKind, Unit};
use crate::service::{Pin, Service};
use crate::table::{Assignment, Row, ServiceTable, Table};
use crate::version::Version;

/// Why an overlay cannot be promoted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotPromotable {
    /// The service is not declared.
    #[error("service `{0}` is not known")]
    UnknownService(ServiceId),
    /// The service has no such overlay.
    #[error("service `{0}` has no overlay `{1}`")]
    UnknownOverlay(ServiceId, OverlayId),
    /// An experiment has several versions, and none of them was named; or a canary has no variants.
    #[error("name one of the experiment's variants, and none for a canary")]
    Variant,
    /// It splits the calls of a tenant, and a pin holds a tenant as a whole.
    #[error(
        "overlay `{0}` splits by user, by request or by metadata, and pins hold whole tenants; set the default \
         and remove the overlay, stating how many tenants move"
    )]
    NotByTenant(OverlayId),
    /// Another overlay splits the calls of a tenant: what it takes may depend on the default or on pins.
    #[error(
        "overlay `{0}` beside it splits by user, by request or by metadata, so calls of a tenant could move whatever \
         its pin; remove that one first, or set the default and remove the overlay by hand"
    )]
    Beside(OverlayId),
    /// The version is not declared, so the overlay takes nobody.
    #[error("version {0} is not declared; declare it with its schema window first")]
    Undeclared(Version),
    /// No pin keeps these tenants where they are.
    #[error(
        "{tenants} tenants would move, such as `{example}` from {from}: a failover to the default or another \
         overlay moves them whatever their pin; change that first, or set the default and remove the overlay \
         by hand"
    )]
    WouldMove {
        /// How many.
        tenants: u64,
        /// The first of them by id.
        example: TenantId,
        /// The version that serves it.
        from: Version,
    },
}

/// Changes that make the overlay's version the default and remove the overlay, moving nobody: tenants that would
/// move are pinned to the version that they have. A pin that is locked stays locked.
///
/// Tenants that are not active keep what they would get. An experiment needs the `variant` that won; a canary has
/// but one version. Pins come first, so that changes applied in part move nobody either.
///
/// # Errors
/// When the overlay splits the calls of a tenant, or no pin can hold a tenant where it is.
pub fn promotion(
    table: &Table,
    service: &ServiceId,
    overlay: &OverlayId,
    variant: Option<&OverlayId>,
) -> Result<Vec<Change>, NotPromotable> {
    let known = table.service(service.as_str()).filter(|known| known.default_version().is_some());
    let known = known.ok_or_else(|| NotPromotable::UnknownService(service.clone()))?;
    let found = known.overlays().iter().find(|held| held.id == *overlay);
    let found = found.ok_or_else(|| NotPromotable::UnknownOverlay(service.clone(), overlay.clone()))?;
    let version = promoted(found, variant)?;
    if known.declared_slot(version).is_none() {
        return Err(NotPromotable::Undeclared(version.clone()));
    }
    let splits = |other: &&Overlay| other.id != *overlay && !is_by_tenant(other);
    if let Some(other) = known.overlays().iter().map(AsRef::as_ref).find(splits) {
        return Err(NotPromotable::Beside(other.id.clone()));
    }
    let ending = vec![
        Change::Put(Fact::Service(Service { id: service.clone(), default: version.clone() })),
        Change::Removed(Key::Overlay(service.clone(), overlay.clone())),
    ];
    let mut ended = table.clone();
    ended.change_all(&ending);
    let Some(after) = ended.service(service.as_str()) else { return Ok(ending) };

    let mut changes = pins(table, known, after)?;
    changes.extend(ending);
    Ok(changes)
}

/// Whether it takes a tenant's calls all alike.
fn is_by_tenant(overlay: &Overlay) -> bool {
    overlay.unit == Unit::Tenant && overlay.matching.metadata.is_empty()
}

/// The version that becomes the default.
fn promoted<'o>(overlay: &'o Overlay, variant: Option<&OverlayId>) -> Result<&'o Version, NotPromotable> {
    if !is_by_tenant(overlay) {
        return Err(NotPromotable::NotByTenant(overlay.id.clone()));
    }
    match (&overlay.kind, variant) {
        (OverlayKind::Canary(canary), None) => Ok(&canary.canary),
        (OverlayKind::Experiment(experiment), Some(variant)) => {
            let arm = experiment.variants.iter().find(|arm| arm.id == *variant);
            arm.map(|arm| &arm.version).ok_or(NotPromotable::Variant)
        }
        _ => Err(NotPromotable::Variant),
    }
}

/// Pins of the tenants that would move otherwise, by tenant.
fn pins(table: &Table, before: &ServiceTable, after: &ServiceTable) -> Result<Vec<Change>, NotPromotable> {
    let (mut pins, mut moved) = (Vec::new(), Vec::new());
    for (tenant, row) in table.tenants().filter(|(_, row)| row.profile().is_some()) {
        match held(tenant, row, before, after) {
            Held::AsItIs => {}
            Held::By(pin) => pins.push((tenant, pin)),
            Held::Not(from) => moved.push((tenant, from)),
        }
    }
    let count = moved.len() as u64;
    if let Some((tenant, from)) = moved.into_iter().min_by_key(|(tenant, _)| *tenant) {
        return Err(NotPromotable::WouldMove { tenants: count, example: tenant.clone(), from: from.clone() });
    }
    pins.sort_unstable_by_key(|(tenant, _)| *tenant);
    let put =
        |(tenant, pin): (&TenantId, Pin)| Change::Put(Fact::Pin(tenant.clone(), before.id().clone(), pin));
    Ok(pins.into_iter().map(put).collect())
}

/// What keeps a tenant where it is.
enum Held<'t> {
    AsItIs,
    By(Pin),
    Not(&'t Version),
}

fn held<'t>(tenant: &TenantId, row: &'t Row, before: &'t ServiceTable, after: &'t ServiceTable) -> Held<'t> {
    let call = Call::new(tenant.as_str(), before.id().as_str());
    let now = choose_assigned(before, before.assigned(Some(row)), row, &call);
    let stays = |assignment: &Assignment| {
        let then = choose_assigned(after, assignment, row, &call);
        is_same(&now, &then, &call)
    };
    let assigned = after.assigned(Some(row));
    if stays(assigned) {
        return Held::AsItIs;
    }
    // No version works on its schema, whatever it is pinned to.
    let Ok(choice) = &now else { return Held::AsItIs };
    let locked = assigned.pin.as_ref().is_some_and(|pin| pin.locked);
    let pin = Pin { version: choice.version.clone(), locked };
    let holds = stays(&after.would_assign(Some(pin.clone()), assigned.schema.clone()));
    if holds { Held::By(pin) } else { Held::Not(choice.version) }
}

type Choice<'t> = Result<VersionChoice<'t>, Refusal>;

/// Whether a tenant gets the same version, decided and served.
fn is_same(before: &Choice<'_>, after: &Choice<'_>, call: &Call<'_>) -> bool {
    if decided(before) != decided(after) {
        return false;
    }
    // Whom nothing served before may be served now, by a failover to the new default.
    compare(&served(before, call), &served(after, call)).is_none_or(|moved| moved.from.is_none())
}

fn decided<'t>(choice: &Choice<'t>) -> Option<&'t Version> {
    choice.as_ref().ok().map(|choice| choice.version)
}

fn served<'t>(choice: &Choice<'t>, call: &Call<'_>) -> Result<Answer<'t>, Refusal> {
    answer_chosen(choice.as_ref().map_err(Refusal::clone)?, call)
}
