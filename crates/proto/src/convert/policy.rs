//! Policies.

use super::{
    Checked, InvalidMessage, at_most, convert_list, convert_required, known, read, read_list, texts_of,
};
use crate::control::{self, failover, hash_key, metadata_predicate, overlay};
use grey_core::ids::{Name, OverlayId, ServiceId};
use grey_core::policy::{
    Balancing, Failover, HashKey, InvalidPolicy, MAX_LIST, MAX_OVERLAYS, MAX_VARIANTS, Match, Overlay,
    OverlayKind, Policy, Predicate, Scope, Strategy, Test, Unit, UnknownTenant, Variant,
};
use grey_core::tenant::MAX_LABEL_VALUE;
use std::collections::BTreeMap;

/// Longest metadata key that a policy may name, in bytes.
pub const MAX_METADATA_KEY: usize = 256;
/// Longest metadata value or prefix that a policy may name, in bytes.
pub const MAX_METADATA_VALUE: usize = 1_024;

/// Maps an enumeration to its counterpart in both directions; the first core value is also the unspecified one.
macro_rules! same_values {
    ($core:ident: $default:ident $(, $value:ident)*) => {
        impl From<$core> for control::$core {
            fn from(value: $core) -> Self {
                match value {
                    $core::$default => Self::$default,
                    $($core::$value => Self::$value,)*
                }
            }
        }

        impl From<control::$core> for $core {
            fn from(value: control::$core) -> Self {
                match value {
                    control::$core::Unspecified | control::$core::$default => Self::$default,
                    $(control::$core::$value => Self::$value,)*
                }
            }
        }
    };
}

same_values!(UnknownTenant: Refuse, UseDefault);
same_values!(Unit: Tenant, User, Request);
same_values!(Scope: Local, Global);
same_values!(
    Strategy: RoundRobin, Random, WeightedRoundRobin, LeastConnections, PeakEwma, HealthAware, ConsistentHash
);

impl From<(&ServiceId, &Policy)> for control::Policy {
    fn from((service, policy): (&ServiceId, &Policy)) -> Self {
        Self {
            service: service.to_string(),
            unknown_tenant: control::UnknownTenant::from(policy.unknown_tenant).into(),
            overlays: policy.overlays.iter().map(Into::into).collect(),
            balancing: Some((&policy.balancing).into()),
            failover: Some((&policy.failover).into()),
            override_roles: texts_of(&policy.override_roles),
            stateless: policy.stateless,
            revision: 0,
        }
    }
}

impl TryFrom<control::Policy> for (ServiceId, Policy) {
    type Error = InvalidMessage;

    fn try_from(message: control::Policy) -> Checked<Self> {
        let service = read("service", &message.service)?;
        let balancing = message.balancing.unwrap_or_default().try_into();
        let failover = message.failover.unwrap_or_default().try_into();
        let policy = Policy {
            unknown_tenant: known::<control::UnknownTenant>("unknown_tenant", message.unknown_tenant)?.into(),
            overlays: convert_list("overlays", message.overlays, MAX_OVERLAYS)?,
            balancing: balancing.map_err(|e: InvalidMessage| e.under("balancing"))?,
            failover: failover.map_err(|e: InvalidMessage| e.under("failover"))?,
            override_roles: read_list("override_roles", &message.override_roles, MAX_LIST)?,
            stateless: message.stateless,
        };
        policy.validate().map_err(|why| locate(&policy, &why))?;
        Ok((service, policy))
    }
}

/// Finds the overlay that a broken rule is about. Of two with one id it is the later one.
fn locate(policy: &Policy, why: &InvalidPolicy) -> InvalidMessage {
    let id = match why {
        InvalidPolicy::Overweight { overlay, .. } | InvalidPolicy::Pointless { overlay, .. } => Some(overlay),
        InvalidPolicy::DuplicateId(overlay) | InvalidPolicy::NeedsStateless(overlay) => Some(overlay),
        InvalidPolicy::TooMany { .. } => None,
    };
    let place = policy.overlays.iter().rposition(|overlay| Some(&overlay.id) == id);
    InvalidMessage::new(place.map_or("overlays".into(), |i| format!("overlays[{i}]")), why.to_string())
}

