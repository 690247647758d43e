//! Whatever is commanded: the log folds into exactly the state that the tables hold.

use std::collections::BTreeMap;

use grey_control_plane::command::{Command, Commands, Intent, Proposed, Writer};
use grey_control_plane::database::Database;
use grey_control_plane::metrics::Metrics;
use grey_core::change::{Change, EntryHash, Event, Principal, Revision};
use grey_core::ids::{Name, OverlayId, ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::moves::moves;
use grey_core::policy::{Buckets, Canary, Failover, Match, Overlay, OverlayKind, Policy, Unit};
use grey_core::record::{Record, ServiceRecord, TenantRecord};
use grey_core::schema::{Observation, SchemaVersion, SchemaWindow};
use grey_core::service::{Hold, Pin, Service, ServiceVersion};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use grey_runtime::Telemetry;
use grey_state::publisher::{EventLog, Following, Tip};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Backend, Store, config, unfollowed};

fn a_tenant() -> impl Strategy<Value = TenantId> {
    select(vec!["a", "a.b", "a-b", "b"]).prop_map(|id| TenantId::new(id).unwrap())
}

fn a_service() -> impl Strategy<Value = ServiceId> {
    select(vec!["x", "y"]).prop_map(|id| ServiceId::new(id).unwrap())
}

fn a_version() -> impl Strategy<Value = Version> {
    select(vec!["1", "2", "3"]).prop_map(|version| Version::new(version).unwrap())
}

fn a_schema() -> impl Strategy<Value = Option<SchemaVersion>> {
    prop::option::of(select(vec!["1", "1.1", "2"]).prop_map(|schema| SchemaVersion::new(schema).unwrap()))
}

fn tenant_put() -> impl Strategy<Value = Change> {
    (a_tenant(), select(vec!["Z", "Ä"]), prop::option::of(Just(Name::new("gold").unwrap()))).prop_map(
        |(id, name, tier)| {
            Change::Put(Fact::Tenant(Box::new(Tenant { name: name.to_owned(), tier, ..Tenant::new(id) })))
        },
    )
}

fn policy_put() -> impl Strategy<Value = Change> {
    let failover = prop_oneof![
        Just(Failover::Refuse),
        Just(Failover::ToNearest),
        prop::collection::vec(a_version(), 1..3).prop_map(Failover::ToVersions),
    ];
    (a_service(), failover, any::<bool>()).prop_map(|(service, failover, stateless)| {
        Change::Put(Fact::Policy(service, Policy { failover, stateless, ..Policy::default() }))
    })
}

fn an_overlay() -> impl Strategy<Value = OverlayId> {
    select(vec!["c", "d", "e"]).prop_map(|id| OverlayId::new(id).unwrap())
}

fn overlay_put() -> impl Strategy<Value = Change> {
    let unit = select(vec![Unit::Tenant, Unit::User]);
    let layer = select(vec!["one", "two"]).prop_map(|id| OverlayId::new(id).unwrap());
    (a_service(), an_overlay(), layer, unit, a_version(), 0..6_000_u32).prop_map(
        |(service, id, layer, unit, canary, weight)| {
            let (baseline, buckets) = (Version::new("3").unwrap(), Buckets::first(weight).unwrap());
            let kind = OverlayKind::Canary(Canary { baseline, canary, buckets });
            let (order, salt, matching) = (0, "of a request".to_owned(), Match::default());
            Change::Put(Fact::Overlay(
                service,
                Box::new(Overlay { id, order, layer, salt, unit, matching, kind }),
            ))
        },
    )
}

fn version_put() -> impl Strategy<Value = Change> {
    (a_service(), a_version(), a_schema()).prop_map(|(service, version, min)| {
        let window = SchemaWindow { min, max: None };
        Change::Put(Fact::Version(Box::new(ServiceVersion { service, version, window })))
    })
}

