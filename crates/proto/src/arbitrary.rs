//! Generators of core's types for property tests: any value that the conversions accept.

use crate::convert::MAX_TIME_MS;
use grey_core::change::{Change, Event, Record, Revision, ServiceRecord, TenantRecord};
use grey_core::ids::{InstanceId, Name, OverlayId, ServiceId, TenantId};
use grey_core::instance::{Instance, MAX_WEIGHT};
use grey_core::policy::{
    Balancing, Failover, HashKey, Match, Overlay, OverlayKind, Policy, Predicate, Scope, Strategy as Rule,
    Test, Unit, UnknownTenant, Variant, WEIGHT_SCALE,
};
use grey_core::schema::{SchemaVersion, SchemaWindow};
use grey_core::service::{Pin, Service, ServiceVersion};
use grey_core::tenant::{Tenant, TenantStatus};
use grey_core::version::Version;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::str::FromStr;

const SLUG: &str = "[a-z0-9][a-z0-9._-]{0,62}";

fn parsed<T: FromStr<Err: std::fmt::Debug> + std::fmt::Debug>(
    pattern: &'static str,
) -> impl Strategy<Value = T> + Clone {
    pattern.prop_map(|text| text.parse().expect("every text of the pattern is valid"))
}

/// Any character, control characters included; at most 128 bytes.
fn text() -> impl Strategy<Value = String> + Clone {
    "(?s).{0,32}"
}

/// Any tenant id.
pub fn tenant_id() -> impl Strategy<Value = TenantId> + Clone {
    parsed(SLUG)
}

/// Any service id.
pub fn service_id() -> impl Strategy<Value = ServiceId> + Clone {
    parsed(SLUG)
}

/// Any name.
pub fn name() -> impl Strategy<Value = Name> + Clone {
    parsed(SLUG)
}

/// Any overlay id.
pub fn overlay_id() -> impl Strategy<Value = OverlayId> + Clone {
    parsed(SLUG)
}

/// Any instance id.
pub fn instance_id() -> impl Strategy<Value = InstanceId> + Clone {
    parsed("[A-Za-z0-9\\[][A-Za-z0-9._:#@\\[\\]/-]{0,159}")
}

/// Any version, of few numbers, so that two are often equal.
pub fn version() -> impl Strategy<Value = Version> + Clone {
    parsed("v?[0-9]{1}(\\.(0|[1-9][0-9]{0,2})){0,2}(-[a-z]{1,3}(\\.[1-9]){0,2})?")
}

/// Any schema version.
pub fn schema_version() -> impl Strategy<Value = SchemaVersion> + Clone {
    parsed("[0-9]{1,14}(\\.[0-9]{1,3}){0,5}")
}

/// Any window whose ends are in order.
pub fn schema_window() -> impl Strategy<Value = SchemaWindow> + Clone {
    (option::of(schema_version()), option::of(schema_version())).prop_map(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => SchemaWindow { min: Some(a.clone().min(b.clone())), max: Some(a.max(b)) },
        (min, max) => SchemaWindow { min, max },
    })
}

/// A time that a message can carry, in milliseconds since the Unix epoch.
pub fn time_ms() -> impl Strategy<Value = u64> + Clone {
    0..=MAX_TIME_MS
}

/// Any tenant.
pub fn tenant() -> impl Strategy<Value = Tenant> {
    let status = prop_oneof![
        Just(TenantStatus::Active),
        Just(TenantStatus::Suspended),
        Just(TenantStatus::Maintenance)
    ];
    (
        tenant_id(),
        "(?s).{1,50}",
        status,
        option::of(name()),
        option::of(name()),
        vec(name(), 0..4),
        btree_map(name(), text(), 0..4),
    )
        .prop_map(|(id, name, status, tier, region, residency, labels)| Tenant {
            id,
            name,
            status,
            tier,
            region,
            residency,
            labels,
        })
}

/// Any service.
pub fn service() -> impl Strategy<Value = Service> {
    (service_id(), version()).prop_map(|(id, default)| Service { id, default })
}

