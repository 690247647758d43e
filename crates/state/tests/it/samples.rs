//! Test data.

use grey_core::change::{Change, Epoch, Event, Position, Principal, Revision};
use grey_core::ids::{InstanceId, Name, OverlayId, ServiceId, TenantId};
use grey_core::instance::Instance;
use grey_core::key::{Fact, Key};
use grey_core::policy::{Buckets, Canary, Match, Overlay, OverlayKind, Unit};
use grey_core::record::Record;
use grey_core::service::{Service, ServiceVersion};
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use grey_proto::arbitrary;
use grey_state::feed::FeedEntry;
use grey_state::instances::ServiceInstances;
use grey_state::{Digests, State};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest wait for anything that should happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// A read that does not wait.
pub(crate) const NOW: Duration = Duration::ZERO;

/// The epoch of most tests.
pub(crate) const EPOCH: Epoch = Epoch(3);

pub(crate) fn position(epoch: u64, revision: u64) -> Position {
    Position { epoch: Epoch(epoch), revision: Revision(revision) }
}

pub(crate) fn tenant_put(tenant: Tenant) -> Change {
    Change::Put(Fact::Tenant(Box::new(tenant)))
}

pub(crate) fn service_put(service: &ServiceId, default: &Version) -> Change {
    Change::Put(Fact::Service(Service { id: service.clone(), default: default.clone() }))
}

pub(crate) fn overlay_id(text: &str) -> OverlayId {
    OverlayId::new(text).unwrap()
}

/// A canary from v1 to v2 in a layer of its own.
pub(crate) fn canary(id: &str, weight: u32) -> Overlay {
    let buckets = Buckets::first(weight).unwrap();
    Overlay {
        id: overlay_id(id),
        order: 0,
        layer: overlay_id(id),
        salt: format!("salt of {id}"),
        unit: Unit::Tenant,
        matching: Match::default(),
        kind: OverlayKind::Canary(Canary { baseline: version("v1"), canary: version("v2"), buckets }),
    }
}

pub(crate) fn tenant_id(text: &str) -> TenantId {
    TenantId::new(text).unwrap()
}

pub(crate) fn service_id(text: &str) -> ServiceId {
    ServiceId::new(text).unwrap()
}

pub(crate) fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn event(revision: u64, changes: Vec<Change>) -> Event {
    Event {
        revision: Revision(revision),
        at_ms: 1_700_000_000_000,
        principal: Principal::named("ada"),
        reason: format!("step {revision}"),
        changes,
        ..Event::default()
    }
}

pub(crate) fn entry(revision: u64) -> FeedEntry {
    let tenant = Tenant::new(tenant_id(&format!("t{revision}")));
    FeedEntry { event: event(revision, vec![tenant_put(tenant)]), digests: Digests::one(u64::MAX - revision) }
}

/// `count` instances of each of the versions.
pub(crate) fn instances(service: &str, versions: &[&str], count: usize) -> ServiceInstances {
    let one = |at: &str, n: usize| Instance {
        id: InstanceId::new(&format!("{at}-{n:03}:8080#DEFAULT")).unwrap(),
        version: version(at),
        address: format!("10.0.0.{n}:8080").into(),
        region: Some(name("eu")),
        zone: None,
        weight: 100,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: None,
        metadata: [("start".to_owned(), "a \"b\" ü".to_owned())].into(),
    };
    let instances = versions.iter().flat_map(|at| (0..count).map(move |n| one(at, n)));
    let mut instances: Vec<Instance> = instances.collect();
    instances.sort_by(|one, other| one.id.cmp(&other.id));
    ServiceInstances { service: service_id(service), instances }
}

fn runner(seed: u8) -> TestRunner {
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]))
}

/// The same records for the same seed; no two about the same tenant or service.
pub(crate) fn records(seed: u8, count: usize) -> Vec<Record> {
    let mut runner = runner(seed);
    let records = (0..count).map(|_| arbitrary::record().new_tree(&mut runner).unwrap().current());
    normal(records.collect())
}

