//! Whatever is commanded: the log folds into exactly the state that the tables hold.

use std::collections::BTreeMap;

use grey_control_plane::command::{Command, Commands, Proposed, Writer};
use grey_control_plane::database::Database;
use grey_control_plane::metrics::Metrics;
use grey_core::change::{Change, Event, Record, Revision, ServiceRecord, TenantRecord};
use grey_core::ids::{Name, ServiceId, TenantId};
use grey_core::policy::{Failover, Policy};
use grey_core::schema::{SchemaVersion, SchemaWindow};
use grey_core::service::{Pin, Service, ServiceVersion};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use grey_runtime::Telemetry;
use grey_state::publisher::EventLog;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Backend, Store, config};

fn a_tenant() -> impl Strategy<Value = TenantId> {
    select(vec!["a", "a.b", "a-b", "b"]).prop_map(|id| TenantId::new(id).unwrap())
}

fn a_service() -> impl Strategy<Value = ServiceId> {
    select(vec!["x", "y"]).prop_map(|id| ServiceId::new(id).unwrap())
}

fn a_version() -> impl Strategy<Value = Version> {
    select(vec!["1", "2", "2.1"]).prop_map(|version| Version::new(version).unwrap())
}

fn a_schema() -> impl Strategy<Value = Option<SchemaVersion>> {
    prop::option::of(select(vec!["1", "1.1", "2"]).prop_map(|schema| SchemaVersion::new(schema).unwrap()))
}

fn tenant_put() -> impl Strategy<Value = Change> {
    (a_tenant(), select(vec!["Z", "Ä"]), prop::option::of(Just(Name::new("gold").unwrap()))).prop_map(
        |(id, name, tier)| Change::TenantPut(Tenant { name: name.to_owned(), tier, ..Tenant::new(id) }),
    )
}

fn policy_put() -> impl Strategy<Value = Change> {
    let failover = prop_oneof![
        Just(Failover::Refuse),
        Just(Failover::ToNearest),
        prop::collection::vec(a_version(), 1..3).prop_map(Failover::ToVersions),
    ];
    (a_service(), failover, any::<bool>()).prop_map(|(service, failover, stateless)| Change::PolicyPut {
        service,
        policy: Policy { failover, stateless, ..Policy::default() },
    })
}

fn version_put() -> impl Strategy<Value = Change> {
    (a_service(), a_version(), a_schema()).prop_map(|(service, version, min)| {
        Change::VersionPut(ServiceVersion { service, version, window: SchemaWindow { min, max: None } })
    })
}

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => tenant_put(),
        1 => a_tenant().prop_map(Change::TenantRemoved),
        3 => (a_service(), a_version())
            .prop_map(|(id, default)| Change::ServicePut(Service { id, default })),
        1 => a_service().prop_map(Change::ServiceRemoved),
        4 => version_put(),
        1 => (a_service(), a_version()).prop_map(|(service, version)| Change::VersionRemoved { service, version }),
        2 => policy_put(),
        6 => (a_tenant(), a_service(), a_version(), any::<bool>()).prop_map(|(tenant, service, version, locked)| {
            Change::PinPut { tenant, service, pin: Pin { version, locked } }
        }),
        2 => (a_tenant(), a_service()).prop_map(|(tenant, service)| Change::PinRemoved { tenant, service }),
        4 => (a_tenant(), a_service(), a_schema(), 0..10_u64).prop_map(|(tenant, service, schema, at_ms)| {
            Change::SchemaObserved { tenant, service, schema, at_ms }
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
            Change::TenantPut(tenant) => {
                let new = TenantRecord { tenant: tenant.clone(), pins: Vec::new(), schemas: Vec::new() };
                let record = self.tenants.entry(tenant.id.clone()).or_insert(new);
                record.tenant = tenant;
            }
            Change::TenantRemoved(tenant) => drop(self.tenants.remove(&tenant)),
            Change::ServicePut(service) => {
                let (versions, policy) = (Vec::new(), Policy::default());
                let new = ServiceRecord { service: service.clone(), versions, policy };
                let record = self.services.entry(service.id.clone()).or_insert(new);
                record.service = service;
            }
            Change::ServiceRemoved(service) => drop(self.services.remove(&service)),
            Change::VersionPut(version) => {
                let record = self.services.get_mut(&version.service).unwrap();
                record.versions.retain(|known| known.version != version.version);
                record.versions.push(version);
            }
            Change::VersionRemoved { service, version } => {
                let record = self.services.get_mut(&service).unwrap();
                record.versions.retain(|known| known.version != version);
            }
            Change::PolicyPut { service, policy } => self.services.get_mut(&service).unwrap().policy = policy,
            Change::PinPut { tenant, service, pin } => {
                let record = self.tenants.get_mut(&tenant).unwrap();
                record.pins.retain(|(known, _)| *known != service);
                record.pins.push((service, pin));
            }
            Change::PinRemoved { tenant, service } => {
                self.tenants.get_mut(&tenant).unwrap().pins.retain(|(known, _)| *known != service);
            }
            Change::SchemaObserved { tenant, service, schema, at_ms } => {
                let record = self.tenants.get_mut(&tenant).unwrap();
                record.schemas.retain(|(known, _, _)| *known != service);
                record.schemas.extend(schema.map(|schema| (service, schema, at_ms)));
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
        }
        for record in self.tenants.values_mut() {
            record.pins.sort_by(|(one, _), (other, _)| one.cmp(other));
            record.schemas.sort_by(|(one, _, _), (other, _, _)| one.cmp(other));
        }
    }
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
        let (writer, commands) = Writer::new(database.clone(), position, config.commands, publisher, metrics);
        let stop = CancellationToken::new();
        tokio::spawn(writer.run(stop.clone()));
        Self { database, commands, stop, _store: store }
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
        assert_eq!(snapshot.last.map_or(Revision(0), |event| event.revision), revision);
        (revision, records)
    }
}

