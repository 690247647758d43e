//! Random small worlds: few names, so that facts collide.

use crate::fixture::{event, name, overlay, schema, service, tenant, version};
use crate::model::Model;
use grey_core::change::{Change, Event};
use grey_core::database::{Database, DatabaseKind, Dialect};
use grey_core::decide::{Call, Metadata};
use grey_core::ids::{Name, ServiceId, TenantId};
use grey_core::instance::Instance;
use grey_core::key::{Fact, Key};
use grey_core::policy::{
    Balancing, Buckets, Canary, Experiment, Failover, HashKey, Match, Overlay, OverlayKind, Policy,
    Predicate, Scope, Strategy as Balance, Test, Unit, UnknownTenant, Variant, WEIGHT_SCALE,
};
use grey_core::schema::{Observation, SchemaVersion, SchemaWindow};
use grey_core::service::{Hold, Pin, Service, ServiceVersion};
use grey_core::table::Table;
use grey_core::tenant::{Tenant, TenantStatus};
use grey_core::version::Version;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;

pub(crate) const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
pub(crate) const SERVICES: [&str; 2] = ["billing", "checkout"];
pub(crate) const OVERLAYS: [&str; 3] = ["overlay-0", "overlay-1", "overlay-2"];
const VERSIONS: [&str; 4] = ["1.0", "1.1", "2.0-rc.1", "2.0"];
const SCHEMAS: [&str; 3] = ["1", "1.5", "2"];

fn some_tenant() -> impl Strategy<Value = TenantId> {
    select(&TENANTS[..]).prop_map(tenant)
}

fn some_service() -> impl Strategy<Value = ServiceId> {
    select(&SERVICES[..]).prop_map(service)
}

fn some_version() -> impl Strategy<Value = Version> {
    select(&VERSIONS[..]).prop_map(version)
}

fn some_schema() -> impl Strategy<Value = SchemaVersion> {
    select(&SCHEMAS[..]).prop_map(schema)
}

fn some_region() -> impl Strategy<Value = Name> {
    select(&["eu", "us"][..]).prop_map(name)
}

fn some_window() -> impl Strategy<Value = SchemaWindow> {
    let bounded =
        (option::of(some_schema()), option::of(some_schema())).prop_map(|(min, max)| match (min, max) {
            (Some(min), Some(max)) if min > max => SchemaWindow { min: Some(max), max: Some(min) },
            (min, max) => SchemaWindow { min, max },
        });
    prop_oneof![1 => Just(SchemaWindow::default()), 1 => bounded]
}

fn some_tenant_put() -> impl Strategy<Value = Tenant> {
    let status = prop_oneof![
        18 => Just(TenantStatus::Active),
        1 => Just(TenantStatus::Suspended),
        1 => Just(TenantStatus::Maintenance),
    ];
    let tier = option::of(select(&["gold", "free"][..]).prop_map(name));
    let residency = prop_oneof![2 => Just(Vec::new()), 1 => vec(some_region(), 1..3)];
    let labels = btree_map(Just(name("plan")), select(&["a", "b"][..]).prop_map(str::to_owned), 0..2);
    (some_tenant(), status, tier, option::of(some_region()), residency, labels).prop_map(
        |(id, status, tier, region, residency, labels)| Tenant {
            status,
            tier,
            region,
            residency,
            labels,
            ..Tenant::new(id)
        },
    )
}

fn some_match() -> impl Strategy<Value = Match> {
    let test = prop_oneof![
        Just(Test::Present),
        btree_set(select(&["web", "app"][..]).prop_map(str::to_owned), 0..2).prop_map(Test::In),
        select(&["w", "a", ""][..]).prop_map(|prefix| Test::Prefix(prefix.to_owned())),
    ];
    let predicate = test.prop_map(|test| Predicate { key: "channel".to_owned(), test });
    let values = btree_set(select(&["a", "b"][..]).prop_map(str::to_owned), 0..3);
    let narrow = (
        btree_set(some_tenant(), 0..2),
        btree_set(select(&["gold", "free"][..]).prop_map(name), 0..2),
        btree_set(some_region(), 0..2),
        btree_map(Just(name("plan")), values, 0..2),
        vec(predicate, 0..2),
    )
        .prop_map(|(tenants, tiers, regions, labels, metadata)| Match {
            tenants,
            tiers,
            regions,
            labels,
            metadata,
        });
    prop_oneof![2 => Just(Match::default()), 1 => narrow]
}