/// The same events for the same seed, from `first` on, about few tenants and services.
pub(crate) fn events(seed: u8, first: u64, count: usize) -> Vec<Event> {
    let mut runner = runner(seed);
    let changes = proptest::collection::vec((arbitrary::change(), 0..3_usize, 0..3_usize), 0..8);
    let next = |revision| {
        let changes = changes.new_tree(&mut runner).unwrap().current();
        event(revision, changes.into_iter().map(|(change, t, s)| about(change, t, s)).collect())
    };
    (first..).take(count).map(next).collect()
}

/// The change, but about one of a few tenants, services and overlays.
fn about(change: Change, tenant: usize, service: usize) -> Change {
    let overlay = overlay_id(&format!("o{tenant}"));
    let (tenant, service) = (tenant_id(&format!("t{tenant}")), service_id(&format!("s{service}")));
    match change {
        Change::Put(fact) => Change::Put(match fact {
            Fact::Tenant(put) => Fact::Tenant(Box::new(Tenant { id: tenant, ..*put })),
            Fact::Service(put) => Fact::Service(Service { id: service, ..put }),
            Fact::Version(put) => Fact::Version(Box::new(ServiceVersion { service, ..*put })),
            Fact::Policy(_, policy) => Fact::Policy(service, policy),
            Fact::Overlay(_, put) => Fact::Overlay(service, Box::new(Overlay { id: overlay, ..*put })),
            Fact::Pin(_, _, pin) => Fact::Pin(tenant, service, pin),
            Fact::Schema(_, _, seen) => Fact::Schema(tenant, service, seen),
            Fact::Hold(_, _, hold) => Fact::Hold(tenant, service, hold),
            Fact::Database(_, _, database) => Fact::Database(tenant, service, database),
        }),
        Change::Removed(key) => Change::Removed(match key {
            Key::Tenant(_) => Key::Tenant(tenant),
            Key::Service(_) => Key::Service(service),
            Key::Version(_, version) => Key::Version(service, version),
            Key::Policy(_) => Key::Policy(service),
            Key::Overlay(_, _) => Key::Overlay(service, overlay),
            Key::Pin(_, _) => Key::Pin(tenant, service),
            Key::Schema(_, _) => Key::Schema(tenant, service),
            Key::Hold(_, _) => Key::Hold(tenant, service),
            Key::Database(_, _) => Key::Database(tenant, service),
        }),
    }
}

/// Records by id, with everything in them that has no order in order.
pub(crate) fn normal(records: Vec<Record>) -> Vec<Record> {
    let mut by_id = BTreeMap::new();
    for mut record in records {
        let id = match &mut record {
            Record::Service(record) => {
                record.versions.sort_by(|one, other| one.version.cmp(&other.version));
                record.versions.dedup_by(|one, other| one.version == other.version);
                format!("s {}", record.service.id)
            }
            Record::Tenant(record) => {
                record.pins.sort_by(|one, other| one.0.cmp(&other.0));
                record.pins.dedup_by(|one, other| one.0 == other.0);
                record.schemas.sort_by(|one, other| one.0.cmp(&other.0));
                record.holds.sort_by(|one, other| one.0.cmp(&other.0));
                record.schemas.dedup_by(|one, other| one.0 == other.0);
                format!("t {}", record.tenant.id)
            }
        };
        by_id.insert(id, record);
    }
    by_id.into_values().collect()
}

/// What a loader gets, checked to be services before tenants.
pub(crate) async fn load(state: &State) -> Vec<Record> {
    let mut records = Vec::new();
    state.projection.load(&mut |batch| records.extend(batch)).await.unwrap();
    let tenants = records.iter().skip_while(|record| matches!(record, Record::Service(_)));
    assert!(tenants.clone().all(|record| matches!(record, Record::Tenant(_))));
    let count = records.len();
    let records = normal(records);
    assert_eq!(records.len(), count, "nothing is handed out twice");
    records
}
