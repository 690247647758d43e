//! A table that lives for years stays small.

use crate::fixture::{
    apply, declare, event, instance, observed_schema, open, pin_to, schema, service, tenant, version, window,
};
use grey_core::balance::Moment;
use grey_core::change::Change;
use grey_core::decide::{Call, choose_version, decide};
use grey_core::error::Refusal;
use grey_core::schema::SchemaWindow;
use grey_core::table::Table;
use grey_core::tenant::Tenant;

fn observed(of: &str, at: u64) -> Change {
    observed_schema(of, "s", &at.to_string())
}

fn put(of: &str) -> Change {
    Change::TenantPut(Tenant::new(tenant(of)))
}

#[test]
fn schemas_come_and_go_without_end() {
    let mut table = Table::default();
    let from_five = SchemaWindow { min: Some(schema("5")), max: None };
    apply(
        &mut table,
        vec![declare("s", "1"), window("s", "1", from_five), put("t"), put("held"), observed("held", 4)],
    );
    let digest = table.digest();
    for at in 0..70_000 {
        table.apply_again(&event(2, vec![observed("t", at)]));
    }
    assert_eq!(choose_version(&table, &Call::new("t", "s")).unwrap().schema, Some(&schema("69999")));
    let held = choose_version(&table, &Call::new("held", "s"));
    assert_eq!(held.unwrap_err(), Refusal::NoLegalVersion { wanted: version("1") });
    let forgotten =
        Change::SchemaObserved { tenant: tenant("t"), service: service("s"), schema: None, at_ms: 0 };
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
        apply(&mut table, vec![put(of), observed(of, 9_999), observed(of, at)]);
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
    apply(&mut table, vec![declare("s", "1"), open("s", "1"), put("t")]);
    for at in 2..500 {
        let of = at.to_string();
        apply(&mut table, vec![open("s", &of)]);
        table.set_instances(&service("s"), vec![instance("a", &of), instance("b", "1")]);
        apply(&mut table, vec![Change::VersionRemoved { service: service("s"), version: version(&of) }]);
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
        vec![declare("s", "1"), open("s", "1"), open("s", "2"), put("t"), pin_to("t", "s", "2")],
    );
    table.set_instances(&service("s"), vec![instance("a", "1"), instance("b", "2")]);
    let serving = |table: &Table| {
        decide(table, &Call::new("t", "s"), &Moment::default()).map(|d| d.instance.id.to_string())
    };
    assert_eq!(serving(&table), Ok("b".to_owned()));
    apply(&mut table, vec![Change::VersionRemoved { service: service("s"), version: version("2") }]);
    assert_eq!(serving(&table), Ok("a".to_owned()));
    table.set_instances(&service("s"), vec![instance("b", "2")]);
    assert_eq!(serving(&table), Err(Refusal::NoInstance { version: version("1") }));
    apply(&mut table, vec![open("s", "2")]);
    assert_eq!(serving(&table), Ok("b".to_owned()));
    // The pin outlives its version's instances and declaration.
    apply(&mut table, vec![Change::VersionRemoved { service: service("s"), version: version("2") }]);
    table.set_instances(&service("s"), vec![instance("a", "1")]);
    assert_eq!(serving(&table), Ok("a".to_owned()));
    apply(&mut table, vec![open("s", "2")]);
    table.set_instances(&service("s"), vec![instance("a", "1"), instance("b", "2")]);
    assert_eq!(serving(&table), Ok("b".to_owned()));
}

#[test]
fn names_that_pass_through_the_registry_are_forgotten() {
    let mut table = Table::default();
    apply(&mut table, vec![declare("kept", "1"), open("kept", "1"), put("t")]);
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