pub(crate) fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => tenant_put(),
        1 => a_tenant().prop_map(|id| Change::Removed(Key::Tenant(id))),
        3 => (a_service(), a_version())
            .prop_map(|(id, default)| Change::Put(Fact::Service(Service { id, default }))),
        1 => a_service().prop_map(|id| Change::Removed(Key::Service(id))),
        4 => version_put(),
        1 => (a_service(), a_version())
            .prop_map(|(service, version)| Change::Removed(Key::Version(service, version))),
        2 => policy_put(),
        1 => a_service().prop_map(|id| Change::Removed(Key::Policy(id))),
        4 => overlay_put(),
        1 => (a_service(), an_overlay()).prop_map(|(service, id)| Change::Removed(Key::Overlay(service, id))),
        6 => (a_tenant(), a_service(), a_version(), any::<bool>()).prop_map(|(tenant, service, version, locked)| {
            Change::Put(Fact::Pin(tenant, service, Pin { version, locked }))
        }),
        2 => (a_tenant(), a_service()).prop_map(|(tenant, service)| Change::Removed(Key::Pin(tenant, service))),
        1 => (a_tenant(), a_service(), a_version(), 0..10_u64).prop_map(|(tenant, service, to, until_ms)| {
            Change::Put(Fact::Hold(tenant, service, Hold { to, until_ms }))
        }),
        1 => (a_tenant(), a_service()).prop_map(|(tenant, service)| Change::Removed(Key::Hold(tenant, service))),
        4 => (a_tenant(), a_service(), a_schema(), 0..10_u64).prop_map(|(tenant, service, schema, at_ms)| {
            match schema {
                Some(schema) => Change::Put(Fact::Schema(tenant, service, Observation { schema, at_ms })),
                None => Change::Removed(Key::Schema(tenant, service)),
            }
        }),
    ]
}

fn a_proposal() -> impl Strategy<Value = Proposed> {
    (a_change(), prop::option::weighted(0.1, 0..30_u64))
        .prop_map(|(change, expected)| Proposed { change, expected })
}

/// The state that a log stands for, told by the contract alone.
#[derive(Default, Debug, PartialEq)]
struct Folded {
    services: BTreeMap<ServiceId, ServiceRecord>,
    tenants: BTreeMap<TenantId, TenantRecord>,
}

impl Folded {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Put(fact) => self.put(fact),
            Change::Removed(key) => self.remove(&key),
        }
    }

    fn put(&mut self, fact: Fact) {
        match fact {
            Fact::Tenant(tenant) => {
                let record = self.tenants.entry(tenant.id.clone());
                record.or_insert_with(|| Tenant::clone(&tenant).into()).tenant = Tenant::clone(&tenant);
            }
            Fact::Service(service) => {
                let record =
                    self.services.entry(service.id.clone()).or_insert_with(|| service.clone().into());
                record.service = service;
            }
            Fact::Version(version) => {
                let record = self.services.get_mut(&version.service).unwrap();
                record.versions.retain(|known| known.version != version.version);
                record.versions.push(*version);
            }
            Fact::Policy(service, policy) => self.services.get_mut(&service).unwrap().policy = policy,
            Fact::Overlay(service, overlay) => {
                let record = self.services.get_mut(&service).unwrap();
                record.overlays.retain(|known| known.id != overlay.id);
                record.overlays.push(*overlay);
            }
            Fact::Pin(tenant, service, pin) => {
                let record = self.tenants.get_mut(&tenant).unwrap();
                record.pins.retain(|(known, _)| *known != service);
                record.pins.push((service, pin));
            }
            Fact::Schema(tenant, service, seen) => {
                let record = self.tenants.get_mut(&tenant).unwrap();
                record.schemas.retain(|(known, _)| *known != service);
                record.schemas.push((service, seen));
            }
            Fact::Hold(tenant, service, hold) => {
                let record = self.tenants.get_mut(&tenant).unwrap();
                assert!(record.holds.iter().all(|(known, _)| *known != service), "two moves at once");
                record.holds.push((service, hold));
            }
            Fact::Database(..) => unreachable!("none is proposed"),
        }
    }

    fn remove(&mut self, key: &Key) {
        match key {
            Key::Tenant(tenant) => drop(self.tenants.remove(tenant).unwrap()),
            Key::Service(service) => drop(self.services.remove(service).unwrap()),
            Key::Version(service, version) => {
                self.services.get_mut(service).unwrap().versions.retain(|known| known.version != *version);
            }
            Key::Policy(service) => self.services.get_mut(service).unwrap().policy = Policy::default(),
            Key::Overlay(service, id) => {
                self.services.get_mut(service).unwrap().overlays.retain(|known| known.id != *id);
            }
            Key::Pin(tenant, service) => {
                self.tenants.get_mut(tenant).unwrap().pins.retain(|(known, _)| known != service);
            }
            Key::Hold(tenant, service) => {
                self.tenants.get_mut(tenant).unwrap().holds.retain(|(known, _)| known != service);
            }
            Key::Database(..) => unreachable!("none is proposed"),
            Key::Schema(tenant, service) => {
                self.tenants.get_mut(tenant).unwrap().schemas.retain(|(known, _)| known != service);
            }
        }
    }

    /// Overlays of one layer have one salt and one unit, and no unit is in two of them.
    fn check_layers(&self) {
        for record in self.services.values() {
            for (at, one) in record.overlays.iter().enumerate() {
                for other in record.overlays.iter().skip(at + 1) {
                    if one.layer == other.layer {
                        assert_eq!((&one.salt, one.unit), (&other.salt, other.unit));
                        assert!(one.buckets().is_disjoint(&other.buckets()));
                    } else {
                        assert_ne!(one.salt, other.salt);
                    }
                }
                assert!(one.salt != "of a request" && (one.unit == Unit::Tenant || record.policy.stateless));
            }
        }
    }

    fn insert(&mut self, record: Record) {
        match record {
            Record::Service(record) => {
                let id = record.service.id.clone();
                assert!(self.services.insert(id, record).is_none() && self.tenants.is_empty());
            }
            Record::Tenant(record) => {
                assert!(self.tenants.insert(record.tenant.id.clone(), record).is_none());
            }
        }
    }

    fn sort(&mut self) {
        for record in self.services.values_mut() {
            record.versions.sort_by(|one, other| one.version.cmp(&other.version));
            record.overlays.sort_by(|one, other| one.id.cmp(&other.id));
        }
        for record in self.tenants.values_mut() {
            record.pins.sort_by(|(one, _), (other, _)| one.cmp(other));
            record.schemas.sort_by(|(one, _), (other, _)| one.cmp(other));
            record.holds.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
    }
}

