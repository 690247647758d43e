//! Steps 1 to 5: tenant (and whether it is being moved), base version, override, overlays, schema gate.

use super::{Call, Detour, Rule, Trace, VersionChoice, matching};
use crate::error::Refusal;
use crate::policy::{Overlay, OverlayKind, UnknownTenant};
use crate::schema::{SchemaVersion, SchemaWindow};
use crate::service::Hold;
use crate::table::{Assignment, Profile, Row, ServiceTable, Table, VersionSlot};
use crate::tenant::TenantStatus;
use crate::version::Version;

pub(super) fn choose<'t, T: Trace>(
    table: &'t Table,
    call: &Call<'_>,
    trace: &mut T,
) -> Result<VersionChoice<'t>, Refusal> {
    let service = table.service(call.service).ok_or(Refusal::UnknownService)?;
    choose_in(table, service, call, trace)
}

/// The same for a service that was looked up already.
pub(super) fn choose_in<'t, T: Trace>(
    table: &'t Table,
    service: &'t ServiceTable,
    call: &Call<'_>,
    trace: &mut T,
) -> Result<VersionChoice<'t>, Refusal> {
    let hold = table.hold(call.tenant, call.service);
    choose_for(service, table.tenant(call.tenant), hold, call, trace)
}

/// The same for a service and a tenant that were looked up already.
pub(super) fn choose_for<'t, T: Trace>(
    service: &'t ServiceTable,
    row: Option<&'t Row>,
    hold: Option<&Hold>,
    call: &Call<'_>,
    trace: &mut T,
) -> Result<VersionChoice<'t>, Refusal> {
    if service.default_version().is_none() {
        return Err(Refusal::UnknownService);
    }
    // Pins may arrive before their tenant does; until then nothing is known of it.
    let row = row.filter(|row| row.profile().is_some());
    check_tenant(row, service, trace)?;
    if let Some(hold) = hold.filter(|_| row.is_some()) {
        trace.step("hold", || format!("refused while it is moved to {}", hold.to));
        return Err(Refusal::Moving { to: hold.to.clone() });
    }
    choose_assigned(service, service.assigned(row), row, call, trace)
}

/// Steps 2 to 5 for a tenant with this assignment, whatever its status; no row is a tenant that is not declared.
pub(super) fn choose_assigned<'t, T: Trace>(
    service: &'t ServiceTable,
    assignment: &'t Assignment,
    row: Option<&'t Row>,
    call: &Call<'_>,
    trace: &mut T,
) -> Result<VersionChoice<'t>, Refusal> {
    let (base, rule) = base_version(assignment, service, row.is_some(), trace)?;

    let profile = row.and_then(Row::profile);
    let (wanted, rule) = match override_version(service, call, trace)? {
        Some(slot) => (slot, Rule::Override),
        None => overlay_version(service, assignment, base, call, profile, trace).unwrap_or((base, rule)),
    };
    let schema = assignment.schema.as_ref();
    let slot = if wanted == base && assignment.base_legal {
        trace.step("schema", || {
            service.versions().get(base).map(|slot| fits(slot, schema)).unwrap_or_default()
        });
        base
    } else {
        legal_version(service, wanted, base, schema, trace)?
    };
    let version = &service.versions().get(slot).ok_or(Refusal::UnknownService)?.version;
    let wanted_version = service.versions().get(wanted).map(|v| &v.version);
    let detour = wanted_version.filter(|_| slot != wanted).map(|version| (version, Detour::Schema));
    Ok(VersionChoice { version, rule, detour, schema, service, row, slot })
}

/// Refuses tenants whose calls are not routed.
fn check_tenant<T: Trace>(row: Option<&Row>, service: &ServiceTable, trace: &mut T) -> Result<(), Refusal> {
    // A plain row says so itself: its profile lies elsewhere in memory, and nothing else reads it.
    let status = match row {
        Some(row) if row.is_plain() => Some(TenantStatus::Active),
        row => row.and_then(Row::profile).map(|profile| profile.status),
    };
    match status {
        Some(TenantStatus::Active) => {
            trace.step("tenant", || "known and active".to_owned());
            Ok(())
        }
        Some(TenantStatus::Suspended) => {
            trace.step("tenant", || "suspended".to_owned());
            Err(Refusal::Suspended)
        }
        Some(TenantStatus::Maintenance) => {
            trace.step("tenant", || "under maintenance".to_owned());
            Err(Refusal::Maintenance)
        }
        None => match service.policy().map(|p| p.unknown_tenant).unwrap_or_default() {
            UnknownTenant::UseDefault => {
                trace.step("tenant", || "not known; the policy gives it the default version".to_owned());
                Ok(())
            }
            UnknownTenant::Refuse => {
                trace.step("tenant", || "not known".to_owned());
                Err(Refusal::UnknownTenant)
            }
        },
    }
}

fn base_version<'t, T: Trace>(
    assignment: &Assignment,
    service: &'t ServiceTable,
    known: bool,
    trace: &mut T,
) -> Result<(usize, Rule<'t>), Refusal> {
    let rule = match (&assignment.pin, known) {
        (_, false) => Rule::UnknownTenant,
        (Some(_), true) => Rule::Pin,
        (None, true) => Rule::Default,
    };
    let base = if known { assignment.base } else { service.default_slot() };
    let base = base.ok_or(Refusal::UnknownService)?;
    trace.step("base", || match (&assignment.pin, known) {
        (Some(pin), true) => format!("{} by the {}pin", pin.version, if pin.locked { "locked " } else { "" }),
        _ => format!("{} by default", name(service, base)),
    });
    Ok((base, rule))
}

