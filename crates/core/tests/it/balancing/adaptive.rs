//! Strategies that look at live figures.

use super::{chosen, complete, counts};
use crate::fixture::{Random, apply, balanced_by, instance, instances, member, policy, service, table};
use grey_core::instance::Instance;
use grey_core::policy::Strategy;

#[test]
fn the_idle_one_of_two_gets_the_call() {
    let table = table(Strategy::LeastConnections, instances(2));
    for _ in 0..100 {
        member(&table, "a").load.assign(0);
    }
    assert_eq!(counts(&table, &mut Random(1), 0, 80)["b"], 80);
    assert_eq!(counts(&table, &mut Random(1), 0, 40).len(), 2, "once even, both serve");
}

#[test]
fn calls_nobody_ends_stay_even() {
    let table = table(Strategy::LeastConnections, instances(8));
    let counts = counts(&table, &mut Random(2), 0, 8_000);
    assert!(counts.len() == 8 && counts.values().all(|count| (990..=1_010).contains(count)), "{counts:?}");
}

#[test]
fn a_heavier_instance_carries_more_connections() {
    let list = vec![Instance { weight: 3, ..instance("a", "1") }, instance("b", "1")];
    let table = table(Strategy::LeastConnections, list);
    let counts = counts(&table, &mut Random(3), 0, 4_000);
    assert!((2_900..3_100).contains(&counts["a"]), "{counts:?}");
}

#[test]
fn a_slow_instance_is_left_at_once_and_tried_again_later() {
    let table = table(Strategy::PeakEwma, instances(3));
    let mut random = Random(4);
    // Each call ends before the next, 10 ms later.
    let mut serve = |from: u32, calls: u32| {
        let mut to_a = 0;
        for at in 0..calls {
            let now = from + at * 10;
            let id = chosen(&table, &random.moment(now));
            complete(&table, &id, now, 5_000, true);
            to_a += u32::from(id == "a");
        }
        to_a
    };
    assert!(serve(0, 300) > 30);
    complete(&table, "a", 3_000, 2_000_000, true);
    assert_eq!(serve(3_000, 300), 0);
    let later = serve(120_000, 600);
    assert!(later > 60, "{later}");
}

#[test]
fn an_instance_that_never_answers_does_not_draw_the_calls() {
    let table = table(Strategy::PeakEwma, instances(4));
    let (mut random, mut to_mute) = (Random(5), 0);
    for at in 0..2_000u32 {
        let now = at * 10;
        let id = chosen(&table, &random.moment(now));
        if id == "d" {
            to_mute += 1;
        } else {
            complete(&table, &id, now, 20_000, true);
        }
    }
    assert!((1..200).contains(&to_mute), "{to_mute} of 2,000");
}

/// Share of the calls that reach `a`, which fails a part of them at once; the others take 20 ms each, and
/// `under_way` calls are in flight at any time.
fn share_of_failing(strategy: Strategy, failing: f32, under_way: usize) -> f32 {
    let table = table(strategy, instances(5));
    let mut random = Random(10);
    let (mut to_a, mut open) = (0, std::collections::VecDeque::new());
    for at in 0..10_000u32 {
        let now = at * 10;
        let id = chosen(&table, &random.moment(now));
        to_a += u32::from(id == "a");
        if id == "a" && (random.next() % 1_000) as f32 / 1_000.0 < failing {
            complete(&table, &id, now, 1_000, false);
        } else {
            open.push_back(id);
        }
        if open.len() > under_way {
            complete(&table, &open.pop_front().unwrap(), now, 20_000, true);
        }
    }
    to_a as f32 / 10_000.0
}

#[test]
fn an_instance_that_fails_at_once_gets_less_than_its_share() {
    for strategy in [Strategy::PeakEwma, Strategy::LeastConnections, Strategy::HealthAware] {
        for under_way in [0, 20, 400] {
            let share = share_of_failing(strategy, 1.0, under_way);
            assert!(share < 0.05, "{strategy:?} with {under_way} under way: {share}");
            let share = share_of_failing(strategy, 0.5, under_way);
            assert!(share < 0.2, "{strategy:?} with {under_way} under way, half failing: {share}");
        }
        let share = share_of_failing(strategy, 0.0, 20);
        assert!((0.15..0.25).contains(&share), "{strategy:?}, well: {share}");
    }
}

