//! Which instances are near enough, and what is left when none is well.

use crate::fixture::{
    Random, apply, balanced_by, declare, instance, name, open, policy, service, table, tenant,
};
use grey_core::balance::Moment;
use grey_core::change::Change;
use grey_core::decide::{Call, decide, turn_of};
use grey_core::error::Refusal;
use grey_core::explain::explain;
use grey_core::instance::Instance;
use grey_core::key::Fact;
use grey_core::policy::{Failover, Policy, Strategy};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use std::collections::{BTreeMap, BTreeSet};

fn at(id: &str, region: &str, zone: &str) -> Instance {
    let place = |text: &str| (!text.is_empty()).then(|| name(text));
    Instance { region: place(region), zone: place(zone), ..instance(id, "1") }
}

fn resident(regions: &[&str], list: Vec<Instance>) -> Table {
    let mut table = Table::default();
    let residency = regions.iter().map(|region| name(region)).collect();
    let put = Change::Put(Fact::Tenant(Box::new(Tenant { residency, ..Tenant::new(tenant("t")) })));
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

/// A service with these many instances of weight 1 in each zone of region eu, named after their zone.
fn zoned(strategy: Strategy, zones: &[(&str, usize)]) -> Table {
    let of_zone = |(zone, count): &(&str, usize)| {
        let zone = (*zone).to_owned();
        (0..*count).map(move |number| at(&format!("{zone}{number}"), "eu", &zone))
    };
    table(strategy, zones.iter().flat_map(of_zone).collect())
}

/// How many of the calls from this zone each zone serves.
fn served_by(table: &Table, zone: &str, calls: usize) -> BTreeMap<String, usize> {
    let mut random = Random(21);
    let mut counts = BTreeMap::new();
    for number in 0..calls {
        let tenant = format!("t{number}");
        let call = Call { region: "eu", zone, ..Call::new(&tenant, "s") };
        let decision = decide(table, &call, &random.moment(0)).unwrap();
        *counts.entry(decision.instance.zone.as_ref().unwrap().to_string()).or_default() += 1;
    }
    counts
}

#[test]
fn a_small_zone_serves_what_its_capacity_is_of_its_fair_share() {
    for strategy in crate::balancing::ALL {
        let table = zoned(strategy, &[("x", 1), ("y", 9)]);
        let counts = served_by(&table, "x", 200);
        // Its fair share of 10 instances in two zones is 5, and it has 1.
        assert!((20..60).contains(&counts["x"]), "{strategy:?}: {counts:?}");
        assert_eq!(served_by(&table, "y", 200)["y"], 200, "{strategy:?}");
    }
}

#[test]
fn even_callers_load_every_instance_alike_and_no_small_zone_gets_more() {
    let table = zoned(Strategy::Random, &[("x", 1), ("y", 4), ("z", 10)]);
    let mut all = BTreeMap::new();
    for zone in ["x", "y", "z"] {
        let counts = served_by(&table, zone, 6_000);
        assert!(zone == "y" || !counts.contains_key("y"), "{zone} leaves y alone: {counts:?}");
        counts.into_iter().for_each(|(zone, count)| *all.entry(zone).or_insert(0) += count);
    }
    for (zone, weight) in [("x", 1), ("y", 4), ("z", 10)] {
        let even = 18_000 / 15 * weight;
        assert!(all[zone] * 10 > even * 9 && all[zone] * 10 < even * 11, "{all:?}");
    }
}

#[test]
fn weights_are_capacity_and_those_who_cannot_serve_have_none() {
    let heavy = |id, zone, weight| Instance { weight, ..at(id, "eu", zone) };
    let ill = |id, zone| Instance { healthy: false, ..at(id, "eu", zone) };
    let even = vec![heavy("a", "x", 2), at("b", "eu", "y"), at("c", "eu", "y"), ill("d", "y"), ill("e", "z")];
    let table = table(Strategy::Random, even);
    assert_eq!(served_by(&table, "x", 200)["x"], 200);
    assert_eq!(served_by(&table, "y", 200)["y"], 200);
}

#[test]
fn zones_that_tell_no_region_and_instances_that_tell_no_zone_share_alike() {
    let list = (0..9).map(|at_| at(&format!("n{at_}"), "", "")).chain([at("x", "", "x")]).collect();
    let table = table(Strategy::Random, list);
    let mut random = Random(22);
    let call = Call { zone: "x", ..Call::new("t", "s") };
    let of_x = |_: &usize| decide(&table, &call, &random.moment(0)).unwrap().instance.id.as_str() == "x";
    let own = (0..200).filter(of_x).count();
    assert!((20..60).contains(&own), "{own}");
}

#[test]
fn calls_that_leave_their_zone_stay_in_its_region_and_in_the_residency() {
    let list: Vec<_> = (0..9)
        .map(|n| at(&format!("u{n}"), "us", "x"))
        .chain([at("a", "eu", "x"), at("b", "eu", "y"), at("c", "eu", "y")])
        .collect();
    let table = resident(&["eu"], list);
    let mut random = Random(23);
    for zone in ["x", "y", "z"] {
        for region in ["eu", ""] {
            for _ in 0..200 {
                let call = Call { region, zone, ..Call::new("t", "s") };
                let decision = decide(&table, &call, &random.moment(0)).unwrap();
                assert_eq!(decision.instance.region, Some(name("eu")));
            }
        }
    }
}

#[test]
fn a_key_stays_in_one_zone() {
    let table = zoned(Strategy::ConsistentHash, &[("x", 1), ("y", 9)]);
    let mut random = Random(24);
    let mut zones = BTreeSet::new();
    for tenant in (0..40).map(|number| format!("t{number}")) {
        let mut own = |_| {
            let call = Call { region: "eu", zone: "x", ..Call::new(&tenant, "s") };
            decide(&table, &call, &random.moment(0)).unwrap().instance.id.to_string()
        };
        let ids: BTreeSet<_> = (0..50).map(&mut own).collect();
        assert_eq!(ids.len(), 1, "{tenant}: {ids:?}");
        zones.extend(ids.into_iter().map(|id| id.starts_with('x')));
    }
    assert_eq!(zones.len(), 2, "some keys stay, some go");
}

#[test]
fn an_explanation_tells_why_a_call_leaves_its_zone() {
    let table = zoned(Strategy::RoundRobin, &[("x", 1), ("y", 9)]);
    let call = Call { region: "eu", zone: "x", ..Call::new("t", "s") };
    let mut random = Random(25);
    let mut told = BTreeSet::new();
    for _ in 0..50 {
        let explained = explain(&table, &call, &random.moment(0));
        let step = explained.steps.into_iter().find(|step| step.name == "instances").unwrap();
        told.extend(step.outcome.split("; ").nth(1).map(str::to_owned));
    }
    let rule = "by its weight eu/x keeps 20% of its callers' calls";
    let told: Vec<_> = told.iter().map(String::as_str).collect();
    assert_eq!(told, [&*format!("{rule}, this one goes to eu/y"), &*format!("{rule}, this one stays")]);
    let from_y = explain(&table, &Call { zone: "y", ..call }, &Moment::default());
    assert!(!format!("{:?}", from_y.steps).contains("keeps"), "{:?}", from_y.steps);
}

#[test]
fn the_turn_is_that_of_the_group_that_serves() {
    let global = |failover| Policy { failover, ..balanced_by(Strategy::RoundRobin) };
    let mut table = zoned(Strategy::RoundRobin, &[("x", 1), ("y", 3)]);
    apply(&mut table, vec![open("s", "2"), policy(global(Failover::ToNearest))]);
    let of = |table: &Table, call: &Call<'_>, moment: &Moment| {
        turn_of(table, call, moment).map(|of| (of.version.to_string(), of.locality.to_string()))
    };
    let mut random = Random(26);
    let mut groups = BTreeSet::new();
    for number in 0..400 {
        let zone = ["x", "y", "z", ""][number % 4];
        let call = Call { region: "eu", zone, ..Call::new("t", "s") };
        let moment = random.moment(0);
        let (_, group) = of(&table, &call, &moment).unwrap();
        let served = decide(&table, &call, &moment).unwrap().instance;
        let zone = served.zone.as_ref().unwrap();
        assert!(group == "eu" || group == format!("eu/{zone}"), "{group} serves by {}", served.id);
        groups.insert(group);
    }
    assert_eq!(groups.iter().collect::<Vec<_>>(), ["eu", "eu/x", "eu/y"]);
    let anywhere = Call::new("t", "s");
    assert_eq!(of(&table, &anywhere, &Moment::default()), Some(("v1.0".to_owned(), String::new())));
    table.set_instances(&service("s"), vec![instance("b", "2")]);
    let stands_in = of(&table, &anywhere, &Moment::default());
    assert_eq!(stands_in, Some(("v2.0".to_owned(), String::new())), "the version that stands in");
    table.set_instances(&service("s"), Vec::new());
    assert_eq!(of(&table, &anywhere, &Moment::default()), None);
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
