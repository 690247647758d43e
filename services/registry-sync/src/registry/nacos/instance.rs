//! From Nacos' instances to what every registry tells.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use grey_core::ids::Name;
use grey_core::instance::MAX_WEIGHT;
use nacos_sdk::api::naming::ServiceInstance;

use crate::registry::Registered;

/// The name that Nacos gives to a cluster that nobody named.
const UNNAMED: &str = "DEFAULT";

/// Nacos' weight of an ordinary instance is 1, ours is 100.
const WEIGHT_SCALE: f64 = 100.0;

/// The instances of one service in one namespace and group, in the order of their ids.
///
/// Nacos tells instances apart by address and cluster; here the address alone does, so of two with the same address the
/// one that is routable, else the first, is taken.
pub(super) fn registered(instances: Vec<ServiceInstance>) -> Vec<Registered> {
    let mut by_id: BTreeMap<String, Registered> = BTreeMap::new();
    for instance in instances {
        let instance = convert(instance);
        match by_id.get(&instance.id) {
            Some(known) if is_routable(known) || !is_routable(&instance) => {
                tracing::debug!(instance.id = %instance.id, "address listed twice, one is left out");
            }
            _ => drop(by_id.insert(instance.id.clone(), instance)),
        }
    }
    by_id.into_values().collect()
}

fn is_routable(instance: &Registered) -> bool {
    instance.enabled && instance.healthy && instance.weight > 0
}

fn convert(instance: ServiceInstance) -> Registered {
    let address = if instance.ip.parse::<Ipv6Addr>().is_ok() {
        format!("[{}]:{}", instance.ip, instance.port)
    } else {
        format!("{}:{}", instance.ip, instance.port)
    };
    Registered {
        id: address.clone(),
        address,
        version: None,
        region: None,
        zone: instance.cluster_name.as_deref().and_then(zone),
        weight: weight(instance.weight),
        enabled: instance.enabled,
        healthy: instance.healthy,
        ephemeral: instance.ephemeral,
        metadata: instance.metadata.into_iter().collect(),
    }
}

/// A Nacos cluster is a zone if it has a name of its own that is one; otherwise the metadata may name the zone.
fn zone(cluster: &str) -> Option<String> {
    let cluster = Some(cluster).filter(|cluster| *cluster != UNNAMED)?.to_ascii_lowercase();
    cluster.parse::<Name>().is_ok().then_some(cluster)
}

/// Hundredths, where only 0 and less mean none: a tiny share is not nothing.
fn weight(weight: f64) -> u32 {
    if weight.is_nan() || weight <= 0.0 {
        return 0;
    }
    let scaled = (weight * WEIGHT_SCALE).round().clamp(1.0, f64::from(MAX_WEIGHT));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range of weights"
    )]
    let weight = scaled as u32;
    weight
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code panics")]
mod tests {
    use super::*;

    fn instance(ip: &str, port: i32) -> ServiceInstance {
        ServiceInstance { ip: ip.to_owned(), port, ..ServiceInstance::default() }
    }

    #[test]
    fn every_field_is_carried_along() {
        let listed = ServiceInstance {
            weight: 0.5,
            healthy: false,
            enabled: false,
            ephemeral: false,
            cluster_name: Some("HZ".to_owned()),
            metadata: [("version".to_owned(), "v1.0".to_owned())].into(),
            ..instance("10.0.0.1", 80)
        };
        let expected = Registered {
            id: "10.0.0.1:80".to_owned(),
            address: "10.0.0.1:80".to_owned(),
            zone: Some("hz".to_owned()),
            weight: 50,
            metadata: [("version".to_owned(), "v1.0".to_owned())].into(),
            ..Registered::default()
        };
        assert_eq!(registered(vec![listed]), [expected]);
        let plain = &registered(vec![instance("::1", 80)])[0];
        assert_eq!((plain.address.as_str(), plain.weight, plain.zone.as_ref()), ("[::1]:80", 100, None));
        assert!(plain.enabled && plain.healthy && plain.ephemeral);
    }

    #[test]
    fn weights_stay_in_range_and_a_share_is_never_nothing() {
        let expected =
            [(1.0, 100), (0.0, 0), (-1.0, 0), (f64::NAN, 0), (0.001, 1), (2.345, 235), (1e9, 10_000)];
        for (nacos, ours) in expected {
            assert_eq!(weight(nacos), ours, "{nacos}");
        }
    }

    #[test]
    fn cluster_that_is_no_zone_is_none() {
        assert_eq!(zone("DEFAULT"), None);
        assert_eq!(zone("no zone!"), None);
        assert_eq!(zone("cn-hangzhou-b").as_deref(), Some("cn-hangzhou-b"));
    }

    #[test]
    fn address_in_two_clusters_is_one_instance_and_a_routable_one_wins() {
        let sick = ServiceInstance { healthy: false, ..instance("10.0.0.1", 80) };
        let second = ServiceInstance { cluster_name: Some("b".to_owned()), ..instance("10.0.0.1", 80) };
        let third = ServiceInstance { cluster_name: Some("c".to_owned()), ..instance("10.0.0.1", 80) };
        let merged = registered(vec![sick, second, third, instance("10.0.0.0", 80)]);
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[1].zone.as_deref(), Some("b"));
    }
}
