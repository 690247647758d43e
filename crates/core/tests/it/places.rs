//! Which instances are near enough, and what is left when none is well.

use crate::fixture::{apply, declare, instance, name, open, service, table, tenant};
use grey_core::balance::Moment;
use grey_core::change::Change;
use grey_core::decide::{Call, decide};
use grey_core::error::Refusal;
use grey_core::instance::Instance;
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use std::collections::BTreeSet;

fn at(id: &str, region: &str, zone: &str) -> Instance {
    let place = |text: &str| (!text.is_empty()).then(|| name(text));
    Instance { region: place(region), zone: place(zone), ..instance(id, "1") }
}

fn resident(regions: &[&str], list: Vec<Instance>) -> Table {
    let mut table = Table::default();
    let residency = regions.iter().map(|region| name(region)).collect();
    let put = Change::TenantPut(Tenant { residency, ..Tenant::new(tenant("t")) });
    apply(&mut table, vec![declare("s", "1"), open("s", "1"), put]);
    table.set_instances(&service("s"), list);
    table
}

/// Every instance that 20 calls from this place reach.
fn reached(table: &Table, region: &str, zone: &str) -> Vec<String> {
    let call = Call { region, zone, ..Call::new("t", "s") };
    let ids = (0..20).filter_map(|_| decide(table, &call, &Moment::default()).ok());
    ids.map(|decision| decision.instance.id.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn calls_stay_in_their_zone_then_region_then_anywhere() {
    let everyone =
        vec![at("a", "eu", "x"), at("b", "eu", "x"), at("c", "eu", "y"), at("d", "us", "x"), at("e", "", "")];
    let table = resident(&[], everyone);
    assert_eq!(reached(&table, "eu", "x"), ["a", "b"]);
    assert_eq!(reached(&table, "eu", "y"), ["c"]);
    assert_eq!(reached(&table, "eu", "z"), ["a", "b", "c"]);
    assert_eq!(reached(&table, "eu", ""), ["a", "b", "c"]);
    assert_eq!(reached(&table, "ap", "x"), ["a", "b", "c", "d", "e"]);
    assert_eq!(reached(&table, "", ""), ["a", "b", "c", "d", "e"]);
}

#[test]
fn an_unwell_zone_is_left_for_its_region() {
    let ill = |id, zone| Instance { healthy: false, ..at(id, "eu", zone) };
    let table = resident(&[], vec![ill("a", "x"), at("b", "eu", "y"), at("c", "us", "x")]);
    assert_eq!(reached(&table, "eu", "x"), ["b"]);
    let table = resident(&[], vec![ill("a", "x"), ill("b", "y"), at("c", "us", "x")]);
    assert_eq!(reached(&table, "eu", "x"), ["c"]);
}

#[test]
fn residency_holds_whatever_the_call_says() {
    let everyone = || vec![at("a", "eu", "x"), at("b", "us", "x"), at("c", "ap", "x"), at("d", "", "x")];
    let table = resident(&["us", "eu"], everyone());
    assert_eq!(reached(&table, "eu", "x"), ["a"]);
    assert_eq!(reached(&table, "ap", "x"), ["b"], "the most wanted region first");
    assert_eq!(reached(&table, "", ""), ["b"]);
    let without_us = everyone().into_iter().filter(|i| i.id.as_str() != "b").collect();
    let table = resident(&["us", "eu"], without_us);
    assert_eq!(reached(&table, "us", "x"), ["a"]);
    let table = resident(&["mars"], everyone());
    let refused = decide(&table, &Call { zone: "x", ..Call::new("t", "s") }, &Moment::default());
    assert!(matches!(refused.unwrap_err(), Refusal::NoInstance { .. }));
}

#[test]
fn instances_that_cannot_serve_get_nothing() {
    let ill = Instance { healthy: false, ..instance("a", "1") };
    let off = Instance { enabled: false, ..instance("b", "1") };
    let drained = Instance { weight: 0, ..instance("c", "1") };
    for strategy in crate::balancing::ALL {
        let mut table = table(strategy, vec![ill.clone(), off.clone(), drained.clone()]);
        let call = Call { request_key: "k", ..Call::new("t", "s") };
        let refused = decide(&table, &call, &Moment::default()).unwrap_err();
        assert!(matches!(refused, Refusal::NoInstance { .. }), "{strategy:?}");
        table.set_instances(
            &service("s"),
            vec![ill.clone(), instance("d", "1"), off.clone(), drained.clone()],
        );
        for _ in 0..10 {
            let decision = decide(&table, &call, &Moment::default()).unwrap();
            assert_eq!(decision.instance.id.as_str(), "d", "{strategy:?}");
        }
    }
}