/// Every bucket belongs to one of so many arms or to nobody, in ranges.
fn some_buckets(arms: usize) -> impl Strategy<Value = Vec<Buckets>> {
    let cut = prop_oneof![Just(0), Just(5_000), Just(WEIGHT_SCALE), 0..=WEIGHT_SCALE];
    vec((cut, 0..=arms), 1..6).prop_map(move |mut cuts| {
        cuts.sort_unstable();
        let mut owned = vec![Buckets::default(); arms];
        let ends = cuts.iter().skip(1).map(|(cut, _)| *cut).chain([WEIGHT_SCALE]);
        for ((start, arm), end) in cuts.iter().zip(ends) {
            if let (Some(buckets), Ok(range)) =
                (owned.get_mut(*arm), Buckets::from_ranges(vec![(*start, end)]))
            {
                *buckets = buckets.union(&range);
            }
        }
        owned
    })
}

fn some_canary() -> impl Strategy<Value = OverlayKind> {
    let all = Buckets::first(WEIGHT_SCALE).unwrap();
    let buckets = prop_oneof![1 => some_buckets(1).prop_map(|mut arms| arms.remove(0)), 2 => Just(all)];
    (some_version(), some_version(), buckets)
        .prop_map(|(baseline, canary, buckets)| OverlayKind::Canary(Canary { baseline, canary, buckets }))
}

fn some_experiment() -> impl Strategy<Value = OverlayKind> {
    let arms = (1..3usize).prop_flat_map(|count| (vec(some_version(), count), some_buckets(count)));
    (arms, any::<bool>()).prop_map(|((versions, buckets), includes_pinned)| {
        let arm = |(at, (version, buckets))| Variant { id: overlay(&format!("arm-{at}")), version, buckets };
        let variants = versions.into_iter().zip(buckets).enumerate().map(arm).collect();
        OverlayKind::Experiment(Experiment { variants, includes_pinned })
    })
}

pub(crate) fn some_overlay() -> impl Strategy<Value = Overlay> {
    let unit = select(&[Unit::Tenant, Unit::User, Unit::Request][..]);
    let kind = prop_oneof![some_canary(), some_experiment()];
    let (id, layer) = (select(&OVERLAYS[..]).prop_map(overlay), select(&["pepper", "salt"][..]));
    (id, 0..3u32, layer, unit, some_match(), kind).prop_map(|(id, order, layer, unit, matching, kind)| {
        // A layer has one salt, so no two overlays differ in their layer alone.
        Overlay { id, order, layer: overlay(layer), salt: layer.to_owned(), unit, matching, kind }
    })
}

fn some_policy() -> impl Strategy<Value = Policy> {
    let failover = prop_oneof![
        1 => Just(Failover::Refuse),
        2 => Just(Failover::ToDefault),
        2 => Just(Failover::ToNearest),
        2 => vec(some_version(), 0..3).prop_map(Failover::ToVersions),
    ];
    let hash_key = prop_oneof![
        Just(HashKey::Tenant),
        Just(HashKey::User),
        Just(HashKey::Request),
        Just(HashKey::Metadata("channel".to_owned())),
    ];
    let strategy = select(
        &[
            Balance::RoundRobin,
            Balance::Random,
            Balance::WeightedRoundRobin,
            Balance::LeastConnections,
            Balance::PeakEwma,
            Balance::HealthAware,
            Balance::ConsistentHash,
        ][..],
    );
    let balancing = (strategy, select(&[Scope::Local, Scope::Global][..]), hash_key)
        .prop_map(|(strategy, scope, hash_key)| Balancing { strategy, scope, hash_key });
    let unknown_tenant = select(&[UnknownTenant::Refuse, UnknownTenant::UseDefault][..]);
    let roles = btree_set(select(&["ops", "qa"][..]).prop_map(name), 0..2);
    (unknown_tenant, balancing, failover, roles).prop_map(
        |(unknown_tenant, balancing, failover, override_roles)| Policy {
            unknown_tenant,
            balancing,
            failover,
            override_roles,
            stateless: true,
        },
    )
}