/// Any version of any service.
pub fn service_version() -> impl Strategy<Value = ServiceVersion> {
    (service_id(), version(), schema_window()).prop_map(|(service, version, window)| ServiceVersion {
        service,
        version,
        window,
    })
}

/// Any pin.
pub fn pin() -> impl Strategy<Value = Pin> {
    (version(), any::<bool>()).prop_map(|(version, locked)| Pin { version, locked })
}

/// Any valid policy.
pub fn policy() -> impl Strategy<Value = Policy> {
    let unknown_tenant = prop_oneof![Just(UnknownTenant::Refuse), Just(UnknownTenant::UseDefault)];
    let roles = btree_set(name(), 0..3);
    (unknown_tenant, vec(overlay(), 0..4), balancing(), failover(), roles, any::<bool>()).prop_map(
        |(unknown_tenant, mut overlays, balancing, failover, override_roles, stateless)| {
            let mut ids = BTreeSet::new();
            overlays.retain(|overlay| ids.insert(overlay.id.clone()));
            if !stateless {
                overlays.iter_mut().for_each(|overlay| overlay.unit = Unit::Tenant);
            }
            Policy { unknown_tenant, overlays, balancing, failover, override_roles, stateless }
        },
    )
}

/// Any overlay; one by user or request needs a stateless service.
pub fn overlay() -> impl Strategy<Value = Overlay> {
    let unit = prop_oneof![Just(Unit::Tenant), Just(Unit::User), Just(Unit::Request)];
    let kind = prop_oneof![experiment(), canary()];
    (overlay_id(), "(?s).{1,32}", unit, matching(), kind)
        .prop_map(|(id, salt, unit, matching, kind)| Overlay { id, salt, unit, matching, kind })
}

fn experiment() -> impl Strategy<Value = OverlayKind> {
    let arms = btree_map(overlay_id(), (version(), 0..=WEIGHT_SCALE / 4), 1..=4);
    arms.prop_map(|arms| {
        let variant = |(id, (version, weight))| Variant { id, version, weight };
        OverlayKind::Experiment(arms.into_iter().map(variant).collect())
    })
}

fn canary() -> impl Strategy<Value = OverlayKind> {
    let pair = (version(), version()).prop_filter("two versions", |(baseline, canary)| baseline != canary);
    (pair, 0..=WEIGHT_SCALE).prop_map(|((baseline, canary), weight)| OverlayKind::Canary {
        baseline,
        canary,
        weight,
    })
}

/// Any match.
pub fn matching() -> impl Strategy<Value = Match> {
    let values = || btree_set(text(), 0..3);
    let test = prop_oneof![
        Just(Test::Present),
        btree_set(text(), 0..3).prop_map(Test::In),
        text().prop_map(Test::Prefix)
    ];
    let predicate = ("(?s).{1,32}", test).prop_map(|(key, test)| Predicate { key, test });
    (
        btree_set(tenant_id(), 0..3),
        btree_set(name(), 0..3),
        btree_set(name(), 0..3),
        btree_map(name(), values(), 0..3),
        vec(predicate, 0..3),
    )
        .prop_map(|(tenants, tiers, regions, labels, metadata)| Match {
            tenants,
            tiers,
            regions,
            labels,
            metadata,
        })
}

/// Any balancing.
pub fn balancing() -> impl Strategy<Value = Balancing> {
    let strategy = proptest::sample::select(vec![
        Rule::RoundRobin,
        Rule::Random,
        Rule::WeightedRoundRobin,
        Rule::LeastConnections,
        Rule::PeakEwma,
        Rule::HealthAware,
        Rule::ConsistentHash,
    ]);
    let scope = prop_oneof![Just(Scope::Local), Just(Scope::Global)];
    let hash_key = prop_oneof![
        Just(HashKey::Tenant),
        Just(HashKey::User),
        Just(HashKey::Request),
        "(?s).{1,32}".prop_map(HashKey::Metadata)
    ];
    (strategy, scope, hash_key).prop_map(|(strategy, scope, hash_key)| Balancing {
        strategy,
        scope,
        hash_key,
    })
}

