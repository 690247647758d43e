//! A table that lives for years stays small.

use crate::fixture::{
    apply, declare, event, instance, known, observed_schema, open, pin, pin_to, schema, service, tenant,
    version, window,
};
use grey_core::balance::Moment;
use grey_core::change::Change;
use grey_core::decide::{Call, choose_version, decide};
use grey_core::error::Refusal;
use grey_core::key::{Fact, Key};
use grey_core::policy::Policy;
use grey_core::record::{Record, TenantRecord};
use grey_core::schema::{Observation, SchemaWindow};
use grey_core::service::Pin;
use grey_core::table::Table;
use grey_core::tenant::Tenant;

fn observed(of: &str, at: u64) -> Change {
    observed_schema(of, "s", &at.to_string())
}

fn removed(of: &str) -> Change {
    Change::Removed(Key::Version(service("s"), version(of)))
}

#[test]
fn schemas_come_and_go_without_end() {
    let mut table = Table::default();
    let from_five = SchemaWindow { min: Some(schema("5")), max: None };
    apply(
        &mut table,
        vec![declare("s", "1"), window("s", "1", from_five), known("t"), known("held"), observed("held", 4)],
    );
    let digest = table.digest();
    for at in 0..70_000 {
        table.apply_again(&event(2, vec![observed("t", at)]));
    }
    assert_eq!(choose_version(&table, &Call::new("t", "s")).unwrap().schema, Some(&schema("69999")));
    let held = choose_version(&table, &Call::new("held", "s"));
    assert_eq!(held.unwrap_err(), Refusal::NoLegalVersion { wanted: version("1") });
    let forgotten = Change::Removed(Key::Schema(tenant("t"), service("s")));
    table.apply_again(&event(3, vec![forgotten]));
    assert_eq!(table.digest(), digest);
}

#[test]
fn many_tenants_each_on_a_schema_of_its_own_keep_it() {
    let mut table = Table::default();
    let mut windows = vec![declare("s", "1")];
    windows.extend((1..=4).map(|of| {
        let (min, max) = (schema(&((of - 1) * 1_000).to_string()), schema(&(of * 1_000 - 1).to_string()));
        window("s", &of.to_string(), SchemaWindow { min: Some(min), max: Some(max) })
    }));
    apply(&mut table, windows);
    let names: Vec<String> = (0..4_000).map(|at| format!("t{at}")).collect();
    let mut older = Vec::new();
    for (at, of) in (0..).zip(&names) {
        apply(&mut table, vec![known(of), observed(of, 9_999), observed(of, at)]);
        if at % 1_000 == 0 {
            older.push((at, table.clone()));
        }
    }
    let check = |table: &Table, at: u64, of: &str| {
        let choice = choose_version(table, &Call::new(of, "s")).unwrap();
        assert_eq!(choice.version, &version(&(at / 1_000 + 1).to_string()), "{of}");
        assert_eq!(choice.schema, Some(&schema(&at.to_string())));
    };
    (0..).zip(&names).for_each(|(at, of)| check(&table, at, of));
    for (last, older) in older {
        (0..=last).zip(&names).for_each(|(at, of)| check(&older, at, of));
    }
}

#[test]
fn removed_versions_are_forgotten_once_nothing_refers_to_them() {
    let mut table = Table::default();
    apply(&mut table, vec![declare("s", "1"), open("s", "1"), known("t")]);
    for at in 2..500 {
        let of = at.to_string();
        apply(&mut table, vec![open("s", &of)]);
        table.set_instances(&service("s"), vec![instance("a", &of), instance("b", "1")]);
        apply(&mut table, vec![removed(&of)]);
    }
    let names = |table: &Table| -> Vec<String> {
        table.service("s").unwrap().versions().iter().map(|slot| slot.version.to_string()).collect()
    };
    assert_eq!(names(&table), ["v1.0", "v499.0"], "the last one still runs");
    table.set_instances(&service("s"), vec![instance("b", "1")]);
    assert_eq!(names(&table), ["v1.0"]);
}

