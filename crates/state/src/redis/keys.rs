//! The keys. Braces are literal: they are the cluster's hash tag and keep a unit in one slot.

use grey_core::ids::{Name, ServiceId, TenantId};
use grey_core::table::Locality;
use grey_core::version::Version;

pub(super) const CHANGES: &str = "grey:changes";
pub(super) const INSTANCES: &str = "grey:instances";
/// The digest of every service's list. Its tag keeps it in the slot of [`INSTANCES`].
pub(super) const INSTANCE_DIGESTS: &str = "{grey:instances}:digests";
pub(super) const ROUTERS: &str = "grey:routers";
/// The routers that said goodbye. Its tag keeps it in the slot of [`ROUTERS`].
pub(super) const ROUTERS_LEFT: &str = "{grey:routers}:left";
pub(super) const SERVICES: &str = "services";
pub(super) const TENANTS: &str = "tenants";
pub(super) const ACTIVE_TENANTS: &str = "active_tenants";

pub(super) fn lease(name: &Name) -> String {
    format!("grey:lease:{name}")
}

pub(super) fn requests(name: &Name) -> String {
    format!("grey:requests:{name}")
}

pub(super) fn status(name: &Name) -> String {
    format!("grey:status:{name}")
}

pub(super) fn router(router: &str) -> String {
    format!("grey:router:{router}")
}

pub(super) fn tenant_metadata(tenant: &str) -> String {
    format!("tenant:{{{tenant}}}:metadata")
}

pub(super) fn tenant_services(tenant: &str) -> String {
    format!("tenant:{{{tenant}}}:services")
}

pub(super) fn tenant_schemas(tenant: &str) -> String {
    format!("tenant:{{{tenant}}}:db_schema")
}

pub(super) fn service_policy(service: &str) -> String {
    format!("service:{{{service}}}:policy")
}

/// The position of the last write to a service's policy.
pub(super) fn service_guard(service: &str) -> String {
    format!("service:{{{service}}}:guard")
}

/// The versions that have a hash of instances, the digest of the list, and the token of the last writer.
pub(super) fn instance_index(service: &str) -> String {
    format!("service:{{{service}}}:instances")
}

pub(super) fn version_instances(service: &str, version: &str) -> String {
    format!("service:{{{service}}}:version:{version}:instances")
}

/// The turns of the version's instances in one place: everywhere, `:<region>` or `:<region>/<zone>`.
pub(super) fn counter(service: &ServiceId, version: &Version, locality: Locality<'_>) -> String {
    let place = match locality {
        Locality::Everywhere => String::new(),
        Locality::Region(_) | Locality::Zone { .. } => format!(":{locality}"),
    };
    format!("service:{{{service}}}:version:{version}:counter{place}")
}

/// Whether the key is part of a projection: nothing else is ever deleted when one is rebuilt.
pub(super) fn is_projected(key: &str) -> bool {
    let parts = |prefix: &str| key.strip_prefix(prefix).and_then(|rest| rest.split_once("}:"));
    if let Some((tenant, part)) = parts("tenant:{") {
        return TenantId::new(tenant).is_ok() && ["metadata", "services", "db_schema"].contains(&part);
    }
    parts("service:{")
        .is_some_and(|(id, part)| ServiceId::new(id).is_ok() && ["policy", "guard"].contains(&part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn a_rebuild_deletes_the_keys_of_projections_and_no_others() {
        for key in [
            tenant_metadata("acme"),
            tenant_services("acme"),
            tenant_schemas("a.b"),
            service_policy("pay"),
            service_guard("pay"),
        ] {
            assert!(is_projected(&key), "{key}");
        }
        let (service, version) = (ServiceId::new("pay").unwrap(), Version::new("2.1").unwrap());
        for key in [
            instance_index("pay"),
            version_instances("pay", "v2.1"),
            counter(&service, &version, Locality::Everywhere),
            INSTANCE_DIGESTS.to_owned(),
            "tenant:{A}:metadata".to_owned(),
            "tenant:{acme}:metadata:mine".to_owned(),
            "tenant:acme:metadata".to_owned(),
            CHANGES.to_owned(),
        ] {
            assert!(!is_projected(&key), "{key}");
        }
    }

    #[test]
    fn each_group_of_instances_has_a_counter_of_its_own_in_its_services_slot() {
        let (service, version) = (ServiceId::new("pay").unwrap(), Version::new("2.1").unwrap());
        let (region, zone) = (Name::new("eu").unwrap(), Name::new("a").unwrap());
        let (region, zone) = (Some(&region), Some(&zone));
        for (locality, place) in [
            (Locality::Everywhere, ""),
            (Locality::Region(region.unwrap()), ":eu"),
            (Locality::Zone { region, zone }, ":eu/a"),
            (Locality::Zone { region: None, zone }, ":/a"),
            (Locality::Zone { region, zone: None }, ":eu/"),
        ] {
            let key = format!("service:{{pay}}:version:v2.1:counter{place}");
            assert_eq!(counter(&service, &version, locality), key);
        }
    }
}