fn command(changes: Vec<Proposed>) -> Command {
    Command { principal: Principal::named("tester"), intent: Intent::Changes(changes), ..Command::default() }
}

struct Bench {
    database: Database,
    commands: Commands,
    stop: CancellationToken,
    _store: Store,
}

impl Bench {
    async fn new(backend: Backend) -> Self {
        let store = Store::new(backend).await;
        let config = config(&store.url);
        let telemetry = Telemetry::start("grey-control-plane", &config.telemetry).unwrap();
        let database = Database::open(&config.database).await.unwrap();
        let position = database.head().await.unwrap();
        let metrics = Metrics::new(telemetry.meter());
        let publisher = grey_state::publisher::Handle::default();
        let (writer, commands) = Writer::new(
            database.clone(),
            position,
            unfollowed(),
            config.commands,
            publisher,
            grey_state::State::memory().heartbeats,
            metrics,
        );
        let stop = CancellationToken::new();
        tokio::spawn(writer.run(stop.clone()));
        Self { database, commands, stop, _store: store }
    }

    /// Every event after a tip, if the log holds what that names.
    async fn follow(&self, tip: &Tip) -> Option<Following> {
        EventLog::follow(&self.database, tip, 100_000).await.unwrap()
    }

    async fn log(&self) -> Vec<Event> {
        self.database.events(Revision(0), 100_000).await.unwrap()
    }

    async fn snapshot(&self) -> (Revision, Vec<Record>) {
        let (to, mut from) = mpsc::channel(1);
        let collect = async {
            let mut records = Vec::new();
            while let Some(batch) = from.recv().await {
                records.extend(batch);
            }
            records
        };
        let (snapshot, records) = tokio::join!(EventLog::snapshot(&self.database, to), collect);
        let snapshot = snapshot.unwrap();
        let revision = snapshot.position.revision;
        let tip = Tip { revision, hash: snapshot.hash };
        assert!(self.follow(&tip).await.is_some(), "what it read is what the log holds");
        (revision, records)
    }
}

async fn check(backend: Backend, commands: Vec<Vec<Proposed>>) {
    let bench = Bench::new(backend).await;
    let (mut revision, mut table) = (0, Table::default());
    for changes in commands {
        if let Ok(committed) = bench.commands.execute(command(changes)).await {
            let reached = committed.position.revision.0;
            assert!(reached == revision || reached == revision + 1);
            let since = bench.database.events(Revision(revision), 1).await.unwrap();
            let changes = since.first().map_or(&[][..], |event| &event.changes);
            assert_eq!(committed.moves, moves(&table, changes, 5), "told on a table at the log's head");
            since.iter().for_each(|event| table.apply(event).unwrap());
            revision = reached;
        }
    }
    let events = bench.log().await;
    assert_eq!(
        events.iter().map(|event| event.revision.0).collect::<Vec<_>>(),
        (1..=revision).collect::<Vec<_>>()
    );
    let before_the_first = Tip { revision: Revision(0), hash: EntryHash::default() };
    let following = bench.follow(&before_the_first).await.unwrap();
    assert_eq!((&following.events, following.tip.revision.0), (&events, revision));
    let tip = following.tip;
    assert_eq!(bench.follow(&tip).await, Some(Following { events: Vec::new(), tip }));
    let of_another_log = Tip { hash: EntryHash([7; 32]), ..tip };
    assert_eq!(bench.follow(&of_another_log).await, None);
    let (position, records) = bench.snapshot().await;
    assert_eq!(position.0, revision);

    let (mut folded, mut folded_table) = (Folded::default(), Table::default());
    for event in events {
        folded_table.apply(&event).unwrap();
        assert!(!event.changes.is_empty());
        event.changes.into_iter().for_each(|change| folded.apply(change));
        folded.check_layers();
    }
    let (mut stored, mut stored_table) = (Folded::default(), Table::default());
    for record in records {
        stored_table.insert(record.clone());
        stored.insert(record);
    }
    folded.sort();
    stored.sort();
    assert_eq!(stored, folded);
    assert_eq!(stored_table.digest(), folded_table.digest());
    bench.stop.cancel();
}

