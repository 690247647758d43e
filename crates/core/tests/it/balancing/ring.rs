//! Consistent hashing with bounded load.

use crate::fixture::{apply, balanced_by, instance, instances, policy, service, table};
use grey_core::balance::{LOAD_BOUND, Moment};
use grey_core::decide::{Call, decide};
use grey_core::instance::Instance;
use grey_core::policy::{Balancing, HashKey, Policy, Strategy};
use grey_core::table::Table;
use std::collections::BTreeMap;

fn by_request(list: Vec<Instance>) -> Table {
    let mut table = table(Strategy::ConsistentHash, list);
    let balanced = balanced_by(Strategy::ConsistentHash);
    let balancing = Balancing { hash_key: HashKey::Request, ..balanced.balancing };
    apply(&mut table, vec![policy(Policy { balancing, ..balanced })]);
    table
}

fn owner(table: &Table, key: &str, now: u32) -> String {
    let call = Call { request_key: key, ..Call::new("t", "s") };
    decide(table, &call, &Moment { now, ..Moment::default() }).unwrap().instance.id.to_string()
}

/// Owners of a thousand keys, asked so slowly that no load builds up.
fn owners(table: &Table, from: u32) -> BTreeMap<String, String> {
    (0..1_000).map(|at| (format!("k{at}"), owner(table, &format!("k{at}"), from + at * 10_000))).collect()
}

#[test]
fn a_key_stays_with_its_instance() {
    let table = by_request(instances(10));
    let first = owners(&table, 0);
    assert_eq!(owners(&table, 20_000_000), first);
    assert_eq!(owners(&by_request(instances(10)), 0), first, "in every process");
    let mut sizes = BTreeMap::new();
    first.values().for_each(|id| *sizes.entry(id.as_str()).or_insert(0) += 1);
    assert!(sizes.len() == 10 && sizes.values().all(|size| (50..=180).contains(size)), "{sizes:?}");
}

#[test]
fn only_the_keys_of_an_instance_that_comes_or_goes_move() {
    let mut table = by_request(instances(10));
    let ten = owners(&table, 0);
    table.set_instances(&service("s"), instances(11));
    let eleven = owners(&table, 20_000_000);
    let moved: Vec<&String> = ten.keys().filter(|key| ten[*key] != eleven[*key]).collect();
    assert!((40..180).contains(&moved.len()), "{}", moved.len());
    assert!(moved.iter().all(|key| eleven[*key] == "k"), "keys move to the new one only");
    table.set_instances(&service("s"), instances(10));
    assert_eq!(owners(&table, 40_000_000), ten);
}

/// Calls of one key, each of which ends and is reported before the next.
fn serve(table: &Table, key: &str, now: u32, calls: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        let id = owner(table, key, now);
        super::complete(table, &id, now, 1_000, true);
        *counts.entry(id).or_default() += 1;
    }
    counts
}

/// Calls of one key that nobody reports the end of.
fn unreported(table: &Table, key: &str, now: u32, calls: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(owner(table, key, now)).or_default() += 1;
    }
    counts
}

#[test]
fn a_key_stays_where_nobody_reports_the_end_of_calls() {
    let table = by_request(instances(3));
    assert_eq!(unreported(&table, "t", 0, 100).len(), 1, "all at once");
    let own = owner(&table, "t", 0);
    for at in 0..1_000 {
        assert_eq!(owner(&table, "t", at * 100), own, "in a row");
    }
}

#[test]
fn a_report_now_and_then_moves_nobody() {
    let table = by_request(instances(3));
    let own = owner(&table, "t", 0);
    let mut strays = 0;
    for at in 0..2_000 {
        let now = at * 20;
        let id = owner(&table, "t", now);
        strays += usize::from(id != own);
        if at % 10 == 0 {
            super::complete(&table, &id, now, 5_000, true);
        }
    }
    assert!(strays <= 2, "{strays} of 2,000 although a tenth alone is reported");
}

#[test]
fn a_key_stays_whose_calls_end_before_the_next() {
    let table = by_request(instances(3));
    assert_eq!(serve(&table, "t", 0, 1_000).len(), 1);
}

#[test]
fn callers_that_no_longer_report_move_nobody_after_a_while() {
    let table = by_request(instances(3));
    let own = owner(&table, "t", 0);
    serve(&table, "t", 0, 1_000);
    let later = |from: u32| (0..500).filter(|at| owner(&table, "t", from + at * 20) != own).count();
    later(0);
    assert_eq!(later(10_000), 0);
}

#[test]
fn a_hot_key_leaves_an_instance_that_hangs_while_its_siblings_are_reported() {
    let table = by_request(instances(3));
    let hung = owner(&table, "t", 0);
    serve(&table, "t", 0, 1_000);
    let mut to_hung = 0;
    for at in 0..2_000u32 {
        let id = owner(&table, "t", at * 20);
        if id == hung {
            to_hung += 1;
        } else {
            super::complete(&table, &id, at * 20, 5_000, true);
        }
    }
    assert!(to_hung < 100, "{to_hung} of 2,000");
}

