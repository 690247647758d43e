//! Running instances of service versions, as a registry reports them.

use crate::ids::{InstanceId, Name, ServiceId};
use crate::version::Version;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::hash::Hasher;
use twox_hash::XxHash64;

/// Highest weight of an instance.
pub const MAX_WEIGHT: u32 = 10_000;
/// Most instances of one service.
pub const MAX_INSTANCES: usize = 10_000;

/// One instance of one version of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    /// Unique within the service.
    pub id: InstanceId,
    /// The version that it runs.
    pub version: Version,
    /// Where callers connect, as `host:port`.
    pub address: SmolStr,
    /// Region it runs in.
    pub region: Option<Name>,
    /// Zone it runs in.
    pub zone: Option<Name>,
    /// Share of traffic relative to its siblings; 0 takes it out. At most [`MAX_WEIGHT`].
    pub weight: u32,
    /// Switched on by its operator.
    pub enabled: bool,
    /// Found healthy by its registry.
    pub healthy: bool,
    /// Listed only as long as it keeps reporting to its registry.
    pub ephemeral: bool,
    /// The registry that lists it, as the mirror names it.
    pub source: Option<Name>,
    /// What the instance says of itself, handed to callers.
    pub metadata: BTreeMap<String, String>,
}

impl Instance {
    /// Whether calls may be sent to it.
    #[must_use]
    pub fn is_routable(&self) -> bool {
        self.enabled && self.healthy && self.weight > 0
    }
}

/// Digest of all instances of a service, whichever order they come in; 0 if there are none. The wrapping sum over
/// services is the digest of all their instances.
///
/// It covers the fields above. What is added later and only describes an instance stays out of it: releases that
/// differ in such a field must agree on the digest.
#[must_use]
pub fn digest<'i>(service: &ServiceId, instances: impl IntoIterator<Item = &'i Instance>) -> u64 {
    instances.into_iter().map(|instance| fact(service, instance)).fold(0, u64::wrapping_add)
}

fn fact(service: &ServiceId, instance: &Instance) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    let mut text = |text: &str| {
        hasher.write(&(text.len() as u64).to_le_bytes());
        hasher.write(text.as_bytes());
    };
    text(service.as_str());
    text(instance.id.as_str());
    text(instance.version.as_str());
    text(&instance.address);
    for name in [&instance.region, &instance.zone, &instance.source] {
        text(name.as_ref().map_or("", Name::as_str));
    }
    for (key, value) in &instance.metadata {
        text(key);
        text(value);
    }
    hasher.write(&instance.weight.to_le_bytes());
    hasher.write(&[instance.enabled, instance.healthy, instance.ephemeral].map(u8::from));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    fn instance(id: &str) -> Instance {
        Instance {
            id: InstanceId::new(id).unwrap(),
            version: Version::new("1").unwrap(),
            address: "a:1".into(),
            region: None,
            zone: None,
            weight: 1,
            enabled: true,
            healthy: true,
            ephemeral: true,
            source: None,
            metadata: BTreeMap::new(),
        }
    }

    #[test]
    fn a_digest_has_no_order_and_every_field_counts() {
        let service = ServiceId::new("s").unwrap();
        let name = |text: &str| Some(Name::new(text).unwrap());
        let (a, b) = (instance("a"), instance("b"));
        assert_eq!(digest(&service, [&a, &b]), digest(&service, [&b, &a]));
        assert_eq!(digest(&service, []), 0);
        let others = [
            b,
            Instance { version: Version::new("2").unwrap(), ..a.clone() },
            Instance { address: "a:2".into(), ..a.clone() },
            Instance { region: name("x"), ..a.clone() },
            Instance { zone: name("x"), ..a.clone() },
            Instance { source: name("x"), ..a.clone() },
            Instance { weight: 2, ..a.clone() },
            Instance { enabled: false, ..a.clone() },
            Instance { healthy: false, ..a.clone() },
            Instance { ephemeral: false, ..a.clone() },
            Instance { metadata: [("x".to_owned(), String::new())].into(), ..a.clone() },
        ];
        let mut digests: Vec<u64> = others.iter().map(|other| digest(&service, [other])).collect();
        digests.extend([digest(&service, [&a]), digest(&ServiceId::new("t").unwrap(), [&a])]);
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }
}
