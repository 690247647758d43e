//! What is told of moves before a change is what is seen after it.

use crate::fixture::{
    apply, declare, instance, known, name, observed_schema, open, pin_to, policy, schema, service, table,
    tenant, version, window,
};
use crate::history::{SERVICES, TENANTS, fold, history, some_change, some_instances};
use crate::overlays::{canary, lay};
use grey_core::balance::Moment;
use grey_core::change::{Change, Event};
use grey_core::decide::{Call, Detour, decide};
use grey_core::error::Refusal;
use grey_core::ids::TenantId;
use grey_core::key::{Fact, Key};
use grey_core::moves::{Budget, Lack, Loss, Move, Moves, moves};
use grey_core::policy::{Failover, Overlay, Policy, Strategy as Balance, Unit, UnknownTenant};
use grey_core::schema::SchemaWindow;
use grey_core::table::Table;
use grey_core::tenant::{Tenant, TenantStatus};
use grey_core::version::Version;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};

/// From, to, and what is lacking of which wanted version.
type Kind = (Option<Version>, Option<Version>, Option<(Version, Lack)>);
type Groups = BTreeMap<(&'static str, Kind), BTreeSet<TenantId>>;
type Seen = Result<(Version, Option<(Version, Detour)>), Refusal>;

fn seen(table: &Table, tenant: &str, service: &str) -> Seen {
    let decision = decide(table, &Call::new(tenant, service), &Moment::default())?;
    Ok((decision.version.clone(), decision.detour.map(|(wanted, why)| (wanted.clone(), why))))
}

/// What two decisions make of a move, said once more: by what was served, else by what had no instance.
fn observed(before: &Seen, after: &Seen) -> Option<Kind> {
    let served = |seen: &Seen| seen.as_ref().ok().map(|(version, _)| version.clone());
    let idle = |seen: &Seen| match seen {
        Err(Refusal::NoInstance { version }) => Some(version.clone()),
        _ => None,
    };
    let anyone_served = before.is_ok() || after.is_ok();
    let [from, to] = [before, after].map(|seen| if anyone_served { served(seen) } else { idle(seen) });
    if from == to {
        return None;
    }
    let lack = match after {
        _ if from.is_none() => None,
        Err(Refusal::NoLegalVersion { wanted }) => Some((wanted.clone(), Lack::Schema)),
        Err(Refusal::NoInstance { version }) if before.is_ok() => Some((version.clone(), Lack::Instance)),
        Ok((_, Some((wanted, why)))) => {
            let known = before.as_ref().is_ok_and(|(_, was)| was.as_ref().is_some_and(|(_, was)| was == why));
            let lack = if *why == Detour::Schema { Lack::Schema } else { Lack::Instance };
            (!known).then(|| (wanted.clone(), lack))
        }
        _ => None,
    };
    Some((from, to, lack))
}

fn declared(tables: [&Table; 2]) -> impl Iterator<Item = &'static str> {
    TENANTS.into_iter().filter(move |id| {
        tables.iter().any(|table| table.tenant(id).is_some_and(|row| row.profile().is_some()))
    })
}

/// Groups with their tenants, by deciding for each tenant and service.
fn brute_force(before: &Table, after: &Table) -> Groups {
    let mut groups = Groups::new();
    for of in SERVICES {
        for id in declared([before, after]) {
            let kind = observed(&seen(before, id, of), &seen(after, id, of));
            if let Some(kind) = kind {
                groups.entry((of, kind)).or_default().insert(tenant(id));
            }
        }
    }
    groups
}

fn told(moves: &Moves) -> Groups {
    let kind = |group: &Move| {
        let of = SERVICES.into_iter().find(|id| *id == group.service.as_str()).unwrap();
        let lack = group.loss.as_ref().map(|loss| (loss.wanted.clone(), loss.lack));
        (of, (group.from.clone(), group.to.clone(), lack))
    };
    moves.groups.iter().map(|group| (kind(group), group.examples.iter().cloned().collect())).collect()
}

/// A hold refuses for a moment and moves nobody, so it is no move, though a decision shows it.
pub(crate) fn without_holds(events: Vec<Event>) -> Vec<Event> {
    events.into_iter().map(|event| Event { changes: settled(event.changes), ..event }).collect()
}

fn settled(mut changes: Vec<Change>) -> Vec<Change> {
    changes.retain(|change| !matches!(change.key(), Key::Hold(..)));
    changes
}