#[test]
fn a_heavy_instance_that_leaves_moves_its_own_keys_alone() {
    let heavy = || Instance { weight: 1_000, ..instance("heavy", "1") };
    let light = |at: u8| Instance { weight: 100, ..instance(&format!("i{at}"), "1") };
    let all: Vec<_> = (0..10).map(light).chain([heavy()]).collect();
    let mut table = by_request(all);
    let owners =
        |table: &Table| -> Vec<String> { (0..1_500).map(|at| owner(table, &format!("k{at}"), 0)).collect() };
    let before = owners(&table);
    table.set_instances(&service("s"), (0..10).map(light).collect());
    let after = owners(&table);
    let needless = before.iter().zip(&after).filter(|(was, is)| *was != "heavy" && was != is).count();
    assert_eq!(needless, 0, "of 1,500 keys");
    let of_heavy = before.iter().filter(|id| *id == "heavy").count();
    assert!((600..900).contains(&of_heavy), "{of_heavy} of 1,500, its weight is half");
}

#[test]
fn a_hot_key_spreads_before_its_instance_carries_too_much() {
    let table = by_request(instances(5));
    serve(&table, "hot", 0, 5_000);
    let mut counts = BTreeMap::new();
    for total in 1..=5_000u32 {
        let count = counts.entry(owner(&table, "hot", 0)).or_insert(0u32);
        *count += 1;
        let even = f64::from(total) / 5.0;
        assert!(f64::from(*count) <= f64::from(LOAD_BOUND) * even + 1.0, "{count} of {total}");
    }
    assert!(counts.len() >= 4, "{counts:?}");
}

#[test]
fn the_bound_counts_calls_under_way_and_not_those_that_ended() {
    let table = by_request(instances(5));
    serve(&table, "hot", 0, 5_000);
    let own = owner(&table, "hot", 0);
    let mut to_own = 1;
    for _ in 1..100 {
        to_own += usize::from(owner(&table, "hot", 0) == own);
    }
    assert!((20..=26).contains(&to_own), "{to_own} of 100 under way");
}

#[test]
fn a_heavier_instance_may_carry_more() {
    let list = vec![Instance { weight: 3, ..instance("a", "1") }, instance("b", "1")];
    let table = by_request(list);
    let heavy = (0..2_000).filter(|at| owner(&table, &format!("k{at}"), 0) == "a").count();
    assert!((1_300..1_700).contains(&heavy), "{heavy} of 2,000");
}

#[test]
fn a_large_pool_keeps_to_the_bound_too() {
    let list: Vec<_> = (0..500).map(|at| instance(&format!("i{at}"), "1")).collect();
    let table = by_request(list);
    serve(&table, "hot", 0, 5_000);
    let counts = unreported(&table, "hot", 0, 5_000);
    // An even share is 10; what a sample misses may double the bound and no more.
    assert!(counts.values().all(|count| *count <= 30), "{counts:?}");
}

#[test]
fn each_hash_key_keeps_its_own_calls_together() {
    let spread = |hash_key: HashKey, call: &dyn Fn(usize) -> Call<'static>| {
        let mut table = table(Strategy::ConsistentHash, instances(8));
        let balanced = balanced_by(Strategy::ConsistentHash);
        let balancing = Balancing { hash_key, ..balanced.balancing };
        apply(&mut table, vec![policy(Policy { balancing, ..balanced })]);
        let mut ids: Vec<String> = (0..16)
            .map(|at| {
                let moment = Moment { now: at as u32 * 60_000, ..Moment::default() };
                decide(&table, &call(at), &moment).unwrap().instance.id.to_string()
            })
            .collect();
        ids.sort();
        ids.dedup();
        ids.len()
    };
    let text = |at: usize| -> &'static str { ["0", "1", "2", "3", "4", "5", "6", "7"][at % 8] };
    let by_user = |at: usize| Call { user: text(at), request_key: "r", ..Call::new("t", "s") };
    let by_key = |at: usize| Call { user: "u", request_key: text(at), ..Call::new("t", "s") };
    let by_tenant = |at: usize| Call { user: "u", request_key: "r", ..Call::new(text(at), "s") };
    assert_eq!(spread(HashKey::Tenant, &by_user), 1);
    assert!(spread(HashKey::Tenant, &by_tenant) > 1);
    assert_eq!(spread(HashKey::User, &by_key), 1);
    assert!(spread(HashKey::User, &by_user) > 1);
    assert!(spread(HashKey::User, &by_tenant) > 1);
    assert_eq!(spread(HashKey::Request, &by_tenant), 1);
    assert!(spread(HashKey::Request, &by_key) > 1);
    assert_eq!(spread(HashKey::Metadata("cart".to_owned()), &by_key), 1, "no such entry: one key for all");
}
