//! The decision once more, written for being obviously right and not for speed.

use crate::model::Model;
use grey_core::decide::{Call, Detour, Rule};
use grey_core::error::Refusal;
use grey_core::hash::{bucket, unit_hash};
use grey_core::ids::{InstanceId, Name, ServiceId};
use grey_core::instance::Instance;
use grey_core::policy::{Buckets, Failover, Overlay, OverlayKind, Policy, Test, Unit, UnknownTenant};
use grey_core::schema::SchemaVersion;
use grey_core::tenant::{Tenant, TenantStatus};
use grey_core::version::Version;
use std::collections::BTreeMap;

/// What a decision must say, and the instances it may choose from.
pub(crate) struct Expected<'m> {
    pub(crate) version: Version,
    pub(crate) rule: Rule<'m>,
    pub(crate) detour: Option<(Version, Detour)>,
    pub(crate) schema: Option<SchemaVersion>,
    pub(crate) eligible: Vec<InstanceId>,
}

pub(crate) fn decide<'m>(model: &'m Model, call: &Call<'_>) -> Result<Expected<'m>, Refusal> {
    // 1. service and tenant
    let service =
        model.defaults.keys().find(|id| id.as_str() == call.service).ok_or(Refusal::UnknownService)?;
    let default = model.defaults[service].clone();
    let none = Policy::default();
    let policy = model.policies.get(service);
    let tenant = model.tenants.values().find(|tenant| tenant.id.as_str() == call.tenant);
    match tenant.map(|tenant| tenant.status) {
        Some(TenantStatus::Suspended) => return Err(Refusal::Suspended),
        Some(TenantStatus::Maintenance) => return Err(Refusal::Maintenance),
        Some(TenantStatus::Active) => {}
        None if policy.unwrap_or(&none).unknown_tenant == UnknownTenant::Refuse => {
            return Err(Refusal::UnknownTenant);
        }
        None => {}
    }
    let key = tenant.map(|tenant| (tenant.id.clone(), service.clone()));
    if let Some(hold) = key.as_ref().and_then(|key| model.holds.get(key)) {
        return Err(Refusal::Moving { to: hold.to.clone() });
    }
    // 2. base version
    let pin = key.as_ref().and_then(|key| model.pins.get(key));
    let schema = key.as_ref().and_then(|key| model.schemas.get(key)).cloned();
    let (base, mut rule) = match (tenant, pin) {
        (None, _) => (default.clone(), Rule::UnknownTenant),
        (Some(_), Some(pin)) => (pin.version.clone(), Rule::Pin),
        (Some(_), None) => (default.clone(), Rule::Default),
    };
    // 3. override, 4. overlays
    let mut wanted = base.clone();
    let allowed =
        policy.is_some_and(|policy| policy.override_roles.iter().any(|role| role.as_str() == call.role));
    if allowed && !call.override_version.is_empty() {
        let asked = Version::new(call.override_version).map_err(|_| Refusal::UnknownVersion)?;
        if !model.windows.contains_key(&(service.clone(), asked.clone())) {
            return Err(Refusal::UnknownVersion);
        }
        (wanted, rule) = (asked, Rule::Override);
    } else if !pin.is_some_and(|pin| pin.locked) {
        let taken = in_order(model, service).into_iter().find_map(|overlay| {
            let (version, rule) = taken_by(overlay, call, tenant, pin.is_some(), &base)?;
            model.windows.contains_key(&(service.clone(), version.clone())).then(|| (version.clone(), rule))
        });
        (wanted, rule) = taken.unwrap_or((wanted, rule));
    }
    // 5. schema gate
    let version = legal(model, service, &wanted, &base, &default, schema.as_ref())
        .ok_or(Refusal::NoLegalVersion { wanted: wanted.clone() })?;
    let mut detour = (version != wanted).then(|| (wanted.clone(), Detour::Schema));
    // 6. instances, 8. failover
    let residency = tenant.map_or(&[][..], |tenant| &tenant.residency);
    let mut served = version.clone();
    let mut eligible = eligible(model, service, &version, call, residency);
    if eligible.is_empty() {
        let stand_in = stand_ins(model, service, &version, &default, policy.map_or(&none, |p| p))
            .into_iter()
            .filter(|candidate| works(model, service, candidate, schema.as_ref()))
            .map(|candidate| (self::eligible(model, service, &candidate, call, residency), candidate))
            .find(|(instances, _)| !instances.is_empty());
        (eligible, served) = stand_in.ok_or(Refusal::NoInstance { version })?;
        detour = Some((wanted, Detour::Failover));
    }
    Ok(Expected { version: served, rule, detour, schema, eligible })
}

