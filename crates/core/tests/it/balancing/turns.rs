//! Round robin, weighted round robin and random.

use super::{chosen, counts};
use crate::fixture::{Random, apply, balanced_by, instance, instances, policy, service, table};
use grey_core::balance::Moment;
use grey_core::instance::Instance;
use grey_core::policy::Strategy;
use grey_core::table::Table;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn take(table: &Table, calls: usize) -> Vec<String> {
    (0..calls).map(|_| chosen(table, &Moment::default())).collect()
}

fn count(ids: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    ids.iter().for_each(|id| *counts.entry(id.as_str()).or_default() += 1);
    counts
}

fn weighted(weights: &[u32]) -> Vec<Instance> {
    let one = |(at, weight): (usize, &u32)| Instance { weight: *weight, ..instance(&format!("i{at}"), "1") };
    weights.iter().enumerate().map(one).collect()
}

proptest! {
    #[test]
    fn any_run_of_whole_rounds_gives_everyone_the_same(n in 1..9u8, skip in 0..20usize, rounds in 1..6usize) {
        let table = table(Strategy::RoundRobin, instances(n));
        take(&table, skip);
        let taken = take(&table, usize::from(n) * rounds);
        let counts = count(&taken);
        prop_assert_eq!(counts.len(), usize::from(n));
        prop_assert!(counts.values().all(|count| *count == rounds), "{counts:?}");
    }

    #[test]
    fn any_run_of_a_whole_cycle_meets_the_weights_exactly(weights in prop::collection::vec(1..10u32, 1..7), skip in 0..50usize) {
        let table = table(Strategy::WeightedRoundRobin, weighted(&weights));
        take(&table, skip);
        let taken = take(&table, weights.iter().sum::<u32>() as usize);
        for (at, weight) in weights.iter().enumerate() {
            let got = taken.iter().filter(|id| **id == format!("i{at}")).count();
            prop_assert_eq!(got, *weight as usize, "{:?}", weights);
        }
    }
}

proptest! {
    #[test]
    fn cores_that_count_for_themselves_serve_everyone_alike(n in 1..9u8, calls in prop::collection::vec(0..12usize, 1..200)) {
        let table = table(Strategy::RoundRobin, instances(n));
        let cores = *calls.iter().max().unwrap_or(&0) + 1;
        let taken: Vec<String> =
            calls.iter().map(|core| chosen(&table, &Moment { core: *core, ..Moment::default() })).collect();
        let counts = count(&taken);
        let even = calls.len() / usize::from(n);
        let (most, least) = (counts.values().max().unwrap(), counts.values().min().unwrap());
        prop_assert!(*most <= even + cores, "{counts:?}");
        prop_assert!(counts.len() < usize::from(n) || *least + cores >= even, "{counts:?}");
    }
}

#[test]
fn the_first_calls_of_several_cores_go_to_several_instances() {
    let table = table(Strategy::RoundRobin, instances(4));
    let first: Vec<String> =
        (0..4).map(|core| chosen(&table, &Moment { core, ..Moment::default() })).collect();
    assert_eq!(count(&first).len(), 4, "{first:?}");
}

#[test]
fn weighted_turns_are_spread_and_not_bunched() {
    let table = table(Strategy::WeightedRoundRobin, weighted(&[6, 2, 1]));
    let taken = take(&table, 90);
    let heavy_runs = taken.split(|id| id != "i0").map(<[String]>::len).max().unwrap();
    assert!(heavy_runs <= 4, "{taken:?}");
    assert!(taken.windows(2).all(|pair| pair[0] == "i0" || pair[0] != pair[1]), "{taken:?}");
}

#[test]
fn a_heavy_instance_never_serves_a_long_run() {
    for (weights, longest) in [
        ([&[5u32, 1, 1][..], &[]], 4),
        ([&[10][..], &[1; 10]], 2),
        ([&[1; 10][..], &[10]], 2),
        ([&[100][..], &[5; 20]], 2),
        ([&[1_000][..], &[100; 10]], 2),
    ] {
        let weights = weights.concat();
        let table = table(Strategy::WeightedRoundRobin, weighted(&weights));
        let taken = take(&table, 1_000);
        let run = taken.chunk_by(|a, b| a == b).map(<[String]>::len).max().unwrap();
        assert!(run <= longest, "{run} in a row of {weights:?}");
    }
}

#[test]
fn random_is_uniform() {
    let table = table(Strategy::Random, instances(5));
    let counts = counts(&table, &mut Random(7), 0, 20_000);
    let chi: f64 = counts.values().map(|count| (*count as f64 - 4_000.0).powi(2) / 4_000.0).sum();
    assert!(counts.len() == 5 && chi < 18.5, "4 degrees of freedom: {chi} {counts:?}");
}

#[test]
fn the_fleets_turn_gives_one_order_whoever_asks() {
    for strategy in [Strategy::RoundRobin, Strategy::WeightedRoundRobin] {
        let fleet = [table(strategy, weighted(&[2, 1, 1])), table(strategy, weighted(&[2, 1, 1]))];
        take(&fleet[1], 3);
        let turn = |turn: u64, router: usize| {
            chosen(&fleet[router], &Moment { turn: Some(turn), ..Moment::default() })
        };
        let by_one: Vec<_> = (0..24).map(|at| turn(at, 0)).collect();
        let by_all: Vec<_> = (0..24).map(|at| turn(at, (at % 2) as usize)).collect();
        assert_eq!(by_one, by_all, "{strategy:?}");
        assert_eq!(count(&by_one).len(), 3);
        let again = turn(u64::MAX, 0);
        assert_eq!(again, turn(u64::MAX, 1));
    }
}

#[test]
fn turns_go_on_when_the_list_is_set_again() {
    let mut table = table(Strategy::RoundRobin, instances(4));
    let mut taken = Vec::new();
    for _ in 0..40 {
        // The registry repeats the list, and somebody else comes and goes.
        taken.extend(take(&table, 1));
        let mut list = instances(4);
        list.push(instance("other", "2"));
        table.set_instances(&service("s"), list);
        taken.extend(take(&table, 1));
        table.set_instances(&service("s"), instances(4));
    }
    assert!(count(&taken).values().all(|count| *count == 20), "{taken:?}");
}

#[test]
fn an_instance_that_comes_or_goes_leaves_the_rest_even() {
    let mut table = table(Strategy::RoundRobin, instances(3));
    let mut taken = Vec::new();
    for round in 0..30u8 {
        table.set_instances(&service("s"), instances(3 + round % 2));
        taken.extend(take(&table, 7));
    }
    let counts = count(&taken);
    let steady: Vec<usize> = ["a", "b", "c"].iter().map(|id| counts[id]).collect();
    assert!(steady.iter().max().unwrap() - steady.iter().min().unwrap() <= 15, "{counts:?}");
    assert!(counts["d"] >= 15, "{counts:?}");
}

#[test]
fn a_strategy_set_later_takes_effect_at_once() {
    let mut table = table(Strategy::RoundRobin, weighted(&[3, 1]));
    assert_eq!(count(&take(&table, 8))["i0"], 4);
    apply(&mut table, vec![policy(balanced_by(Strategy::WeightedRoundRobin))]);
    assert_eq!(count(&take(&table, 8))["i0"], 6);
    apply(&mut table, vec![policy(balanced_by(Strategy::RoundRobin))]);
    assert_eq!(count(&take(&table, 8))["i0"], 4);
}
