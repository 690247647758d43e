//! Shares of overlays: exact, monotone, independent.

use crate::fixture::{apply, declare, known, open, overlay, pin_to, policy, service, table, tenant, version};
use crate::overlays::{experiment, lay, settled, with_pinned};
use grey_core::change::Change;
use grey_core::decide::{Call, Rule, choose_version};
use grey_core::key::Fact;
use grey_core::policy::{Buckets, Overlay, Policy, Strategy, UnknownTenant};
use grey_core::service::Pin;
use grey_core::table::Table;
use std::collections::BTreeSet;

const TENANTS: usize = 4_000;

fn overlaid(overlays: Vec<Overlay>) -> Table {
    let mut table = table(Strategy::RoundRobin, Vec::new());
    apply(&mut table, ["1", "2", "3"].map(|of| open("s", of)).to_vec());
    let stateless =
        Policy { unknown_tenant: UnknownTenant::UseDefault, stateless: true, ..Policy::default() };
    apply(&mut table, vec![policy(stateless)]);
    apply(&mut table, overlays.into_iter().map(lay).collect());
    table
}

fn canary(id: &str, to: &str, weight: u32) -> Overlay {
    crate::overlays::canary(id, ["1", to], weight)
}

/// Arm a serves version 2, arm b version 3.
fn two_arms(weights: [u32; 2]) -> Overlay {
    experiment("e", &[("a", "2", weights[0]), ("b", "3", weights[1])])
}

/// Tenants that get this version.
fn on(table: &Table, of: &str) -> BTreeSet<String> {
    let all = (0..TENANTS).map(|at| format!("t{at}"));
    all.filter(|id| choose_version(table, &Call::new(id, "s")).unwrap().version == &version(of)).collect()
}

fn rule_for(table: &Table, id: &str) -> String {
    format!("{:?}", choose_version(table, &Call::new(id, "s")).unwrap().rule)
}

fn held(id: &str, of: &str, locked: bool) -> Change {
    Change::Put(Fact::Pin(tenant(id), service("s"), Pin { version: version(of), locked }))
}

/// Whether a share is that of a binomial distribution, within four standard deviations.
fn is_share(count: usize, weight: u32) -> bool {
    let share = f64::from(weight) / 10_000.0;
    let expected = TENANTS as f64 * share;
    (count as f64 - expected).abs() <= 4.0 * (expected * (1.0 - share)).sqrt()
}

#[test]
fn raising_a_canary_only_adds_tenants_and_lowering_it_only_drops_some() {
    let weights = [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000];
    let ups_and_downs = weights.into_iter().chain(weights.into_iter().rev());
    // A neighbour in the middle of its layer makes it take ranges on both sides.
    let neighbours = [Vec::new(), vec![beside("c", Buckets::from_ranges(vec![(900, 4_000)]).unwrap())]];
    for others in neighbours {
        let room = 10_000 - others.iter().map(|other| other.buckets().weight()).sum::<u32>();
        let mut before = settled(canary("c", "2", 0), None, &others);
        let mut was = BTreeSet::new();
        for weight in ups_and_downs.clone().map(|weight| weight.min(room)) {
            let after = settled(canary("c", "2", weight), Some(&before), &others);
            let mut overlays = vec![after.clone()];
            overlays.extend(others.clone());
            let now = on(&overlaid(overlays), "2");
            if weight >= before.buckets().weight() {
                assert!(now.is_superset(&was), "{weight}");
            } else {
                assert!(now.is_subset(&was), "{weight}");
            }
            assert!(is_share(now.len(), weight), "{} at {weight}", now.len());
            (before, was) = (after, now);
        }
    }
}

/// A canary to version 3 with these buckets of a layer.
fn beside(layer: &str, buckets: Buckets) -> Overlay {
    let mut other = Overlay { layer: overlay(layer), salt: layer.to_owned(), ..canary("beside", "3", 0) };
    if let grey_core::policy::OverlayKind::Canary(canary) = &mut other.kind {
        canary.buckets = buckets;
    }
    other
}

#[test]
fn raising_any_arm_of_an_experiment_moves_nobody_else() {
    let before = two_arms([2_000, 1_000]);
    let small = overlaid(vec![before.clone()]);
    for weights in [[2_000, 3_000], [4_000, 1_000]] {
        let large = overlaid(vec![settled(two_arms(weights), Some(&before), &[])]);
        for of in ["2", "3"] {
            assert!(on(&large, of).is_superset(&on(&small, of)), "{weights:?}");
        }
        assert!(on(&large, "2").is_disjoint(&on(&large, "3")));
        assert!(is_share(on(&large, "2").len(), weights[0]) && is_share(on(&large, "3").len(), weights[1]));
    }
}