fn override_version<T: Trace>(
    service: &ServiceTable,
    call: &Call<'_>,
    trace: &mut T,
) -> Result<Option<usize>, Refusal> {
    if call.override_version.is_empty() {
        return Ok(None);
    }
    if !service.policy().is_some_and(|policy| policy.override_roles.contains(call.role)) {
        // Refusing would let any end user who can set a header break the call.
        trace.rejected(
            || call.override_version.to_owned(),
            || format!("role `{}` may not name a version", call.role),
        );
        trace.step("override", || "ignored".to_owned());
        return Ok(None);
    }
    match Version::new(call.override_version).ok().and_then(|version| service.declared_slot(&version)) {
        Some(slot) => {
            trace.step("override", || format!("{} as the call asks", name(service, slot)));
            Ok(Some(slot))
        }
        None => {
            trace.step("override", || format!("{} is not declared", call.override_version));
            Err(Refusal::UnknownVersion)
        }
    }
}

/// The version of the first overlay that takes the call; experiments come before canaries.
fn overlay_version<'t, T: Trace>(
    service: &'t ServiceTable,
    assignment: &Assignment,
    base: usize,
    call: &Call<'_>,
    profile: Option<&Profile>,
    trace: &mut T,
) -> Option<(usize, Rule<'t>)> {
    if service.overlays().is_empty() {
        return None;
    }
    // Pins of a tenant that is not declared hold nobody.
    let pin = profile.and(assignment.pin.as_ref());
    for overlay in service.overlays() {
        let taken = match pin {
            Some(pin) if pin.locked => Err("the pin is locked"),
            pin => take(service, overlay, pin.is_some(), base, call, profile),
        };
        match taken {
            Ok((slot, rule)) => {
                trace.step("overlay", || format!("{} by `{}`", name(service, slot), overlay.id));
                return Some((slot, rule));
            }
            Err(why) => trace.rejected(|| format!("overlay {}", overlay.id), || why.to_owned()),
        }
    }
    trace.step("overlay", || "none takes the call".to_owned());
    None
}

fn take<'t>(
    service: &ServiceTable,
    overlay: &'t Overlay,
    pinned: bool,
    base: usize,
    call: &Call<'_>,
    profile: Option<&Profile>,
) -> Result<(usize, Rule<'t>), &'static str> {
    if !matching::applies(&overlay.matching, call, profile) {
        return Err("it is not about this call");
    }
    let bucket = matching::unit_bucket(overlay, call).ok_or("the call does not name its unit")?;
    let (version, rule) = match &overlay.kind {
        OverlayKind::Canary(canary) => {
            if service.versions().get(base).is_none_or(|slot| slot.version != canary.baseline) {
                return Err("the base version is not its baseline");
            }
            if !canary.buckets.contains(bucket) {
                return Err("the unit stays on the baseline");
            }
            (&canary.canary, Rule::Canary { overlay: &overlay.id })
        }
        OverlayKind::Experiment(experiment) => {
            if pinned && !experiment.includes_pinned {
                return Err("it leaves pinned tenants alone");
            }
            let arm = experiment.variants.iter().find(|variant| variant.buckets.contains(bucket));
            let arm = arm.ok_or("no variant has the unit")?;
            (&arm.version, Rule::Experiment { overlay: &overlay.id, variant: &arm.id })
        }
    };
    service.declared_slot(version).map(|slot| (slot, rule)).ok_or("its version is not declared")
}

/// The wanted version if it works on the schema, else the best that does: the base, the default, the
/// nearest older, the nearest newer.
fn legal_version<T: Trace>(
    service: &ServiceTable,
    wanted: usize,
    base: usize,
    schema: Option<&SchemaVersion>,
    trace: &mut T,
) -> Result<usize, Refusal> {
    let nearest = (0..wanted).rev().chain(wanted + 1..service.versions().len());
    let candidates = [wanted, base].into_iter().chain(service.default_slot()).chain(nearest);
    for slot in candidates {
        let Some(candidate) = service.versions().get(slot) else { continue };
        if candidate.admits(schema) {
            trace.step("schema", || fits(candidate, schema));
            return Ok(slot);
        }
        trace.rejected(
            || candidate.version.to_string(),
            || match &candidate.window {
                Some(window) => {
                    format!("it works on schema {window}, the tenant has {}", schema_name(schema))
                }
                None => "it is not declared".to_owned(),
            },
        );
    }
    trace.step("schema", || format!("no version works on {}", schema_name(schema)));
    let wanted = service.versions().get(wanted).ok_or(Refusal::UnknownService)?;
    Err(Refusal::NoLegalVersion { wanted: wanted.version.clone() })
}

fn name(service: &ServiceTable, slot: usize) -> String {
    service.versions().get(slot).map(|v| v.version.to_string()).unwrap_or_default()
}

fn fits(slot: &VersionSlot, schema: Option<&SchemaVersion>) -> String {
    match (&slot.window, schema) {
        (Some(window), Some(schema)) if *window != SchemaWindow::default() => {
            format!("{} works on schema {window}, the tenant has schema {schema}", slot.version)
        }
        _ => format!("{} works on any schema", slot.version),
    }
}

fn schema_name(schema: Option<&SchemaVersion>) -> String {
    schema.map_or_else(|| "a schema that was never observed".to_owned(), |schema| format!("schema {schema}"))
}