/// Experiments before canaries, each by order and then by id.
fn in_order<'m>(model: &'m Model, service: &ServiceId) -> Vec<&'m Overlay> {
    let mut overlays: Vec<&Overlay> =
        model.overlays.iter().filter(|((of, _), _)| of == service).map(|(_, overlay)| overlay).collect();
    overlays.sort_by(|a, b| (a.order, &a.id).cmp(&(b.order, &b.id)));
    let (experiments, canaries): (Vec<_>, Vec<_>) =
        overlays.into_iter().partition(|overlay| matches!(overlay.kind, OverlayKind::Experiment(_)));
    [experiments, canaries].concat()
}

fn taken_by<'m>(
    overlay: &'m Overlay,
    call: &Call<'_>,
    tenant: Option<&Tenant>,
    pinned: bool,
    base: &Version,
) -> Option<(&'m Version, Rule<'m>)> {
    let about = &overlay.matching;
    let tier = tenant.and_then(|tenant| tenant.tier.clone());
    let region = tenant.and_then(|tenant| tenant.region.clone());
    let holds = (about.tenants.is_empty() || about.tenants.iter().any(|id| id.as_str() == call.tenant))
        && (about.tiers.is_empty() || about.tiers.iter().any(|wanted| Some(wanted) == tier.as_ref()))
        && (about.regions.is_empty() || about.regions.iter().any(|wanted| Some(wanted) == region.as_ref()))
        && about.labels.iter().all(|(label, values)| {
            tenant.is_some_and(|tenant| values.iter().any(|value| tenant.labels.get(label) == Some(value)))
        })
        && about.metadata.iter().all(|predicate| {
            match (call.metadata.get(&predicate.key), &predicate.test) {
                (None, _) => false,
                (Some(_), Test::Present) => true,
                (Some(value), Test::In(values)) => values.iter().any(|wanted| wanted == value),
                (Some(value), Test::Prefix(prefix)) => value.starts_with(prefix),
            }
        });
    if !holds {
        return None;
    }
    let place = match overlay.unit {
        Unit::Tenant => unit_hash(&[&overlay.salt, call.tenant]),
        Unit::User if call.user.is_empty() => return None,
        Unit::User => unit_hash(&[&overlay.salt, call.tenant, call.user]),
        Unit::Request if call.request_key.is_empty() => return None,
        Unit::Request => unit_hash(&[&overlay.salt, call.request_key]),
    };
    let place = bucket(place, 10_000);
    match &overlay.kind {
        OverlayKind::Canary(canary) => {
            let moved = *base == canary.baseline && owns(&canary.buckets, place);
            moved.then_some((&canary.canary, Rule::Canary { overlay: &overlay.id }))
        }
        OverlayKind::Experiment(experiment) if pinned && !experiment.includes_pinned => None,
        OverlayKind::Experiment(experiment) => {
            let mut owners = experiment.variants.iter().filter(|variant| owns(&variant.buckets, place));
            let variant = owners.next()?;
            Some((&variant.version, Rule::Experiment { overlay: &overlay.id, variant: &variant.id }))
        }
    }
}

fn owns(buckets: &Buckets, place: u32) -> bool {
    buckets.ranges().iter().any(|(start, end)| *start <= place && place < *end)
}

fn works(model: &Model, service: &ServiceId, version: &Version, schema: Option<&SchemaVersion>) -> bool {
    let window = model.windows.get(&(service.clone(), version.clone()));
    window.is_some_and(|window| match schema {
        None => window.min.is_none() && window.max.is_none(),
        Some(seen) => {
            window.min.as_ref().is_none_or(|min| seen >= min)
                && window.max.as_ref().is_none_or(|max| seen <= max)
        }
    })
}

