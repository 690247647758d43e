//! Policies.

use super::overlay::metadata_key;
use super::{Checked, InvalidMessage, known, read, read_list, texts_of};
use crate::control::{self, failover, hash_key};
use grey_core::ids::ServiceId;
use grey_core::policy::{
    Balancing, Failover, HashKey, MAX_LIST, Policy, Scope, Strategy, Unit, UnknownTenant,
};

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
            balancing: balancing.map_err(|e: InvalidMessage| e.under("balancing"))?,
            failover: failover.map_err(|e: InvalidMessage| e.under("failover"))?,
            override_roles: read_list("override_roles", &message.override_roles, MAX_LIST)?,
            stateless: message.stateless,
        };
        policy.validate().map_err(|why| InvalidMessage::new(why.what, why.to_string()))?;
        Ok((service, policy))
    }
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