fn after(table: &Table, changes: &[Change]) -> Table {
    let mut after = table.clone();
    apply(&mut after, changes.to_vec());
    after
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn told_moves_are_those_that_decisions_show(
        events in history(),
        instances in some_instances(),
        changes in prop::collection::vec(some_change(), 1..6),
    ) {
        let (events, changes) = (without_holds(events), settled(changes));
        let (table, model) = fold(&events, &instances);
        let moves = moves(&table, &changes, TENANTS.len());
        prop_assert_eq!(told(&moves), brute_force(&table, &after(&table, &changes)));
        for group in &moves.groups {
            prop_assert_eq!(group.tenants, group.examples.len() as u64);
            prop_assert!(group.examples.is_sorted());
        }
        let active = model.tenants.values().filter(|tenant| tenant.status == TenantStatus::Active).count();
        prop_assert_eq!(moves.active, active as u64);
    }
}

#[test]
fn random_worlds_reach_every_kind_of_move() {
    let mut runner = TestRunner::deterministic();
    let world = (history(), some_instances(), prop::collection::vec(some_change(), 1..6));
    let mut kinds = BTreeSet::new();
    for _ in 0..2_000 {
        let (events, instances, changes) = world.new_tree(&mut runner).unwrap().current();
        let (table, _) = fold(&events, &instances);
        for group in moves(&table, &changes, 1).groups {
            let lack = group.loss.map(|loss| loss.lack);
            kinds.insert((group.from.is_some(), group.to.is_some(), lack));
        }
    }
    let lacks = [None, Some(Lack::Schema), Some(Lack::Instance)];
    let mut every: BTreeSet<_> = lacks.map(|lack| (true, true, lack)).into();
    every.extend(lacks.map(|lack| (true, false, lack)));
    every.insert((false, true, None));
    assert_eq!(kinds, every);
}

/// A service with so many tenants on version 1, of which any version has an instance but 3.
fn many(tenants: usize) -> Table {
    let mut table = table(Balance::RoundRobin, Vec::new());
    apply(&mut table, ["1", "2", "3"].map(|of| open("s", of)).to_vec());
    apply(&mut table, (0..tenants).map(|at| known(&format!("t{at:05}"))).collect());
    table.set_instances(&service("s"), vec![instance("a", "1"), instance("b", "2")]);
    table
}

fn failover(failover: Failover) -> Change {
    policy(Policy { unknown_tenant: UnknownTenant::UseDefault, failover, ..Policy::default() })
}

fn texts(moves: &Moves) -> Vec<String> {
    moves.groups.iter().map(Move::to_string).collect()
}

#[test]
fn a_default_without_instances_is_told_and_refused() {
    let mut table = many(2_000);
    let refused = moves(&table, &[declare("s", "3")], 3);
    assert_eq!(texts(&refused), ["2000 of s: v1.0 → refused (v3.0 has no instance for them)"]);
    apply(&mut table, vec![failover(Failover::ToNearest)]);
    let moves = moves(&table, &[declare("s", "3")], 3);
    assert_eq!(texts(&moves), ["2000 of s: v1.0 → v2.0 (v3.0 has no instance for them)"]);
    assert_eq!(moves.groups[0].examples, ["t00000", "t00001", "t00002"].map(tenant));
    let refusal = Budget::default().check(&moves, None).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "2000 of 2000 active tenants would move in service `s`, such as 2000 of s: v1.0 → v2.0 (v3.0 has no \
         instance for them); at most 100 may move unless a number is stated: look at the moves with a dry run, \
         then state `--moves 2000` (field `max_moves`)"
    );
}

#[test]
fn a_window_narrowed_under_pinned_tenants_is_told() {
    let mut table = many(300);
    let at = |number: usize| format!("t{number:05}");
    apply(&mut table, (0..200).map(|number| pin_to(&at(number), "s", "2")).collect());
    apply(&mut table, (0..150).map(|number| observed_schema(&at(number), "s", "1")).collect());
    let newer = SchemaWindow { min: Some(schema("2")), max: None };
    let moves = moves(&table, &[window("s", "2", newer)], 1);
    assert_eq!(texts(&moves), ["200 of s: v2.0 → v1.0 (v2.0 does not work on their schema)"]);
    assert_eq!(moves.largest(), 200);
    assert_eq!(Budget::default().check(&moves, Some(200)), Ok(()));
    assert!(Budget::default().check(&moves, Some(199)).is_err());
}

#[test]
fn tenants_without_any_legal_version_are_told() {
    let mut table = many(2);
    apply(&mut table, vec![observed_schema("t00000", "s", "1")]);
    let newer = || SchemaWindow { min: Some(schema("2")), max: None };
    let moves = moves(&table, &["1", "2", "3"].map(|of| window("s", of, newer())), 9);
    assert_eq!(texts(&moves), ["2 of s: v1.0 → refused (v1.0 does not work on their schema)"]);
}

