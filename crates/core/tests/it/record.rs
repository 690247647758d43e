//! Records folded one by one, against the table that folds everything.

use crate::fixture::{event, pin, service, tenant};
use crate::folding::{records, sorted};
use crate::history::{fold, some_change, valid_history};
use grey_core::change::{Change, Event};
use grey_core::key::{Fact, Key, RecordKey};
use grey_core::record::{Record, TenantRecord};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Each record by the key of its first fact, folded by itself.
fn folded(events: &[Event]) -> BTreeMap<Key, Record> {
    let mut folded = BTreeMap::new();
    for change in events.iter().flat_map(|event| &event.changes) {
        let key = change.key();
        let root = match key.record() {
            RecordKey::Tenant(id) => Key::Tenant(id.clone()),
            RecordKey::Service(id) => Key::Service(id.clone()),
        };
        let before = folded.remove(&root);
        if let Some(after) = Record::fold(before, change) {
            folded.insert(root, after);
        }
    }
    folded
}

/// Times of observations are not kept in a table.
fn without_times(mut record: Record) -> Record {
    if let Record::Tenant(record) = &mut record {
        record.schemas.iter_mut().for_each(|(_, seen)| seen.at_ms = 0);
    }
    record
}

/// A table's records, in the order of [`folded`].
fn in_order(table: &Table) -> Vec<Record> {
    let mut records: Vec<Record> = records(table);
    for record in &mut records {
        if let Record::Tenant(record) = record {
            record.pins.sort_by(|a, b| a.0.cmp(&b.0));
            record.schemas.sort_by(|a, b| a.0.cmp(&b.0));
            record.holds.sort_by(|a, b| a.0.cmp(&b.0));
        }
    }
    records.sort_by_cached_key(|record| record.clone().facts()[0].key());
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn records_folded_one_by_one_are_those_of_the_table(events in valid_history()) {
        let (table, _) = fold(&events, &BTreeMap::new());
        let folded: Vec<Record> = folded(&events).into_values().map(without_times).collect();
        prop_assert_eq!(&folded, &in_order(&table));
        let mut loaded = Table::default();
        folded.into_iter().for_each(|record| loaded.insert(record));
        prop_assert_eq!(loaded.digest(), table.digest());
        prop_assert_eq!(sorted(&loaded), sorted(&table));
    }

    #[test]
    fn the_facts_of_a_record_fold_back_to_it(events in valid_history()) {
        let (table, _) = fold(&events, &BTreeMap::new());
        let mut all = Vec::new();
        for (root, record) in folded(&events) {
            let facts = record.clone().facts();
            prop_assert_eq!(facts[0].key(), root);
            prop_assert!(facts.iter().all(|fact| fact.key().record() == record.key()));
            let puts: Vec<Change> = facts.into_iter().map(Change::Put).collect();
            prop_assert_eq!(puts.iter().fold(None, Record::fold), Some(record));
            all.extend(puts);
        }
        let mut again = Table::default();
        again.apply_again(&event(1, all));
        prop_assert_eq!(again.digest(), table.digest());
    }

    #[test]
    fn a_change_folded_twice_is_folded_once(events in valid_history(), change in some_change()) {
        let key = change.key();
        for (_, record) in folded(&events).into_iter().filter(|(_, record)| record.key() == key.record()) {
            let once = Record::fold(Some(record), &change);
            prop_assert_eq!(&Record::fold(once.clone(), &change), &once);
        }
    }
}

#[test]
fn what_was_never_declared_makes_no_record() {
    let orphan = Change::Put(Fact::Pin(tenant("t"), service("s"), pin("1")));
    assert_eq!(Record::fold(None, &orphan), None);
    let declared = Record::fold(None, &Change::Put(Fact::Tenant(Box::new(Tenant::new(tenant("t"))))));
    assert!(Record::fold(declared.clone(), &orphan).is_some());
    assert_eq!(Record::fold(declared, &Change::Removed(Key::Tenant(tenant("t")))), None);
}

#[test]
fn parts_are_found_in_whatever_order_a_record_lists_them() {
    let held = |ids: &[&str]| ids.iter().map(|id| (service(id), pin("1"))).collect::<Vec<_>>();
    let record = TenantRecord { pins: held(&["c", "a", "b"]), ..Tenant::new(tenant("t")).into() };
    for id in ["a", "b", "c"] {
        let moved = Change::Put(Fact::Pin(tenant("t"), service(id), pin("2")));
        let Some(Record::Tenant(after)) = Record::fold(Some(Record::Tenant(record.clone())), &moved) else {
            panic!("{id}")
        };
        assert_eq!(after.pins.len(), 3, "{id}");
        assert!(after.pins.contains(&(service(id), pin("2"))), "{id}");
    }
}
