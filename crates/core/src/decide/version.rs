//! Steps 1 to 5: tenant, base version, override, overlays, schema gate.

use super::{Call, Detour, Rule, Trace, VersionChoice, matching};
use crate::error::Refusal;
use crate::policy::{Overlay, OverlayKind, Policy, UnknownTenant};
use crate::schema::{SchemaVersion, SchemaWindow};
use crate::table::{Assignment, Profile, Row, ServiceTable, Table, VersionSlot};
use crate::tenant::TenantStatus;
use crate::version::Version;

pub(super) fn choose<'t, T: Trace>(
    table: &'t Table,
    call: &Call<'_>,
    trace: &mut T,
) -> Result<VersionChoice<'t>, Refusal> {
    let service = table.service(call.service).filter(|s| s.default_version().is_some());
    let service = service.ok_or(Refusal::UnknownService)?;
    // Pins may arrive before their tenant does; until then nothing is known of it.
    let row = table.tenant(call.tenant).filter(|row| row.profile().is_some());
    let known = check_tenant(row, service, trace)?;
    let assignment = table.assignment(row, service);
    let (base, rule) = base_version(assignment, service, known, trace)?;

    let profile = row.and_then(Row::profile);
    let (wanted, rule) = match service.policy() {
        None => (base, rule),
        Some(policy) => match override_version(service, policy, call, trace)? {
            Some(slot) => (slot, Rule::Override),
            None => overlay_version(service, policy, assignment, base, call, profile, trace)
                .unwrap_or((base, rule)),
        },
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

/// Whether the tenant is declared; refuses those whose calls are not routed.
fn check_tenant<T: Trace>(row: Option<&Row>, service: &ServiceTable, trace: &mut T) -> Result<bool, Refusal> {
    match row.and_then(Row::profile).map(|profile| profile.status) {
        Some(TenantStatus::Active) => {
            trace.step("tenant", || "known and active".to_owned());
            Ok(true)
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
                Ok(false)
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
    policy: &Policy,
    call: &Call<'_>,
    trace: &mut T,
) -> Result<Option<usize>, Refusal> {
    if call.override_version.is_empty() {
        return Ok(None);
    }
    if !policy.override_roles.contains(call.role) {
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
    policy: &'t Policy,
    assignment: &Assignment,
    base: usize,
    call: &Call<'_>,
    profile: Option<&Profile>,
    trace: &mut T,
) -> Option<(usize, Rule<'t>)> {
    if policy.overlays.is_empty() {
        return None;
    }
    let locked = assignment.pin.as_ref().is_some_and(|pin| pin.locked);
    for at in &service.overlay_order {
        let Some(overlay) = policy.overlays.get(*at) else { continue };
        let taken =
            if locked { Err("the pin is locked") } else { take(service, overlay, base, call, profile) };
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
    base: usize,
    call: &Call<'_>,
    profile: Option<&Profile>,
) -> Result<(usize, Rule<'t>), &'static str> {
    if !matching::applies(&overlay.matching, call, profile) {
        return Err("it is not about this call");
    }
    let bucket = matching::unit_bucket(overlay, call).ok_or("the call does not name its unit")?;
    let (version, rule) = match &overlay.kind {
        OverlayKind::Canary { baseline, canary, weight } => {
            if service.versions().get(base).is_none_or(|slot| slot.version != *baseline) {
                return Err("the base version is not its baseline");
            }
            if bucket >= *weight {
                return Err("the unit stays on the baseline");
            }
            (canary, Rule::Canary { overlay: &overlay.id })
        }
        OverlayKind::Experiment(variants) => {
            let mut end = 0;
            let arm = variants.iter().find(|variant| {
                end += variant.weight;
                bucket < end
            });
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