fn some_pin() -> impl Strategy<Value = Pin> {
    (some_version(), prop::bool::weighted(0.2)).prop_map(|(version, locked)| Pin { version, locked })
}

fn some_hold() -> impl Strategy<Value = Hold> {
    (some_version(), 0..3u64).prop_map(|(to, until_ms)| Hold { to, until_ms })
}

fn some_version_put() -> impl Strategy<Value = Fact> {
    (some_service(), some_version(), some_window()).prop_map(|(service, version, window)| {
        Fact::Version(Box::new(ServiceVersion { service, version, window }))
    })
}

fn some_service_put() -> impl Strategy<Value = Fact> {
    (some_service(), some_version()).prop_map(|(id, default)| Fact::Service(Service { id, default }))
}

fn some_observation() -> impl Strategy<Value = Observation> {
    (some_schema(), 0..9u64).prop_map(|(schema, at_ms)| Observation { schema, at_ms })
}

fn some_database() -> impl Strategy<Value = Database> {
    select(&["db1", "db2"][..]).prop_map(|name| Database {
        kind: DatabaseKind::Database,
        dialect: Dialect::Postgres,
        server: "db:5432".to_owned(),
        name: name.to_owned(),
        schema: String::new(),
        direct_server: String::new(),
    })
}

fn some_fact() -> impl Strategy<Value = Fact> {
    let held = || (some_tenant(), some_service());
    prop_oneof![
        8 => some_tenant_put().prop_map(|tenant| Fact::Tenant(Box::new(tenant))),
        4 => some_service_put(),
        10 => some_version_put(),
        6 => (some_service(), some_policy()).prop_map(|(service, policy)| Fact::Policy(service, policy)),
        10 => (some_service(), some_overlay()).prop_map(|(service, overlay)| Fact::Overlay(service, Box::new(overlay))),
        10 => (held(), some_pin()).prop_map(|((tenant, service), pin)| Fact::Pin(tenant, service, pin)),
        7 => (held(), some_observation())
            .prop_map(|((tenant, service), seen)| Fact::Schema(tenant, service, seen)),
        1 => (held(), some_hold()).prop_map(|((tenant, service), hold)| Fact::Hold(tenant, service, hold)),
        1 => (held(), some_database())
            .prop_map(|((tenant, service), database)| Fact::Database(tenant, service, Box::new(database))),
    ]
}

fn some_key() -> impl Strategy<Value = Key> {
    let held = || (some_tenant(), some_service());
    prop_oneof![
        2 => some_tenant().prop_map(Key::Tenant),
        2 => some_service().prop_map(Key::Service),
        2 => (some_service(), some_version()).prop_map(|(service, version)| Key::Version(service, version)),
        1 => some_service().prop_map(Key::Policy),
        2 => (some_service(), select(&OVERLAYS[..]))
            .prop_map(|(service, id)| Key::Overlay(service, overlay(id))),
        2 => held().prop_map(|(tenant, service)| Key::Pin(tenant, service)),
        3 => held().prop_map(|(tenant, service)| Key::Schema(tenant, service)),
        2 => held().prop_map(|(tenant, service)| Key::Hold(tenant, service)),
        1 => held().prop_map(|(tenant, service)| Key::Database(tenant, service)),
    ]
}

pub(crate) fn some_change() -> impl Strategy<Value = Change> {
    prop_oneof![9 => some_fact().prop_map(Change::Put), 1 => some_key().prop_map(Change::Removed)]
}

/// Most services and versions declared, so that histories seldom end in "unknown service".
fn beginning() -> impl Strategy<Value = Vec<Change>> {
    let default = |id: &'static str| {
        some_version().prop_map(move |default| Fact::Service(Service { id: service(id), default }))
    };
    let declared = vec(some_version_put(), 4..12);
    let tenants = vec(some_tenant_put().prop_map(|tenant| Fact::Tenant(Box::new(tenant))), 2..8);
    (SERVICES.map(default), declared, tenants).prop_map(|(services, declared, tenants)| {
        services.into_iter().chain(declared).chain(tenants).map(Change::Put).collect()
    })
}