/// Other declared versions of the service: older ones, newest first, then newer ones.
fn nearest(model: &Model, service: &ServiceId, to: &Version) -> Vec<Version> {
    let declared = model.windows.keys().filter(|(of, _)| of == service).map(|(_, version)| version.clone());
    let (mut older, mut newer): (Vec<_>, Vec<_>) = declared.filter(|v| v != to).partition(|v| v < to);
    older.sort_by(|a, b| b.cmp(a));
    newer.sort();
    older.into_iter().chain(newer).collect()
}

fn legal(
    model: &Model,
    service: &ServiceId,
    wanted: &Version,
    base: &Version,
    default: &Version,
    schema: Option<&SchemaVersion>,
) -> Option<Version> {
    let mut order = vec![wanted.clone(), base.clone(), default.clone()];
    order.extend(nearest(model, service, wanted));
    order.into_iter().find(|version| works(model, service, version, schema))
}

fn stand_ins(
    model: &Model,
    service: &ServiceId,
    version: &Version,
    default: &Version,
    policy: &Policy,
) -> Vec<Version> {
    match &policy.failover {
        Failover::Refuse => Vec::new(),
        Failover::ToDefault => vec![default.clone()],
        Failover::ToNearest => nearest(model, service, version),
        Failover::ToVersions(versions) => versions.clone(),
    }
}

fn eligible(
    model: &Model,
    service: &ServiceId,
    version: &Version,
    call: &Call<'_>,
    residency: &[Name],
) -> Vec<InstanceId> {
    let all = model.instances.get(service).map_or(&[][..], Vec::as_slice);
    let resident =
        |region: &str| residency.is_empty() || residency.iter().any(|allowed| allowed.as_str() == region);
    let region_of = |instance: &Instance| instance.region.as_ref().map_or(String::new(), Name::to_string);
    let usable: Vec<&Instance> = all
        .iter()
        .filter(|i| {
            i.version == *version && i.enabled && i.healthy && i.weight > 0 && resident(&region_of(i))
        })
        .collect();
    let pick = |fits: &dyn Fn(&Instance) -> bool| -> Vec<InstanceId> {
        usable.iter().filter(|i| fits(i)).map(|i| i.id.clone()).collect()
    };
    let mut tries = Vec::new();
    if !call.zone.is_empty() {
        // Of several regions with such a zone the first that can serve.
        let home = usable.iter().filter(|i| {
            i.zone.as_ref().is_some_and(|zone| zone.as_str() == call.zone)
                && (call.region.is_empty() || region_of(i) == call.region)
        });
        if let Some(region) = home.map(|i| region_of(i)).min() {
            tries.push(pick(&|i| region_of(i) == region && serves(&usable, call.zone, &region, i)));
        }
    }
    if !call.region.is_empty() {
        tries.push(pick(&|i| region_of(i) == call.region));
    }
    for allowed in residency {
        tries.push(pick(&|i| region_of(i) == allowed.as_str()));
    }
    if residency.is_empty() {
        tries.push(pick(&|_| true));
    }
    tries.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}

/// Whether a call from this zone may go to the instance, which is in the zone's region: always within the zone; else
/// where the zone has less and the instance's has more than its fair share of the region's weight.
fn serves(usable: &[&Instance], zone: &str, region: &str, candidate: &Instance) -> bool {
    let mut weights: BTreeMap<&str, u32> = BTreeMap::new();
    for instance in usable.iter().filter(|i| text(&i.region) == region) {
        *weights.entry(text(&instance.zone)).or_default() += instance.weight;
    }
    let fair = f64::from(weights.values().sum::<u32>()) / weights.len() as f64;
    let weight = |zone: &str| f64::from(weights[zone]);
    let of = text(&candidate.zone);
    of == zone || (weight(zone) < fair && weight(of) > fair)
}

fn text(name: &Option<Name>) -> &str {
    name.as_ref().map_or("", Name::as_str)
}