#[test]
fn instances_of_a_removed_version_get_no_calls_until_it_is_declared_again() {
    let mut table = Table::default();
    apply(
        &mut table,
        vec![declare("s", "1"), open("s", "1"), open("s", "2"), known("t"), pin_to("t", "s", "2")],
    );
    table.set_instances(&service("s"), vec![instance("a", "1"), instance("b", "2")]);
    let serving = |table: &Table| {
        decide(table, &Call::new("t", "s"), &Moment::default()).map(|d| d.instance.id.to_string())
    };
    assert_eq!(serving(&table), Ok("b".to_owned()));
    apply(&mut table, vec![removed("2")]);
    assert_eq!(serving(&table), Ok("a".to_owned()));
    table.set_instances(&service("s"), vec![instance("b", "2")]);
    assert_eq!(serving(&table), Err(Refusal::NoInstance { version: version("1") }));
    apply(&mut table, vec![open("s", "2")]);
    assert_eq!(serving(&table), Ok("b".to_owned()));
    // The pin outlives its version's instances and declaration.
    apply(&mut table, vec![removed("2")]);
    table.set_instances(&service("s"), vec![instance("a", "1")]);
    assert_eq!(serving(&table), Ok("a".to_owned()));
    apply(&mut table, vec![open("s", "2")]);
    table.set_instances(&service("s"), vec![instance("a", "1"), instance("b", "2")]);
    assert_eq!(serving(&table), Ok("b".to_owned()));
}

#[test]
fn names_that_pass_through_the_registry_are_forgotten() {
    let mut table = Table::default();
    apply(&mut table, vec![declare("kept", "1"), open("kept", "1"), known("t")]);
    for at in 0..70_000 {
        let id = service(&format!("build-{at}"));
        table.set_instances(&id, vec![instance("a", "1")]);
        table.set_instances(&id, Vec::new());
    }
    assert_eq!(table.service_count(), 1);
    apply(
        &mut table,
        vec![declare("late", "1"), open("late", "1"), open("late", "2"), pin_to("t", "late", "2")],
    );
    let version_in = |id| choose_version(&table, &Call::new("t", id)).unwrap().version.to_string();
    assert_eq!((version_in("kept"), version_in("late")), ("v1.0".to_owned(), "v2.0".to_owned()));
    assert_eq!(table.tenant_records().next().unwrap().pins[0].0, service("late"));
}

/// Seven versions that work up to schema 1,000, 2,000 … 7,000, and a default that works on any.
fn staggered() -> Table {
    let mut table = Table::default();
    let mut changes = vec![declare("s", "9"), open("s", "9")];
    changes.extend((1..=7).map(|of| {
        let max = Some(schema(&(of * 1_000).to_string()));
        window("s", &of.to_string(), SchemaWindow { min: None, max })
    }));
    apply(&mut table, changes);
    table
}

#[test]
fn more_pairs_of_pin_and_schema_than_16_bits_can_number_are_told_apart() {
    let mut table = staggered();
    let pins: Vec<Pin> = (1..=7).map(|of| pin(&of.to_string())).collect();
    let pair = |at: usize| (&pins[at % 7], schema(&(at / 7).to_string()));
    let default = version("9");
    let names: Vec<_> = (0..70_000).map(|at| tenant(&format!("t{at}"))).collect();
    for (at, of) in names.iter().enumerate() {
        let (held, seen) = pair(at);
        let seen = Observation { schema: seen, at_ms: 0 };
        if at % 8 == 0 {
            let facts = [
                Fact::Tenant(Box::new(Tenant::new(of.clone()))),
                Fact::Pin(of.clone(), service("s"), held.clone()),
                Fact::Schema(of.clone(), service("s"), seen),
            ];
            table.apply_again(&event(2, facts.map(Change::Put).to_vec()));
        } else {
            let pins = vec![(service("s"), held.clone())];
            let schemas = vec![(service("s"), seen)];
            table.insert(Record::Tenant(TenantRecord { pins, schemas, ..Tenant::new(of.clone()).into() }));
        }
    }
    for (at, of) in names.iter().enumerate() {
        let (held, seen) = pair(at);
        let fits = at / 7 <= (at % 7 + 1) * 1_000;
        let choice = choose_version(&table, &Call::new(of.as_str(), "s")).unwrap();
        assert_eq!(choice.version, if fits { &held.version } else { &default }, "{of}");
        assert_eq!(choice.schema, Some(&seen), "{of}");
    }
}

