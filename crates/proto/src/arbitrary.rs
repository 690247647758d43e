//! Generators of core's types for property tests: any value that the conversions accept.

use crate::convert::MAX_TIME_MS;
use grey_core::change::{Change, EntryHash, Event, FormatLevel, Principal, Revision};
use grey_core::database::{Database, DatabaseKind, Dialect};
use grey_core::ids::{InstanceId, Name, OverlayId, ServiceId, TenantId};
use grey_core::instance::{Instance, MAX_WEIGHT};
use grey_core::key::Fact;
use grey_core::policy::{
    Balancing, Buckets, Canary, Experiment, Failover, HashKey, Match, Overlay, OverlayKind, Policy,
    Predicate, Scope, Strategy as Rule, Test, Unit, UnknownTenant, Variant, WEIGHT_SCALE,
};
use grey_core::record::{Record, ServiceRecord, TenantRecord};
use grey_core::schema::{Observation, SchemaVersion, SchemaWindow};
use grey_core::service::{Hold, Pin, Service, ServiceVersion};
use grey_core::tenant::{Tenant, TenantStatus};
use grey_core::text::plain;
use grey_core::version::Version;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::str::FromStr;

const SLUG: &str = "[a-z0-9][a-z0-9._-]{0,62}";

fn parsed<T: FromStr<Err: std::fmt::Debug> + std::fmt::Debug>(
    pattern: &'static str,
) -> impl Strategy<Value = T> + Clone {
    pattern.prop_map(|text| text.parse().expect("every text of the pattern is valid"))
}

