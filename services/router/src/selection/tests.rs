#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

use grey_core::change::{Epoch, Position, Revision};
use grey_core::database::{Database, DatabaseKind, Dialect};
use grey_core::key::Fact;
use grey_core::policy::Policy;
use grey_core::schema::Observation;
use grey_core::service::{Hold, Pin, Service};
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use grey_proto::router::watch_response::Frame;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::frames;

fn selection(services: &[&str], tenants: &[&str], region: &str) -> Selection {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let (services, tenants, region) = (texts(services), texts(tenants), region.to_owned());
    Selection::read(&WatchRequest { services, tenants, region, ..WatchRequest::default() }).unwrap()
}

#[test]
fn nobody_is_told_where_databases_are() {
    let (tenant, payment) = (TenantId::new("acme").unwrap(), ServiceId::new("payment").unwrap());
    let (kind, dialect) = (DatabaseKind::Database, Dialect::Postgres);
    let (server, name, schema) = ("db:5432".to_owned(), "acme".to_owned(), String::new());
    let database = Database { kind, dialect, server, name, schema, direct_server: String::new() };
    let unpinned = Change::Removed(Key::Pin(tenant.clone(), payment.clone()));
    let changes = vec![Change::Put(Fact::Database(tenant, payment, Box::new(database))), unpinned.clone()];
    let event = Event { changes, ..Event::default() };
    for selection in [Selection::default(), selection(&["payment"], &[], ""), selection(&[], &["acme"], "")] {
        let told = selection.event(&event, None).unwrap();
        assert_eq!(told.changes, [(&unpinned).into()]);
        assert_eq!(told.omitted, 0, "nothing follows");
    }
}

#[test]
fn a_region_needs_the_tables_around_an_event() {
    let (event, table) = (Event::default(), Table::default());
    assert!(selection(&[], &[], "eu").event(&event, None).is_none());
    assert!(selection(&[], &[], "eu").event(&event, Some((&table, &table))).is_some());
    assert!(selection(&[], &["acme"], "").event(&event, None).is_some());
}

/// The part of a table that is wanted, as a client gets it in a snapshot.
fn wanted(table: &Table, selection: &Selection) -> Table {
    let mut client = Table::default();
    for message in frames::snapshot(table, selection) {
        if let Some(Frame::Services(_) | Frame::Tenants(_)) = &message.frame {
            let records: Vec<Record> = message.try_into().unwrap();
            records.into_iter().for_each(|record| client.insert(record));
        }
    }
    client.set_position(table.position());
    client
}

struct World {
    random: StdRng,
    table: Table,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut table = Table::default();
        table.set_position(Position { epoch: Epoch(1), revision: Revision(0) });
        Self { random: StdRng::seed_from_u64(seed), table }
    }

    fn change(&mut self, table: &Table) -> Change {
        let tenant = TenantId::new(&format!("t{}", self.random.random_range(0..6))).unwrap();
        let service = ServiceId::new(&format!("s{}", self.random.random_range(0..3))).unwrap();
        let version = Version::new(&format!("v{}", self.random.random_range(1..4))).unwrap();
        let declared = table.tenant(tenant.as_str()).is_some();
        match self.random.random_range(0..14) {
            // As the control plane refuses it: what belongs to a tenant that is not declared.
            0..=3 => Change::Put(Fact::Tenant(Box::new(self.tenant(tenant)))),
            4 => Change::Put(Fact::Service(Service { id: service, default: version })),
            5 => Change::Removed(Key::Service(service)),
            6 => Change::Put(Fact::Policy(service, Policy::default())),
            _ if !declared => Change::Put(Fact::Tenant(Box::new(self.tenant(tenant)))),
            7 => Change::Removed(Key::Tenant(tenant)),
            8 => Change::Removed(Key::Pin(tenant, service)),
            9 => Change::Removed(Key::Schema(tenant, service)),
            10 => Change::Removed(Key::Hold(tenant, service)),
            11 => {
                let seen = Observation { schema: "1.2".parse().unwrap(), at_ms: 7 };
                Change::Put(Fact::Schema(tenant, service, seen))
            }
            12 => Change::Put(Fact::Hold(tenant, service, Hold { to: version, until_ms: 9 })),
            _ => Change::Put(Fact::Pin(tenant, service, Pin { version, locked: false })),
        }
    }

    fn tenant(&mut self, id: TenantId) -> Tenant {
        let regions = [&[][..], &["eu"], &["us"], &["us", "eu"], &["asia"]];
        let residency = regions[self.random.random_range(0..regions.len())];
        let residency = residency.iter().map(|region| Name::new(region).unwrap()).collect();
        Tenant { residency, ..Tenant::new(id) }
    }

    fn event(&mut self) -> Event {
        let (mut table, mut changes) = (self.table.clone(), Vec::new());
        let revision = self.table.position().revision.next();
        for _ in 0..self.random.random_range(0..5) {
            let change = self.change(&table);
            table.apply_again(&Event { revision, changes: vec![change.clone()], ..Event::default() });
            changes.push(change);
        }
        Event { revision, at_ms: 1, changes, ..Event::default() }
    }
}

#[test]
fn what_is_told_of_each_event_leads_to_the_part_that_is_wanted() {
    let selections = [
        Selection::default(),
        selection(&["s1"], &[], ""),
        selection(&[], &["t1", "t4"], ""),
        selection(&[], &[], "eu"),
        selection(&["s0", "s2"], &[], "us"),
        selection(&[], &["t0", "t1", "t2"], "asia"),
        selection(&["s1"], &["t3"], "nowhere"),
    ];
    for seed in 0..20 {
        let mut world = World::new(seed);
        let mut clients = vec![wanted(&world.table, &selections[0]); selections.len()];
        for _ in 0..200 {
            let (before, event) = (world.table.clone(), world.event());
            world.table.apply(&event).unwrap();
            for (client, selection) in clients.iter_mut().zip(&selections) {
                let told = selection.event(&event, Some((&before, &world.table))).unwrap();
                assert_eq!(told.revision, event.revision.0, "revisions are gapless");
                client.apply(&Event::try_from(told.clone()).unwrap()).unwrap();
                let wanted = wanted(&world.table, selection);
                let differ = client.differing(&wanted);
                assert!(
                    differ.is_empty() && client.digest() == wanted.digest(),
                    "seed {seed}, {selection:?}, {event:?} told as {told:?}: {differ:?}"
                );
            }
        }
    }
}

#[test]
fn what_is_left_out_is_not_told() {
    let tenants = selection(&[], &["t1"], "");
    let mut world = World::new(3);
    for _ in 0..300 {
        let event = world.event();
        world.table.apply(&event).unwrap();
        let told = Event::try_from(tenants.event(&event, None).unwrap()).unwrap();
        assert!(told.changes.iter().all(|c| c.key().tenant().is_none_or(|tenant| tenant.as_str() == "t1")));
        let count = |changes: &[Change]| changes.iter().filter(|c| tenants.wants(&c.key())).count();
        assert_eq!(told.changes.len(), count(&event.changes), "and nothing else is left out");
    }
}