/// Any failover.
pub fn failover() -> impl Strategy<Value = Failover> {
    prop_oneof![
        Just(Failover::Refuse),
        Just(Failover::ToDefault),
        Just(Failover::ToNearest),
        vec(version(), 0..4).prop_map(Failover::ToVersions)
    ]
}

/// Any instance.
pub fn instance() -> impl Strategy<Value = Instance> {
    let host = prop_oneof![
        "[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?",
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|ip| format!("[{ip}]"))
    ];
    let address = (host, 1..=u16::MAX).prop_map(|(host, port)| format!("{host}:{port}"));
    (
        (instance_id(), version(), address),
        (option::of(name()), option::of(name()), 0..=MAX_WEIGHT),
        (any::<bool>(), any::<bool>(), any::<bool>(), option::of(name())),
        btree_map(text(), text(), 0..4),
    )
        .prop_map(|((id, version, address), (region, zone, weight), flags, metadata)| {
            let (enabled, healthy, ephemeral, source) = flags;
            Instance {
                id,
                version,
                address: address.into(),
                region,
                zone,
                weight,
                enabled,
                healthy,
                ephemeral,
                source,
                metadata,
            }
        })
}

/// The instances of any service, by id.
pub fn service_instances() -> impl Strategy<Value = (ServiceId, Vec<Instance>)> {
    let by_id = vec(instance(), 0..6).prop_map(|mut instances| {
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances.dedup_by(|a, b| a.id == b.id);
        instances
    });
    (service_id(), by_id)
}

/// Any change.
pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        tenant().prop_map(Change::TenantPut),
        tenant_id().prop_map(Change::TenantRemoved),
        service().prop_map(Change::ServicePut),
        service_id().prop_map(Change::ServiceRemoved),
        service_version().prop_map(Change::VersionPut),
        (service_id(), version()).prop_map(|(service, version)| Change::VersionRemoved { service, version }),
        (service_id(), policy()).prop_map(|(service, policy)| Change::PolicyPut { service, policy }),
        (tenant_id(), service_id(), pin()).prop_map(|(tenant, service, pin)| Change::PinPut {
            tenant,
            service,
            pin
        }),
        (tenant_id(), service_id()).prop_map(|(tenant, service)| Change::PinRemoved { tenant, service }),
        (tenant_id(), service_id(), option::of(schema_version()), time_ms()).prop_map(
            |(tenant, service, schema, at_ms)| Change::SchemaObserved { tenant, service, schema, at_ms }
        ),
    ]
}

/// Any event.
pub fn event() -> impl Strategy<Value = Event> {
    (1..=u64::MAX, time_ms(), text(), text(), vec(change(), 0..5)).prop_map(
        |(revision, at_ms, actor, reason, changes)| Event {
            revision: Revision(revision),
            at_ms,
            actor,
            reason,
            changes,
        },
    )
}

/// Any tenant with its pins and schemas, each service once.
pub fn tenant_record() -> impl Strategy<Value = TenantRecord> {
    let schemas = btree_map(service_id(), (schema_version(), time_ms()), 0..4);
    (tenant(), btree_map(service_id(), pin(), 0..4), schemas).prop_map(|(tenant, pins, schemas)| {
        TenantRecord {
            tenant,
            pins: pins.into_iter().collect(),
            schemas: schemas.into_iter().map(|(service, (schema, at_ms))| (service, schema, at_ms)).collect(),
        }
    })
}

/// Any service with its versions (each once, the default among them) and policy. The policy may name others.
pub fn service_record() -> impl Strategy<Value = ServiceRecord> {
    let windows = btree_map(version(), schema_window(), 0..4);
    (service(), windows, schema_window(), policy()).prop_map(|(service, mut windows, window, policy)| {
        windows.entry(service.default.clone()).or_insert(window);
        let id = service.id.clone();
        let version = |(version, window)| ServiceVersion { service: id.clone(), version, window };
        ServiceRecord { versions: windows.into_iter().map(version).collect(), service, policy }
    })
}

/// Any part of a snapshot.
pub fn record() -> impl Strategy<Value = Record> {
    prop_oneof![tenant_record().prop_map(Record::Tenant), service_record().prop_map(Record::Service)]
}