#[test]
fn an_instance_that_failed_is_tried_again_and_takes_its_share_once_it_is_well() {
    for strategy in [Strategy::PeakEwma, Strategy::LeastConnections] {
        let table = table(strategy, instances(3));
        let mut random = Random(11);
        for _ in 0..100 {
            complete(&table, "a", 0, 1_000, false);
        }
        let mut serve = |from: u32| {
            let mut to_a = 0;
            for at in 0..300 {
                let now = from + at * 10;
                let id = chosen(&table, &random.moment(now));
                complete(&table, &id, now, 5_000, true);
                to_a += u32::from(id == "a");
            }
            to_a
        };
        assert!(serve(0) < 10, "{strategy:?}");
        let later = serve(120_000);
        assert!((60..140).contains(&later), "{strategy:?}: {later} of 300");
    }
}

#[test]
fn one_absurd_latency_does_not_keep_the_calls_away_for_long() {
    let table = table(Strategy::PeakEwma, instances(3));
    let mut random = Random(12);
    let mut serve = |from: u32, calls: u32| {
        let mut to_a = 0;
        for at in 0..calls {
            let now = from + at * 10;
            let id = chosen(&table, &random.moment(now));
            complete(&table, &id, now, 5_000, true);
            to_a += u32::from(id == "a");
        }
        to_a
    };
    serve(0, 300);
    complete(&table, "a", 3_000, u32::MAX, true);
    assert!(serve(3_000, 6_000) > 100, "within a minute");
}

#[test]
fn a_failing_instance_keeps_a_trickle_and_recovers() {
    let table = table(Strategy::HealthAware, instances(4));
    let mut random = Random(6);
    let mut serve = |well: bool| {
        let mut to_a = 0;
        for _ in 0..8_000 {
            let id = chosen(&table, &random.moment(0));
            complete(&table, &id, 0, 1_000, well || id != "a");
            to_a += usize::from(id == "a");
        }
        to_a
    };
    let failing = serve(false);
    assert!((20..600).contains(&failing), "{failing} of 8,000");
    serve(true);
    let well = serve(true);
    assert!((1_700..2_300).contains(&well), "{well} of 8,000");
}

#[test]
fn health_is_weighed_with_weight() {
    let list = vec![Instance { weight: 3, ..instance("a", "1") }, instance("b", "1")];
    let table = table(Strategy::HealthAware, list);
    let counts = counts(&table, &mut Random(8), 0, 8_000);
    assert!((5_800..6_200).contains(&counts["a"]), "{counts:?}");
}

#[test]
fn live_figures_stay_with_an_instance_from_list_to_list_and_strategy_to_strategy() {
    let mut table = table(Strategy::LeastConnections, instances(2));
    counts(&table, &mut Random(9), 0, 100);
    complete(&table, "a", 0, 70_000, false);
    let figures = |table: &grey_core::table::Table| {
        ["a", "b"].map(|id| {
            let load = &member(table, id).load;
            (load.calls(0), load.latency_us(0), load.success())
        })
    };
    let before = figures(&table);
    assert!(before[0].0 > 40.0 && before[0].1 > 60_000.0 && before[0].2 < 1.0);
    table.set_instances(&service("s"), instances(3));
    assert_eq!(figures(&table), before);
    apply(&mut table, vec![policy(balanced_by(Strategy::PeakEwma))]);
    assert_eq!(figures(&table), before);
    table.set_instances(&service("s"), instances(2));
    assert_eq!(figures(&table), before);
    let published = table.clone();
    complete(&table, "a", 0, 1, true);
    assert_eq!(figures(&published), figures(&table), "an older table shares them");
}
