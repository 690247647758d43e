//! Whether an overlay is about a call, and which of its units the call belongs to.

use super::Call;
use crate::hash::{bucket, unit_hash};
use crate::ids::Name;
use crate::policy::{Match, Overlay, Test, Unit, WEIGHT_SCALE};
use crate::table::Profile;
use std::collections::BTreeSet;

/// Whether every condition given holds.
pub(crate) fn applies(matching: &Match, call: &Call<'_>, profile: Option<&Profile>) -> bool {
    let named =
        |set: &BTreeSet<Name>, name: Option<&Name>| set.is_empty() || name.is_some_and(|n| set.contains(n));
    (matching.tenants.is_empty() || matching.tenants.contains(call.tenant))
        && named(&matching.tiers, profile.and_then(|p| p.tier.as_ref()))
        && named(&matching.regions, profile.and_then(|p| p.region.as_ref()))
        && matching.labels.iter().all(|(key, values)| {
            let value = profile.and_then(|p| p.labels.get(key));
            value.is_some_and(|value| values.contains(value))
        })
        && matching.metadata.iter().all(|predicate| {
            call.metadata.get(&predicate.key).is_some_and(|value| match &predicate.test {
                Test::Present => true,
                Test::In(values) => values.contains(value),
                Test::Prefix(prefix) => value.starts_with(prefix.as_str()),
            })
        })
}

/// The bucket of the call's unit, from 0 up to the weight scale; none if the call does not name its unit.
pub(super) fn unit_bucket(overlay: &Overlay, call: &Call<'_>) -> Option<u32> {
    let salt = overlay.salt.as_str();
    let hash = match overlay.unit {
        Unit::Tenant => unit_hash(&[salt, call.tenant]),
        Unit::User if call.user.is_empty() => return None,
        Unit::User => unit_hash(&[salt, call.tenant, call.user]),
        Unit::Request if call.request_key.is_empty() => return None,
        Unit::Request => unit_hash(&[salt, call.request_key]),
    };
    Some(bucket(hash, WEIGHT_SCALE))
}
