//! Steps 6 to 8: eligible instances, balancing, failover.

use super::{Answer, Call, Decision, Detour, NoTrace, Trace, TurnOf, VersionChoice};
use crate::balance::Moment;
use crate::error::Refusal;
use crate::hash::unit_hash;
use crate::ids::Name;
use crate::policy::{Failover, HashKey, Strategy};
use crate::table::{Member, Place, Row, Site, VersionSlot};
use crate::version::Version;

pub(super) fn choose<'t, T: Trace>(
    choice: &VersionChoice<'t>,
    call: &Call<'_>,
    moment: &Moment,
    trace: &mut T,
) -> Result<Decision<'t>, Refusal> {
    let (place, key) = (place(choice, call), hash_key(choice, call));
    let served = first_that_serves(choice, trace, |slot, trace| {
        let site = slot.pool.site(&place, key, moment);
        let member = site.and_then(|site| slot.pool.choose(&site, key, moment, T::PEEK));
        record(slot, &place, site.zip(member), trace);
        member
    })?;
    Ok(Decision {
        version: &served.slot.version,
        instance: &served.by.instance,
        rule: choice.rule,
        detour: served.detour,
        schema: choice.schema,
    })
}

/// The group whose turn counts if [`choose`] is asked at the same moment; none if nothing can serve.
pub(super) fn turn_of<'t>(
    choice: &VersionChoice<'t>,
    call: &Call<'_>,
    moment: &Moment,
) -> Option<TurnOf<'t>> {
    let (place, key) = (place(choice, call), hash_key(choice, call));
    let served =
        first_that_serves(choice, &mut NoTrace, |slot, _| slot.pool.site(&place, key, moment)).ok()?;
    let (version, locality) = (&served.slot.version, served.by.locality);
    Some(TurnOf { service: choice.service.id(), version, locality })
}

/// The version that [`choose`] finds an instance of, without choosing one.
pub(super) fn answer<'t>(choice: &VersionChoice<'t>, call: &Call<'_>) -> Result<Answer<'t>, Refusal> {
    let place = place(choice, call);
    let served =
        first_that_serves(choice, &mut NoTrace, |slot, _| slot.pool.can_serve(&place).then_some(()))?;
    Ok(Answer { version: &served.slot.version, detour: served.detour })
}

/// A version that serves, and by what.
struct Served<'t, S> {
    slot: &'t VersionSlot,
    by: S,
    detour: Option<(&'t Version, Detour)>,
}

/// The chosen version if `serve` finds something that serves in it, else the first that failover allows.
fn first_that_serves<'t, T: Trace, S>(
    choice: &VersionChoice<'t>,
    trace: &mut T,
    serve: impl Fn(&'t VersionSlot, &mut T) -> Option<S>,
) -> Result<Served<'t, S>, Refusal> {
    let slots = choice.service.versions();
    if let Some((slot, by)) = slots.get(choice.slot).and_then(|slot| Some((slot, serve(slot, trace)?))) {
        return Ok(Served { slot, by, detour: choice.detour });
    }
    let wanted = choice.detour.map_or(choice.version, |(wanted, _)| wanted);
    let failover = choice.service.policy().map_or(&Failover::Refuse, |policy| &policy.failover);
    for slot in failover_slots(choice, failover).filter_map(|at| slots.get(at)) {
        if !slot.admits(choice.schema) {
            trace.rejected(
                || slot.version.to_string(),
                || "it does not work on the tenant's schema".to_owned(),
            );
            continue;
        }
        if let Some(by) = serve(slot, trace) {
            trace.step("failover", || format!("{} stands in for {}", slot.version, choice.version));
            return Ok(Served { slot, by, detour: Some((wanted, Detour::Failover)) });
        }
    }
    trace.step("failover", || match failover {
        Failover::Refuse => "the policy allows none".to_owned(),
        _ => "no version that the policy allows can serve".to_owned(),
    });
    Err(Refusal::NoInstance { version: choice.version.clone() })
}

/// Where the call comes from and where its tenant may be served.
fn place<'a>(choice: &VersionChoice<'a>, call: &Call<'a>) -> Place<'a> {
    let bound = choice.row.filter(|row| !row.is_plain()).and_then(Row::profile);
    let residency: &[Name] = bound.map_or(&[], |profile| &profile.residency);
    Place { region: call.region, zone: call.zone, residency }
}

/// Versions to try in place of the chosen one, in order.
fn failover_slots<'a>(
    choice: &'a VersionChoice<'_>,
    failover: &'a Failover,
) -> impl Iterator<Item = usize> + 'a {
    let service = choice.service;
    let default = service.default_slot().filter(|_| matches!(failover, Failover::ToDefault));
    let (older, newer) = match failover {
        Failover::ToNearest => (0..choice.slot, choice.slot + 1..service.versions().len()),
        _ => (0..0, 0..0),
    };
    let listed: &[_] = match failover {
        Failover::ToVersions(versions) => versions,
        _ => &[],
    };
    let listed = listed.iter().filter_map(|version| service.slot(version));
    default.into_iter().chain(older.rev()).chain(newer).chain(listed).filter(|at| *at != choice.slot)
}

/// What consistent hashing keeps together; 0 for other strategies.
fn hash_key(choice: &VersionChoice<'_>, call: &Call<'_>) -> u32 {
    let balancing = choice.service.policy().map(|policy| &policy.balancing);
    let Some(balancing) = balancing.filter(|b| b.strategy == Strategy::ConsistentHash) else { return 0 };
    match &balancing.hash_key {
        HashKey::Tenant => unit_hash(&[call.tenant]),
        HashKey::User => unit_hash(&[call.tenant, call.user]),
        HashKey::Request => unit_hash(&[call.request_key]),
        HashKey::Metadata(key) => unit_hash(&[call.metadata.get(key).unwrap_or_default()]),
    }
}

fn record<T: Trace>(
    slot: &VersionSlot,
    place: &Place<'_>,
    chosen: Option<(Site<'_>, &Member)>,
    trace: &mut T,
) {
    if !T::PEEK {
        return;
    }
    for member in slot.pool.members() {
        let instance = &member.instance;
        let region = instance.region.as_ref();
        let outside = !place.residency.is_empty() && region.is_none_or(|r| !place.residency.contains(r));
        let why = match () {
            () if !instance.enabled => "it is switched off",
            () if !instance.healthy => "its registry finds it unhealthy",
            () if instance.weight == 0 => "its weight is 0",
            () if outside => "its region is outside the tenant's residency",
            () => continue,
        };
        trace.rejected(|| format!("instance {}", instance.id), || why.to_owned());
    }
    let place =
        [place.region, place.zone].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
    let from = if place.is_empty() { String::new() } else { format!(" for a call from {place}") };
    trace.step("instances", || match chosen {
        Some((site, member)) => {
            format!("{} of {}{from}{}", member.instance.id, slot.version, site.spill())
        }
        None => format!("{} has no routable instance{from}", slot.version),
    });
}