impl From<&Overlay> for control::Overlay {
    fn from(overlay: &Overlay) -> Self {
        let kind = match &overlay.kind {
            OverlayKind::Experiment(variants) => overlay::Kind::Experiment(control::Experiment {
                variants: variants.iter().map(Into::into).collect(),
            }),
            OverlayKind::Canary { baseline, canary, weight } => overlay::Kind::Canary(control::Canary {
                baseline: baseline.to_string(),
                canary: canary.to_string(),
                weight: *weight,
            }),
        };
        let everyone = overlay.matching == Match::default();
        Self {
            id: overlay.id.to_string(),
            salt: overlay.salt.clone(),
            unit: control::Unit::from(overlay.unit).into(),
            r#match: (!everyone).then(|| (&overlay.matching).into()),
            kind: Some(kind),
        }
    }
}

impl TryFrom<control::Overlay> for Overlay {
    type Error = InvalidMessage;

    fn try_from(message: control::Overlay) -> Checked<Self> {
        let id: OverlayId = read("id", &message.id)?;
        if message.salt.is_empty() || message.salt.len() > 128 {
            return Err(InvalidMessage::new("salt", "needs 1 to 128 bytes"));
        }
        let kind = match message.kind.ok_or_else(|| InvalidMessage::missing("kind"))? {
            overlay::Kind::Experiment(experiment) => OverlayKind::Experiment(
                convert_list("variants", experiment.variants, MAX_VARIANTS)
                    .map_err(|e| e.under("experiment"))?,
            ),
            overlay::Kind::Canary(canary) => OverlayKind::Canary {
                baseline: read("canary.baseline", &canary.baseline)?,
                canary: read("canary.canary", &canary.canary)?,
                weight: canary.weight,
            },
        };
        Ok(Self {
            id,
            salt: message.salt,
            unit: known::<control::Unit>("unit", message.unit)?.into(),
            matching: convert_required("match", Some(message.r#match.unwrap_or_default()))?,
            kind,
        })
    }
}

impl From<&Variant> for control::Variant {
    fn from(variant: &Variant) -> Self {
        Self { id: variant.id.to_string(), version: variant.version.to_string(), weight: variant.weight }
    }
}

impl TryFrom<control::Variant> for Variant {
    type Error = InvalidMessage;

    fn try_from(message: control::Variant) -> Checked<Self> {
        Ok(Self {
            id: read("id", &message.id)?,
            version: read("version", &message.version)?,
            weight: message.weight,
        })
    }
}

impl From<&Match> for control::Match {
    fn from(matching: &Match) -> Self {
        let labels = matching.labels.iter().map(|(key, values)| {
            let values = control::Values { values: values.iter().cloned().collect() };
            (key.to_string(), values)
        });
        Self {
            tenants: texts_of(&matching.tenants),
            tiers: texts_of(&matching.tiers),
            regions: texts_of(&matching.regions),
            labels: labels.collect(),
            metadata: matching.metadata.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<control::Match> for Match {
    type Error = InvalidMessage;

    fn try_from(message: control::Match) -> Checked<Self> {
        at_most("labels", "entries", message.labels.len(), MAX_LIST)?;
        let mut labels = BTreeMap::new();
        for (key, values) in message.labels {
            let key: Name = read("labels", &key)?;
            let values = read_values(&format!("labels[{key}]"), values, MAX_LABEL_VALUE)?;
            labels.insert(key, values);
        }
        Ok(Self {
            tenants: read_list("tenants", &message.tenants, MAX_LIST)?,
            tiers: read_list("tiers", &message.tiers, MAX_LIST)?,
            regions: read_list("regions", &message.regions, MAX_LIST)?,
            labels,
            metadata: convert_list("metadata", message.metadata, MAX_LIST)?,
        })
    }
}

fn read_values<C: FromIterator<String>>(field: &str, values: control::Values, longest: usize) -> Checked<C> {
    at_most(field, "entries", values.values.len(), MAX_LIST)?;
    for (i, value) in values.values.iter().enumerate() {
        at_most(&format!("{field}.values[{i}]"), "bytes", value.len(), longest)?;
    }
    Ok(values.values.into_iter().collect())
}

impl From<&Predicate> for control::MetadataPredicate {
    fn from(predicate: &Predicate) -> Self {
        let test = match &predicate.test {
            Test::Present => None,
            Test::In(values) => {
                let values = values.iter().cloned().collect();
                Some(metadata_predicate::Test::In(control::Values { values }))
            }
            Test::Prefix(prefix) => Some(metadata_predicate::Test::Prefix(prefix.clone())),
        };
        Self { key: predicate.key.clone(), test }
    }
}

impl TryFrom<control::MetadataPredicate> for Predicate {
    type Error = InvalidMessage;

    fn try_from(message: control::MetadataPredicate) -> Checked<Self> {
        let key = metadata_key("key", message.key)?;
        let test = match message.test {
            None => Test::Present,
            Some(metadata_predicate::Test::In(values)) => {
                Test::In(read_values("in", values, MAX_METADATA_VALUE)?)
            }
            Some(metadata_predicate::Test::Prefix(prefix)) => {
                at_most("prefix", "bytes", prefix.len(), MAX_METADATA_VALUE)?;
                Test::Prefix(prefix)
            }
        };
        Ok(Self { key, test })
    }
}

fn metadata_key(field: &str, key: String) -> Checked<String> {
    if key.is_empty() {
        return Err(InvalidMessage::missing(field));
    }
    at_most(field, "bytes", key.len(), MAX_METADATA_KEY)?;
    Ok(key)
}

impl From<&Balancing> for control::Balancing {
    fn from(balancing: &Balancing) -> Self {
        let source = match &balancing.hash_key {
            HashKey::Tenant => None,
            HashKey::User => Some(hash_key::Source::User(true)),
            HashKey::Request => Some(hash_key::Source::Request(true)),
            HashKey::Metadata(key) => Some(hash_key::Source::Metadata(key.clone())),
        };
        Self {
            strategy: control::Strategy::from(balancing.strategy).into(),
            scope: control::Scope::from(balancing.scope).into(),
            hash_key: source.map(|source| control::HashKey { source: Some(source) }),
        }
    }
}

impl TryFrom<control::Balancing> for Balancing {
    type Error = InvalidMessage;

    fn try_from(message: control::Balancing) -> Checked<Self> {
        let hash_key = match message.hash_key.and_then(|key| key.source) {
            None => HashKey::Tenant,
            Some(hash_key::Source::Tenant(chosen)) => choice("hash_key.tenant", chosen, HashKey::Tenant)?,
            Some(hash_key::Source::User(chosen)) => choice("hash_key.user", chosen, HashKey::User)?,
            Some(hash_key::Source::Request(chosen)) => choice("hash_key.request", chosen, HashKey::Request)?,
            Some(hash_key::Source::Metadata(key)) => {
                HashKey::Metadata(metadata_key("hash_key.metadata", key)?)
            }
        };
        Ok(Self {
            strategy: known::<control::Strategy>("strategy", message.strategy)?.into(),
            scope: known::<control::Scope>("scope", message.scope)?.into(),
            hash_key,
        })
    }
}

impl From<&Failover> for control::Failover {
    fn from(failover: &Failover) -> Self {
        let rule = match failover {
            Failover::Refuse => failover::Rule::Refuse(true),
            Failover::ToDefault => failover::Rule::ToDefault(true),
            Failover::ToNearest => failover::Rule::ToNearest(true),
            Failover::ToVersions(versions) => {
                failover::Rule::ToVersions(control::VersionList { versions: texts_of(versions) })
            }
        };
        Self { rule: Some(rule) }
    }
}

impl TryFrom<control::Failover> for Failover {
    type Error = InvalidMessage;

    fn try_from(message: control::Failover) -> Checked<Self> {
        Ok(match message.rule {
            None => Self::Refuse,
            Some(failover::Rule::Refuse(chosen)) => choice("refuse", chosen, Self::Refuse)?,
            Some(failover::Rule::ToDefault(chosen)) => choice("to_default", chosen, Self::ToDefault)?,
            Some(failover::Rule::ToNearest(chosen)) => choice("to_nearest", chosen, Self::ToNearest)?,
            Some(failover::Rule::ToVersions(list)) => {
                Self::ToVersions(read_list("to_versions.versions", &list.versions, MAX_LIST)?)
            }
        })
    }
}

/// A choice written as a bool says yes by being there; an explicit no has no meaning.
fn choice<T>(field: &str, chosen: bool, value: T) -> Checked<T> {
    if chosen { Ok(value) } else { Err(InvalidMessage::new(field, "must be true if it is given")) }
}