/// Any events, also such as the control plane would never write.
pub(crate) fn history() -> impl Strategy<Value = Vec<Event>> {
    (beginning(), vec(vec(some_change(), 1..4), 0..20)).prop_map(|(first, rest)| {
        (1u64..)
            .zip(std::iter::once(first).chain(rest))
            .map(|(revision, changes)| event(revision, changes))
            .collect()
    })
}

/// Events as the control plane writes them.
pub(crate) fn valid_history() -> impl Strategy<Value = Vec<Event>> {
    history().prop_map(|mut events| {
        let mut model = Model::default();
        for event in &mut events {
            event.changes.retain(|change| {
                let admitted = model.admits(change);
                if admitted {
                    model.change(change);
                }
                admitted
            });
        }
        events
    })
}

/// Instances by service.
pub(crate) fn some_instances() -> impl Strategy<Value = BTreeMap<ServiceId, Vec<Instance>>> {
    let place = (option::of(some_region()), option::of(select(&["a", "b"][..]).prop_map(name)));
    let flags =
        (prop::bool::weighted(0.9), prop::bool::weighted(0.85), prop_oneof![1 => Just(0u32), 8 => 1..4u32]);
    let one = (some_version(), place, flags);
    let list = vec(one, 2..16).prop_map(|list| {
        let build = |(at, (version, (region, zone), (enabled, healthy, weight)))| {
            let base = crate::fixture::instance(&format!("i{at}"), "1");
            Instance { version, region, zone, enabled, healthy, weight, ..base }
        };
        list.into_iter().enumerate().map(build).collect()
    });
    prop::array::uniform2(list).prop_map(|lists| SERVICES.map(service).into_iter().zip(lists).collect())
}

/// The values of a [`Call`].
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    names: [&'static str; 2],
    metadata: BTreeMap<String, String>,
    unit: [&'static str; 2],
    place: [&'static str; 2],
    wish: [&'static str; 2],
}

impl Asked {
    pub(crate) fn call(&self) -> Call<'_> {
        Call {
            metadata: Metadata::Map(&self.metadata),
            user: self.unit[0],
            request_key: self.unit[1],
            region: self.place[0],
            zone: self.place[1],
            override_version: self.wish[0],
            role: self.wish[1],
            ..Call::new(self.names[0], self.names[1])
        }
    }
}

pub(crate) fn asked() -> impl Strategy<Value = Asked> {
    let metadata = btree_map(
        Just("channel".to_owned()),
        select(&["web", "app", "phone"][..]).prop_map(str::to_owned),
        0..2,
    );
    let names = (
        select(&["acme", "globex", "initech", "acme", "globex", "initech", "nobody"][..]),
        prop_oneof![9 => select(&SERVICES[..]), 1 => Just("nothing")],
    );
    let unit = (select(&["", "ann", "bob", "eve"][..]), select(&["", "r1", "r2", "r3"][..]));
    let place = (select(&["", "eu", "us", "mars"][..]), select(&["", "a", "b", "c"][..]));
    let versions = &["", "", "", "", "v1.0", "1.1", "2.0.0", "v2.0-rc.1", "9", "latest"][..];
    let wish = (select(versions), select(&["", "ops", "qa", "guest"][..]));
    (names, metadata, unit, place, wish).prop_map(|(names, metadata, unit, place, wish)| Asked {
        names: names.into(),
        metadata,
        unit: unit.into(),
        place: place.into(),
        wish: wish.into(),
    })
}

/// The table and the model of a history, with instances arriving last.
pub(crate) fn fold(events: &[Event], instances: &BTreeMap<ServiceId, Vec<Instance>>) -> (Table, Model) {
    let (mut table, mut model) = (Table::default(), Model::default());
    for event in events {
        table.apply(event).unwrap();
        event.changes.iter().for_each(|change| model.change(change));
    }
    for (service, list) in instances {
        table.set_instances(service, list.clone());
    }
    model.instances.clone_from(instances);
    (table, model)
}