#[test]
fn residency_that_no_instance_satisfies_is_told() {
    let table = many(2);
    let bound = Tenant { residency: vec![name("mars")], ..Tenant::new(tenant("t00001")) };
    let moves = moves(&table, &[Change::Put(Fact::Tenant(Box::new(bound)))], 9);
    assert_eq!(texts(&moves), ["1 of s: v1.0 → refused (v1.0 has no instance for them)"]);
    assert_eq!(moves.groups[0].examples, [tenant("t00001")]);
}

#[test]
fn a_canary_of_tenants_moves_its_share_and_one_of_users_nobody() {
    let mut table = many(1_000);
    let half = moves(&table, &[lay(canary("c", ["1", "2"], 5_000))], 0);
    assert_eq!(half.groups.len(), 1);
    assert!((400..600).contains(&half.groups[0].tenants), "{half:?}");
    assert_eq!(half.groups[0].examples, []);
    apply(&mut table, vec![lay(canary("c", ["1", "2"], 5_000))]);
    let all = moves(&table, &[lay(canary("c", ["1", "2"], 10_000))], 0);
    assert_eq!(all.groups[0].tenants + half.groups[0].tenants, 1_000);
    let of_users = Overlay { unit: Unit::User, ..canary("c", ["1", "2"], 5_000) };
    assert_eq!(moves(&table, &[lay(of_users)], 0).largest(), half.groups[0].tenants, "they go back");
    let other = Overlay { unit: Unit::User, ..canary("d", ["2", "1"], 10_000) };
    assert!(moves(&table, &[lay(other)], 0).is_empty());
}

#[test]
fn without_any_instance_the_decided_version_is_what_moves() {
    let mut table = many(200);
    table.set_instances(&service("s"), Vec::new());
    let moves = moves(&table, &[declare("s", "2")], 0);
    assert_eq!(texts(&moves), ["200 of s: v1.0 → v2.0"]);
    assert!(Budget::default().check(&moves, None).is_err());
}

#[test]
fn the_budget_is_the_greater_of_a_number_and_a_share() {
    let moved = |tenants: u64, active: u64| Moves {
        active,
        groups: vec![Move {
            service: service("s"),
            from: Some(version("1")),
            to: Some(version("2")),
            loss: None,
            tenants,
            examples: Vec::new(),
        }],
    };
    let allowed = |tenants, active, stated| Budget::default().check(&moved(tenants, active), stated).is_ok();
    assert!(allowed(100, 100, None) && !allowed(101, 101, None));
    assert!(allowed(500, 10_000, None) && !allowed(501, 10_000, None));
    assert!(allowed(501, 10_000, Some(501)) && !allowed(501, 10_000, Some(500)));
    assert!(!allowed(1, 10_000, Some(0)), "a stated number is an upper bound below the budget too");
}

#[test]
fn groups_of_a_service_add_up_and_services_do_not() {
    let group = |of: &str, to: &str, tenants| Move {
        service: service(of),
        from: Some(version("1")),
        to: Some(version(to)),
        loss: Some(Loss { wanted: version("3"), lack: Lack::Instance }),
        tenants,
        examples: Vec::new(),
    };
    let moves = |groups| Moves { active: 1_000, groups };
    let of_one = moves(vec![group("s", "2", 60), group("s", "3", 60)]);
    let refusal = Budget::default().check(&of_one, None).unwrap_err();
    assert_eq!((refusal.tenants, refusal.limit, refusal.service), (120, 100, service("s")));
    assert_eq!(Budget::default().check(&moves(vec![group("s", "2", 60), group("t", "2", 60)]), None), Ok(()));
}

#[test]
fn who_only_gains_is_told_and_never_refused() {
    let table = many(1_000);
    let created = moves(&table, &[declare("new", "1"), open("new", "1")], 0);
    assert_eq!(texts(&created), ["1000 of new: refused → v1.0"]);
    assert_eq!(Budget::default().check(&created, Some(0)), Ok(()));
    let removed = moves(&table, &[Change::Removed(Key::Service(service("s")))], 0);
    assert_eq!(texts(&removed), ["1000 of s: v1.0 → refused"]);
    assert!(Budget::default().check(&removed, None).is_err());
}

#[test]
fn a_tenant_that_comes_back_as_it_was_has_lost_its_pins() {
    let mut table = many(1);
    apply(&mut table, vec![pin_to("t00000", "s", "2")]);
    let again = [Change::Removed(Key::Tenant(tenant("t00000"))), known("t00000")];
    assert_eq!(texts(&moves(&table, &again, 0)), ["1 of s: v2.0 → v1.0"]);
}