fn run(backend: Backend, cases: u32) {
    let runtime = Runtime::new().unwrap();
    let commands = prop::collection::vec(prop::collection::vec(a_proposal(), 1..5), 1..50);
    let mut runner =
        TestRunner::new(ProptestConfig { cases, max_shrink_iters: 200, ..ProptestConfig::default() });
    let outcome = runner.run(&commands, |commands| {
        runtime.block_on(check(backend, commands));
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn sqlite_log_folds_into_the_tables() {
    run(Backend::Sqlite, 24);
}

#[test]
fn postgres_log_folds_into_the_tables() {
    run(Backend::Postgres, 12);
}

#[tokio::test]
async fn a_snapshot_of_several_batches_is_complete() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let bench = Bench::new(backend).await;
        let service = Service { id: ServiceId::new("x").unwrap(), default: Version::new("1").unwrap() };
        let put = Command::single(Principal::named("tester"), Change::Put(Fact::Service(service)));
        bench.commands.execute(put).await.unwrap();
        let id = |i: u32| TenantId::new(&format!("t{i}")).unwrap();
        let propose = |change| Proposed { change, expected: None };
        let tenants = (0..450).map(|i| propose(Change::Put(Fact::Tenant(Box::new(Tenant::new(id(i)))))));
        let pins = (0..450).map(|i| {
            let pin = Pin { version: Version::new("1").unwrap(), locked: false };
            propose(Change::Put(Fact::Pin(id(i), ServiceId::new("x").unwrap(), pin)))
        });
        let changes = tenants.chain(pins).collect();
        let command = Command { expected_log: Some(1), ..command(changes) };
        bench.commands.execute(command).await.unwrap();
        let (revision, records) = bench.snapshot().await;
        let pinned = records.iter().filter(|record| matches!(record, Record::Tenant(t) if t.pins.len() == 1));
        assert_eq!((revision.0, records.len(), pinned.count()), (2, 451, 450));
        bench.stop.cancel();
    }
}

#[tokio::test]
async fn a_snapshot_amid_writes_is_exact_at_its_position() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let bench = Bench::new(backend).await;
        let propose = |change| Proposed { change, expected: None };
        let service = || ServiceId::new("x").unwrap();
        let id = |i: usize| TenantId::new(&format!("t{i}")).unwrap();
        let put = Service { id: service(), default: Version::new("1").unwrap() };
        let tenants = (0..300).map(|i| propose(Change::Put(Fact::Tenant(Box::new(Tenant::new(id(i)))))));
        let changes = std::iter::once(propose(Change::Put(Fact::Service(put)))).chain(tenants).collect();
        bench.commands.execute(command(changes)).await.unwrap();

        // Each command flips the pin of a tenant of each batch, so that a torn read shows.
        let stop = CancellationToken::new();
        let writing = tokio::spawn({
            let (commands, stop) = (bench.commands.clone(), stop.clone());
            async move {
                let mut locked = false;
                while !stop.is_cancelled() {
                    locked = !locked;
                    let pin = Pin { version: Version::new("1").unwrap(), locked };
                    let pins =
                        [0, 150, 299].map(|i| propose(Change::Put(Fact::Pin(id(i), service(), pin.clone()))));
                    commands.execute(command(pins.into())).await.unwrap();
                }
            }
        });
        let mut taken = Vec::new();
        while taken.len() < 8 {
            taken.push(bench.snapshot().await);
        }
        stop.cancel();
        writing.await.unwrap();
        let events = bench.log().await;
        for (revision, records) in taken {
            let (mut folded, mut stored) = (Table::default(), Table::default());
            for event in events.iter().take_while(|event| event.revision <= revision) {
                folded.apply(event).unwrap();
            }
            records.into_iter().for_each(|record| stored.insert(record));
            assert_eq!(folded.digest(), stored.digest(), "{backend:?} {revision}");
        }
        bench.stop.cancel();
    }
}