#[test]
fn a_service_is_forgotten_when_nothing_of_it_is_left() {
    let pinned = || pin_to("t", "s", "2");
    let (no_pin, no_schema) = (Key::Pin(tenant("t"), service("s")), Key::Schema(tenant("t"), service("s")));
    let (no_tenant, no_service) = (Key::Tenant(tenant("t")), Key::Service(service("s")));
    let (no_policy, no_version) = (Key::Policy(service("s")), Key::Version(service("s"), version("1")));
    let own_policy = crate::fixture::policy(Policy { stateless: true, ..Policy::default() });
    let canary = crate::overlays::canary("c", ["1", "2"], 1);
    let no_overlay = Key::Overlay(service("s"), canary.id.clone());
    let ends: [(Vec<Change>, Vec<Key>); 8] = [
        (vec![declare("s", "1"), pinned()], vec![no_pin.clone(), no_service.clone()]),
        (vec![declare("s", "1"), pinned()], vec![no_service.clone(), no_pin.clone()]),
        (vec![declare("s", "1"), observed("t", 1)], vec![no_service.clone(), no_schema.clone()]),
        (vec![pinned(), observed("t", 1)], vec![no_schema, no_pin]),
        (vec![declare("s", "1"), pinned(), observed("t", 1)], vec![no_service.clone(), no_tenant.clone()]),
        (vec![declare("s", "1"), pinned()], vec![no_tenant, no_service]),
        (vec![own_policy, open("s", "1")], vec![no_policy, no_version]),
        (vec![crate::overlays::lay(canary)], vec![no_overlay]),
    ];
    for (changes, keys) in ends {
        let mut table = Table::default();
        apply(
            &mut table,
            vec![known("t"), known("other"), declare("kept", "1"), pin_to("other", "kept", "1")],
        );
        let digest = table.digest();
        apply(&mut table, changes);
        assert_eq!(table.service_count(), 2);
        let last = keys.len();
        for (at, key) in (1..).zip(&keys) {
            apply(&mut table, vec![Change::Removed(key.clone())]);
            assert_eq!(table.service_count(), if at == last { 1 } else { 2 }, "{at} of {keys:?}");
        }
        apply(&mut table, vec![known("t")]);
        assert_eq!(table.digest(), digest, "{keys:?}");
    }
}

#[test]
fn services_that_only_a_replaced_record_named_are_forgotten() {
    let mut table = Table::default();
    for at in 0..100 {
        let pins = vec![(service(&format!("build-{at}")), pin("1"))];
        table.insert(Record::Tenant(TenantRecord { pins, ..Tenant::new(tenant("t")).into() }));
    }
    assert_eq!(table.service_count(), 1);
    let pinned = table.tenant_records().next().unwrap().pins;
    assert_eq!(pinned, [(service("build-99"), pin("1"))]);
}

#[test]
fn a_service_stays_while_some_tenant_is_pinned_to_it() {
    let mut table = Table::default();
    apply(&mut table, vec![known("t"), known("u"), declare("s", "1"), open("s", "1"), open("s", "2")]);
    apply(&mut table, vec![pin_to("t", "s", "2"), pin_to("u", "s", "2")]);
    let gone = [Key::Service(service("s")), Key::Tenant(tenant("t"))].map(Change::Removed);
    apply(&mut table, gone.to_vec());
    assert_eq!(table.service_count(), 1);
    apply(&mut table, vec![declare("s", "1"), open("s", "1"), open("s", "2")]);
    assert_eq!(choose_version(&table, &Call::new("u", "s")).unwrap().version, &version("2"));
}