/// Any plain text; at most 128 bytes.
fn text() -> impl Strategy<Value = String> + Clone {
    "(?s).{0,32}".prop_map(|text| plain(&text).into_owned())
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
        "(?s).{1,50}".prop_map(|name| plain(&name).into_owned()),
        status,
        option::of(name()),
        option::of(name()),
        btree_set(name(), 0..4).prop_map(|regions| regions.into_iter().rev().collect()),
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

/// Any hold.
pub fn hold() -> impl Strategy<Value = Hold> {
    (version(), time_ms()).prop_map(|(to, until_ms)| Hold { to, until_ms })
}

/// Any valid policy.
pub fn policy() -> impl Strategy<Value = Policy> {
    let unknown_tenant = prop_oneof![Just(UnknownTenant::Refuse), Just(UnknownTenant::UseDefault)];
    let roles = btree_set(name(), 0..3);
    (unknown_tenant, balancing(), failover(), roles, any::<bool>()).prop_map(
        |(unknown_tenant, balancing, failover, override_roles, stateless)| Policy {
            unknown_tenant,
            balancing,
            failover,
            override_roles,
            stateless,
        },
    )
}

/// Any overlay; one by user or request needs a stateless service.
pub fn overlay() -> impl Strategy<Value = Overlay> {
    let unit = prop_oneof![Just(Unit::Tenant), Just(Unit::User), Just(Unit::Request)];
    let kind = prop_oneof![experiment(), canary()];
    (overlay_id(), any::<u32>(), overlay_id(), "(?s).{1,32}", unit, matching(), kind).prop_map(
        |(id, order, layer, salt, unit, matching, kind)| Overlay {
            id,
            order,
            layer,
            salt,
            unit,
            matching,
            kind,
        },
    )
}

/// Any sets of buckets that are disjoint, as many as there are weights.
fn buckets(weights: Vec<(u32, u32)>) -> Vec<Buckets> {
    let mut taken = Buckets::default();
    let mut sets = Vec::with_capacity(weights.len());
    for (gap, weight) in weights {
        let blocked = taken.resized(taken.weight() + gap, &taken).unwrap_or_else(|| taken.clone());
        let set = Buckets::default().resized(weight, &blocked).unwrap_or_default();
        taken = blocked.union(&set);
        sets.push(set);
    }
    sets
}

fn experiment() -> impl Strategy<Value = OverlayKind> {
    let weight = (0..=WEIGHT_SCALE / 20, 0..=WEIGHT_SCALE / 5);
    let arms = btree_map(overlay_id(), (version(), weight), 1..=4);
    (arms, any::<bool>()).prop_map(|(arms, includes_pinned)| {
        let sets = buckets(arms.values().map(|(_, weight)| *weight).collect());
        let variant = |((id, (version, _)), buckets)| Variant { id, version, buckets };
        let variants = arms.into_iter().zip(sets).map(variant).collect();
        OverlayKind::Experiment(Experiment { variants, includes_pinned })
    })
}

fn canary() -> impl Strategy<Value = OverlayKind> {
    let pair = (version(), version()).prop_filter("two versions", |(baseline, canary)| baseline != canary);
    (pair, 0..=WEIGHT_SCALE).prop_map(|((baseline, canary), weight)| {
        let buckets = Buckets::first(weight).unwrap_or_default();
        OverlayKind::Canary(Canary { baseline, canary, buckets })
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

/// Any schema that was seen.
pub fn observation() -> impl Strategy<Value = Observation> {
    (schema_version(), time_ms()).prop_map(|(schema, at_ms)| Observation { schema, at_ms })
}

/// Any database, also such as cannot be registered.
pub fn database() -> impl Strategy<Value = Database> {
    let kind =
        prop_oneof![Just(DatabaseKind::Database), Just(DatabaseKind::Schema), Just(DatabaseKind::File)];
    let dialect = prop_oneof![Just(Dialect::Postgres), Just(Dialect::MySql), Just(Dialect::Sqlite)];
    (kind, dialect, text(), text(), text(), text()).prop_map(
        |(kind, dialect, server, name, schema, direct_server)| Database {
            kind,
            dialect,
            server,
            name,
            schema,
            direct_server,
        },
    )
}

/// Any fact.
pub fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        tenant().prop_map(|tenant| Fact::Tenant(Box::new(tenant))),
        service().prop_map(Fact::Service),
        service_version().prop_map(|version| Fact::Version(Box::new(version))),
        (service_id(), policy()).prop_map(|(service, policy)| Fact::Policy(service, policy)),
        (service_id(), overlay()).prop_map(|(service, overlay)| Fact::Overlay(service, Box::new(overlay))),
        (tenant_id(), service_id(), pin()).prop_map(|(tenant, service, pin)| Fact::Pin(tenant, service, pin)),
        (tenant_id(), service_id(), observation())
            .prop_map(|(tenant, service, seen)| Fact::Schema(tenant, service, seen)),
        (tenant_id(), service_id(), hold())
            .prop_map(|(tenant, service, hold)| Fact::Hold(tenant, service, hold)),
        (tenant_id(), service_id(), database()).prop_map(|(tenant, service, database)| Fact::Database(
            tenant,
            service,
            Box::new(database)
        )),
    ]
}

/// Any change.
pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![fact().prop_map(Change::Put), fact().prop_map(|fact| Change::Removed(fact.key()))]
}

/// Any event.
pub fn event() -> impl Strategy<Value = Event> {
    let principal = (text(), text(), text()).prop_map(|(id, role, via)| Principal { id, role, via });
    let envelope = (principal, text(), text(), 1..u32::MAX, any::<[u8; 32]>());
    let sealed = btree_map("[a-z]{1,8}", vec(any::<u8>(), 0..8), 0..3);
    (1..=u64::MAX, time_ms(), envelope, sealed, vec(change(), 0..5)).prop_map(
        |(revision, at_ms, (principal, reason, cause, level, previous), sealed, changes)| Event {
            revision: Revision(revision),
            at_ms,
            principal,
            reason,
            cause,
            level: FormatLevel(level),
            previous: EntryHash(previous),
            sealed,
            changes,
        },
    )
}

/// Any tenant with its pins, schemas and holds, each service once.
pub fn tenant_record() -> impl Strategy<Value = TenantRecord> {
    let schemas = btree_map(service_id(), observation(), 0..4);
    let holds = btree_map(service_id(), hold(), 0..2);
    (tenant(), btree_map(service_id(), pin(), 0..4), schemas, holds).prop_map(
        |(tenant, pins, schemas, holds)| TenantRecord {
            tenant,
            pins: pins.into_iter().collect(),
            schemas: schemas.into_iter().collect(),
            holds: holds.into_iter().collect(),
        },
    )
}

/// Any service with its versions (each once, the default among them), policy and overlays. Policy and overlays may
/// name others.
pub fn service_record() -> impl Strategy<Value = ServiceRecord> {
    let windows = btree_map(version(), schema_window(), 0..4);
    let overlays = vec(overlay(), 0..4).prop_map(|overlays| {
        let by_id: BTreeMap<_, _> =
            overlays.into_iter().map(|overlay| (overlay.id.clone(), overlay)).collect();
        by_id.into_values().collect()
    });
    (service(), windows, schema_window(), policy(), overlays).prop_map(
        |(service, mut windows, window, policy, overlays)| {
            windows.entry(service.default.clone()).or_insert(window);
            let id = service.id.clone();
            let version = |(version, window)| ServiceVersion { service: id.clone(), version, window };
            let versions = windows.into_iter().map(version).collect();
            ServiceRecord { service, versions, policy, overlays }
        },
    )
}

/// Any part of a snapshot.
pub fn record() -> impl Strategy<Value = Record> {
    prop_oneof![tenant_record().prop_map(Record::Tenant), service_record().prop_map(Record::Service)]
}
