//! Loading a projection that is written while it is read.

use crate::fixture::Random;
use crate::folding::sorted;
use crate::history::{OVERLAYS, SERVICES, valid_history};
use crate::model::Model;
use grey_core::change::Event;
use grey_core::record::{Record, ServiceRecord, TenantRecord};
use grey_core::schema::Observation;
use grey_core::service::{Service, ServiceVersion};
use grey_core::table::Table;
use proptest::prelude::*;

/// The state after each event, the empty one first.
fn states(events: &[Event]) -> Vec<Model> {
    let mut states = vec![Model::default()];
    for event in events {
        let mut next = states.last().cloned().unwrap_or_default();
        event.changes.iter().for_each(|change| next.change(change));
        states.push(next);
    }
    states
}

/// Records in which each fact was read at a moment of its own, among `states`.
fn torn(states: &[Model], random: &mut Random) -> Vec<Record> {
    let mut any = || &states[(random.next() % states.len() as u64) as usize];
    let mut records = Vec::new();
    for of in crate::history::TENANTS.map(crate::fixture::tenant) {
        let Some(tenant) = any().tenants.get(&of).cloned() else { continue };
        let (mut pins, mut schemas, mut holds) = (Vec::new(), Vec::new(), Vec::new());
        for to in SERVICES.map(crate::fixture::service) {
            let key = (of.clone(), to.clone());
            pins.extend(any().pins.get(&key).cloned().map(|pin| (to.clone(), pin)));
            let schema = any().schemas.get(&key).cloned();
            schemas.extend(schema.map(|schema| (to.clone(), Observation { schema, at_ms: 0 })));
            holds.extend(any().holds.get(&key).cloned().map(|hold| (to.clone(), hold)));
        }
        records.push(Record::Tenant(TenantRecord { tenant, pins, schemas, holds }));
    }
    for id in SERVICES.map(crate::fixture::service) {
        let Some(default) = any().defaults.get(&id).cloned() else { continue };
        let mut versions = Vec::new();
        for version in ["1.0", "1.1", "2.0-rc.1", "2.0"].map(crate::fixture::version) {
            let window = any().windows.get(&(id.clone(), version.clone())).cloned();
            versions.extend(window.map(|window| ServiceVersion { service: id.clone(), version, window }));
        }
        let policy = any().policies.get(&id).cloned().unwrap_or_default();
        let overlays = OVERLAYS.map(crate::fixture::overlay).into_iter();
        let overlays = overlays.filter_map(|of| any().overlays.get(&(id.clone(), of)).cloned()).collect();
        let service = Service { id, default };
        records.push(Record::Service(ServiceRecord { service, versions, policy, overlays }));
    }
    random.shuffle(&mut records);
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_torn_read_is_mended_by_the_events_written_meanwhile(
        events in valid_history(),
        ends in any::<(prop::sample::Index, prop::sample::Index)>(),
        seed: u64,
    ) {
        let states = states(&events);
        let (a, b) = (ends.0.index(states.len()), ends.1.index(states.len()));
        let (from, to) = (a.min(b), a.max(b));
        let mut loaded = Table::default();
        for record in torn(&states[from..=to], &mut Random(seed)) {
            loaded.insert(record);
        }
        let mut exact = Table::default();
        for event in &events[..to] {
            exact.apply(event).unwrap();
        }
        for event in &events[from..to] {
            loaded.apply_again(event);
        }
        loaded.set_position(exact.position());
        prop_assert_eq!(loaded.digest(), exact.digest());
        prop_assert_eq!(sorted(&loaded), sorted(&exact));
        // From here on events follow as usual.
        for event in &events[to..] {
            loaded.apply(event).unwrap();
            exact.apply(event).unwrap();
        }
        prop_assert_eq!(loaded.digest(), exact.digest());
    }
}
