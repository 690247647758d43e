//! Steps 6 to 8: eligible instances, balancing, failover.

use super::{Call, Decision, Detour, Trace, VersionChoice};
use crate::balance::Moment;
use crate::error::Refusal;
use crate::hash::unit_hash;
use crate::ids::Name;
use crate::policy::{Failover, HashKey, Policy, Strategy};
use crate::table::{Member, Place, Row, VersionSlot};

pub(super) fn choose<'t, T: Trace>(
    choice: &VersionChoice<'t>,
    call: &Call<'_>,
    moment: &Moment,
    trace: &mut T,
) -> Result<Decision<'t>, Refusal> {
    let residency: &[Name] = choice.row.and_then(Row::profile).map_or(&[], |profile| &profile.residency);
    let place = Place { region: call.region, zone: call.zone, residency };
    let policy = choice.service.policy();
    let key = policy.map_or(0, |policy| hash_key(policy, call));
    let choose = |slot: &'t VersionSlot, trace: &mut T| {
        let member = slot.pool.choose(&place, key, moment, T::PEEK);
        record(slot, &place, member, trace);
        member
    };
    let decided = |slot: &'t VersionSlot, member: &'t Member, detour| Decision {
        version: &slot.version,
        instance: &member.instance,
        rule: choice.rule,
        detour,
        schema: choice.schema,
    };

    let slots = choice.service.versions();
    if let Some((slot, member)) = slots.get(choice.slot).and_then(|s| choose(s, trace).map(|m| (s, m))) {
        return Ok(decided(slot, member, choice.detour));
    }
    let wanted = choice.detour.map_or(choice.version, |(wanted, _)| wanted);
    let failover = policy.map(|policy| &policy.failover).unwrap_or(&Failover::Refuse);
    for slot in failover_slots(choice, failover).filter_map(|at| slots.get(at)) {
        if !slot.admits(choice.schema) {
            trace.rejected(
                || slot.version.to_string(),
                || "it does not work on the tenant's schema".to_owned(),
            );
            continue;
        }
        if let Some(member) = choose(slot, trace) {
            trace.step("failover", || format!("{} stands in for {}", slot.version, choice.version));
            return Ok(decided(slot, member, Some((wanted, Detour::Failover))));
        }
    }
    trace.step("failover", || match failover {
        Failover::Refuse => "the policy allows none".to_owned(),
        _ => "no version that the policy allows can serve".to_owned(),
    });
    Err(Refusal::NoInstance { version: choice.version.clone() })
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

fn hash_key(policy: &Policy, call: &Call<'_>) -> u32 {
    if policy.balancing.strategy != Strategy::ConsistentHash {
        return 0;
    }
    match &policy.balancing.hash_key {
        HashKey::Tenant => unit_hash(&[call.tenant]),
        HashKey::User => unit_hash(&[call.tenant, call.user]),
        HashKey::Request => unit_hash(&[call.request_key]),
        HashKey::Metadata(key) => unit_hash(&[call.metadata.get(key).map_or("", String::as_str)]),
    }
}

fn record<T: Trace>(slot: &VersionSlot, place: &Place<'_>, chosen: Option<&Member>, trace: &mut T) {
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
        Some(member) => format!("{} of {}{from}", member.instance.id, slot.version),
        None => format!("{} has no routable instance{from}", slot.version),
    });
}