#[test]
fn moving_weight_between_arms_moves_only_that_share() {
    let before = two_arms([7_000, 3_000]);
    let after = settled(two_arms([6_000, 4_000]), Some(&before), &[]);
    let (was, now) = (overlaid(vec![before]), overlaid(vec![after]));
    assert!(on(&now, "2").is_subset(&on(&was, "2")) && on(&now, "3").is_superset(&on(&was, "3")));
    assert!(is_share(on(&was, "2").difference(&on(&now, "2")).count(), 1_000));
}

#[test]
fn overlays_with_salts_of_their_own_choose_independently() {
    let first = on(&overlaid(vec![canary("c1", "2", 5_000)]), "2");
    let second = on(&overlaid(vec![canary("c2", "2", 5_000)]), "2");
    let both = first.intersection(&second).count();
    assert!((880..1_120).contains(&both), "{both} of {TENANTS}, a quarter expected");
}

#[test]
fn overlays_of_one_layer_share_no_tenant() {
    let first = canary("c1", "2", 4_000);
    let second = Overlay { layer: first.layer.clone(), ..canary("c2", "3", 6_000) };
    let second = settled(second, None, std::slice::from_ref(&first));
    let alone = on(&overlaid(vec![second.clone()]), "3");
    let table = overlaid(vec![first, second]);
    assert_eq!(on(&table, "3"), alone, "none of them is taken by the other one");
    assert_eq!(on(&table, "2").len() + alone.len(), TENANTS, "the layer is full");
}

#[test]
fn the_lower_order_comes_first_and_after_it_the_id() {
    let all = |id: &str, to: &str, order| Overlay { order, ..canary(id, to, 10_000) };
    for (overlays, first) in [
        ([all("a", "2", 1), all("b", "3", 0)], "3"),
        ([all("a", "2", 0), all("b", "3", 1)], "2"),
        ([all("b", "3", 1), all("a", "2", 1)], "2"),
    ] {
        let mut reversed = overlays.to_vec();
        reversed.reverse();
        for overlays in [overlays.to_vec(), reversed] {
            assert_eq!(on(&overlaid(overlays), first).len(), TENANTS);
        }
    }
    // A change of order takes effect, and so does a removal.
    let mut table = overlaid(vec![all("a", "2", 1), all("b", "3", 2)]);
    apply(&mut table, vec![lay(all("b", "3", 0))]);
    assert_eq!(on(&table, "3").len(), TENANTS);
    let gone = grey_core::key::Key::Overlay(service("s"), overlay("b"));
    apply(&mut table, vec![Change::Removed(gone)]);
    assert_eq!(on(&table, "2").len(), TENANTS);
}

#[test]
fn experiments_come_first_and_a_locked_pin_is_left_alone() {
    let everyone = with_pinned(Overlay { order: 9, ..two_arms([0, 10_000]) });
    let mut table = overlaid(vec![canary("c", "2", 10_000), everyone]);
    let expected = format!("{:?}", Rule::Experiment { overlay: &overlay("e"), variant: &overlay("b") });
    assert_eq!(rule_for(&table, "t"), expected);
    apply(&mut table, vec![known("t"), held("t", "1", true)]);
    assert_eq!(rule_for(&table, "t"), "Pin");
    apply(&mut table, vec![held("t", "1", false)]);
    assert_eq!(rule_for(&table, "t"), expected);
}

#[test]
fn an_experiment_leaves_pinned_tenants_alone_unless_it_says_that_it_includes_them() {
    let arm = || experiment("e", &[("a", "2", 10_000)]);
    let mut table = overlaid(vec![arm()]);
    let pins = vec![known("free"), known("held"), known("locked"), pin_to("held", "s", "3")];
    apply(&mut table, pins);
    apply(&mut table, vec![held("locked", "3", true)]);
    let version_of = |table: &Table, id: &str| {
        choose_version(table, &Call::new(id, "s")).unwrap().version.as_str().to_owned()
    };
    let versions = |table: &Table| ["free", "held", "locked"].map(|id| version_of(table, id));
    assert_eq!(versions(&table), ["v2.0", "v3.0", "v3.0"]);
    assert_eq!(rule_for(&table, "held"), "Pin");
    apply(&mut table, vec![lay(with_pinned(arm()))]);
    assert_eq!(versions(&table), ["v2.0", "v2.0", "v3.0"]);
    apply(&mut table, vec![lay(arm())]);
    assert_eq!(versions(&table), ["v2.0", "v3.0", "v3.0"]);
}

#[test]
fn a_canary_takes_only_from_its_baseline_pinned_or_not() {
    let mut table = overlaid(vec![canary("c", "3", 10_000)]);
    assert_eq!(on(&table, "3").len(), TENANTS);
    apply(&mut table, vec![declare("s", "2"), known("t0"), pin_to("t0", "s", "1")]);
    assert_eq!(on(&table, "3"), BTreeSet::from(["t0".to_owned()]));
}
