//! A table with every outcome that a call can have, and no choice left to chance.

use std::collections::BTreeSet;

use grey_core::change::{Change, Epoch, Event, Position, Revision};
use grey_core::ids::{InstanceId, Name, OverlayId, ServiceId, TenantId};
use grey_core::instance::Instance;
use grey_core::key::Fact;
use grey_core::policy::{
    Balancing, Buckets, Canary, Experiment, Failover, Match, Overlay, OverlayKind, Policy, Predicate, Scope,
    Strategy, Test, Unit, UnknownTenant, Variant, WEIGHT_SCALE,
};
use grey_core::schema::{Observation, SchemaVersion, SchemaWindow};
use grey_core::service::{Hold, Pin, Service, ServiceVersion};
use grey_core::table::Table;
use grey_core::tenant::{Tenant, TenantStatus};
use grey_core::version::Version;

pub(super) fn table() -> Table {
    let mut table = Table::default();
    table.set_position(Position { epoch: Epoch(1), revision: Revision(0) });
    let changes = [services(), tenants(), overlays()].concat();
    table.apply(&Event { revision: Revision(1), at_ms: 1, changes, ..Event::default() }).unwrap();
    for name in ["payment", "open", "turns"] {
        let instances = vec![instance(name, "v1", "a"), instance(name, "v2", "b"), instance(name, "v3", "b")];
        table.set_instances(&service(name), instances);
    }
    table
}

fn service(id: &str) -> ServiceId {
    ServiceId::new(id).unwrap()
}

fn tenant(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

fn put(fact: Fact) -> Change {
    Change::Put(fact)
}

fn services() -> Vec<Change> {
    let newer = SchemaWindow { min: Some(SchemaVersion::new("2").unwrap()), max: None };
    let mut changes = Vec::new();
    for id in ["payment", "open", "turns", "empty"] {
        changes.push(put(Fact::Service(Service { id: service(id), default: version("v1") })));
        for (text, window) in [
            ("v1", SchemaWindow::default()),
            ("v2", SchemaWindow::default()),
            ("v3", newer.clone()),
            ("v4", newer.clone()),
        ] {
            let (service, version) = (service(id), version(text));
            changes.push(put(Fact::Version(Box::new(ServiceVersion { service, version, window }))));
        }
    }
    let policy = Policy {
        override_roles: BTreeSet::from([name("tester")]),
        failover: Failover::ToNearest,
        stateless: true,
        ..Policy::default()
    };
    let open = Policy { unknown_tenant: UnknownTenant::UseDefault, ..policy.clone() };
    let balancing =
        Balancing { strategy: Strategy::RoundRobin, scope: Scope::Global, ..policy.balancing.clone() };
    let turns = Policy { balancing, ..policy.clone() };
    for (id, policy) in [("payment", policy), ("open", open), ("turns", turns)] {
        changes.push(put(Fact::Policy(service(id), policy)));
    }
    changes
}

fn tenants() -> Vec<Change> {
    let mut changes = Vec::new();
    for (id, status) in [
        ("acme", TenantStatus::Active),
        ("beta", TenantStatus::Active),
        ("gamma", TenantStatus::Suspended),
        ("held", TenantStatus::Active),
        ("old", TenantStatus::Active),
        ("far", TenantStatus::Active),
    ] {
        changes.push(put(Fact::Tenant(Box::new(Tenant { status, ..Tenant::new(tenant(id)) }))));
    }
    for (id, text) in [("beta", "v2"), ("old", "v3"), ("far", "v4")] {
        let pin = Pin { version: version(text), locked: id == "old" };
        changes.push(put(Fact::Pin(tenant(id), service("payment"), pin)));
    }
    for (id, text) in [("old", "1.2.3"), ("far", "20240320001.7")] {
        let seen = Observation { schema: SchemaVersion::new(text).unwrap(), at_ms: 1 };
        changes.push(put(Fact::Schema(tenant(id), service("payment"), seen)));
    }
    let hold = Hold { to: version("v2"), until_ms: 1 };
    changes.push(put(Fact::Hold(tenant("held"), service("payment"), hold)));
    changes
}

fn overlays() -> Vec<Change> {
    let overlay = |id: &str, order, matching, kind| Overlay {
        id: OverlayId::new(id).unwrap(),
        order,
        layer: OverlayId::new(id).unwrap(),
        salt: "salt".to_owned(),
        unit: Unit::User,
        matching,
        kind,
    };
    let half = Buckets::first(WEIGHT_SCALE / 2).unwrap();
    let on_web = Predicate { key: "channel".to_owned(), test: Test::Prefix("w".to_owned()) };
    let variant =
        Variant { id: OverlayId::new("arm").unwrap(), version: version("v2"), buckets: half.clone() };
    let experiment = OverlayKind::Experiment(Experiment { variants: vec![variant], includes_pinned: true });
    let canary =
        OverlayKind::Canary(Canary { baseline: version("v1"), canary: version("v3"), buckets: half });
    [
        overlay("web", 0, Match { metadata: vec![on_web], ..Match::default() }, experiment),
        overlay("third", 1, Match::default(), canary),
    ]
    .map(|overlay| put(Fact::Overlay(service("payment"), Box::new(overlay))))
    .to_vec()
}

fn instance(of: &str, text: &str, zone: &str) -> Instance {
    let id = format!("{of}-{text}");
    Instance {
        address: format!("{id}.test:80").into(),
        id: InstanceId::new(&id).unwrap(),
        version: version(text),
        region: (text != "v1").then(|| name("eu")),
        zone: (text != "v1").then(|| name(zone)),
        weight: 1,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: None,
        metadata: [("id", id.as_str()), ("empty", ""), ("", "nameless")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    }
}