async fn check(backend: Backend, commands: Vec<Vec<Proposed>>) {
    let bench = Bench::new(backend).await;
    let mut revision = 0;
    for changes in commands {
        let (actor, reason) = ("tester".to_owned(), "because".to_owned());
        let command = Command { actor, reason, changes, expected_log: None };
        if let Ok(committed) = bench.commands.execute(command).await {
            let reached = committed.position.revision.0;
            assert!(reached == revision || reached == revision + 1);
            revision = reached;
        }
    }
    let events = bench.log().await;
    assert_eq!(
        events.iter().map(|event| event.revision.0).collect::<Vec<_>>(),
        (1..=revision).collect::<Vec<_>>()
    );
    let (position, records) = bench.snapshot().await;
    assert_eq!(position.0, revision);

    let (mut folded, mut folded_table) = (Folded::default(), Table::default());
    for event in events {
        folded_table.apply(&event).unwrap();
        assert!(!event.changes.is_empty());
        event.changes.into_iter().for_each(|change| folded.apply(change));
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
        let put = Command::single("tester", "", Change::ServicePut(service), None);
        bench.commands.execute(put).await.unwrap();
        let id = |i: u32| TenantId::new(&format!("t{i}")).unwrap();
        let propose = |change| Proposed { change, expected: None };
        let tenants = (0..450).map(|i| propose(Change::TenantPut(Tenant::new(id(i)))));
        let pins = (0..450).map(|i| {
            let pin = Pin { version: Version::new("1").unwrap(), locked: false };
            propose(Change::PinPut { tenant: id(i), service: ServiceId::new("x").unwrap(), pin })
        });
        let changes = tenants.chain(pins).collect();
        let command =
            Command { actor: "tester".into(), reason: String::new(), changes, expected_log: Some(1) };
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
        let tenants = (0..300).map(|i| propose(Change::TenantPut(Tenant::new(id(i)))));
        let changes = std::iter::once(propose(Change::ServicePut(put))).chain(tenants).collect();
        let command = Command { actor: "tester".into(), reason: String::new(), changes, expected_log: None };
        bench.commands.execute(command).await.unwrap();

        // Each command flips the pin of a tenant of each batch, so that a torn read shows.
        let stop = CancellationToken::new();
        let writing = tokio::spawn({
            let (commands, stop) = (bench.commands.clone(), stop.clone());
            async move {
                let mut locked = false;
                while !stop.is_cancelled() {
                    locked = !locked;
                    let pin = Pin { version: Version::new("1").unwrap(), locked };
                    let pins = [0, 150, 299].map(|i| {
                        let (tenant, service, pin) = (id(i), service(), pin.clone());
                        propose(Change::PinPut { tenant, service, pin })
                    });
                    let (actor, reason) = ("tester".to_owned(), String::new());
                    let command = Command { actor, reason, changes: pins.into(), expected_log: None };
                    commands.execute(command).await.unwrap();
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
