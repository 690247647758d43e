//! Selecting tenants by what they have in common.

use crate::fixture::{apply, declare, known, name, open, pin_to, service, tenant, version};
use crate::history::{SERVICES, TENANTS, fold, history, some_instances};
use crate::moves::without_holds;
use crate::overlays::{canary, lay};
use grey_core::change::Change;
use grey_core::decide::{Call, choose_version};
use grey_core::ids::TenantId;
use grey_core::key::Fact;
use grey_core::selector::{Conditions, EmptySelector, Selector, select};
use grey_core::table::{Row, Table};
use grey_core::tenant::{Tenant, TenantStatus};
use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;
use proptest::sample;

fn some_conditions() -> impl Strategy<Value = Conditions> {
    let labels = btree_map(
        Just(name("plan")),
        btree_set(sample::select(&["a", "b"][..]).prop_map(str::to_owned), 0..3),
        0..2,
    );
    let on_version = (sample::select(&SERVICES[..]), sample::select(&["1.0", "1.1", "2.0"][..]));
    (
        btree_set(sample::select(&["acme", "globex", "nobody"][..]).prop_map(tenant), 0..3),
        labels,
        btree_set(sample::select(&["gold", "free"][..]).prop_map(name), 0..2),
        btree_set(sample::select(&["eu", "us"][..]).prop_map(name), 0..2),
        option::of(sample::select(&[TenantStatus::Active, TenantStatus::Suspended][..])),
        option::of(on_version.prop_map(|(of, at)| (service(of), version(at)))),
    )
        .prop_map(|(tenants, labels, tiers, regions, status, on_version)| Conditions {
            tenants,
            labels,
            tiers,
            regions,
            status,
            on_version,
        })
}

/// Whether each condition holds; the version is the one that a call gets once its tenant is active.
fn meant(table: &Table, tenant: &Tenant, conditions: &Conditions) -> bool {
    (conditions.tenants.is_empty() || conditions.tenants.contains(&tenant.id))
        && (conditions.tiers.is_empty()
            || tenant.tier.as_ref().is_some_and(|tier| conditions.tiers.contains(tier)))
        && (conditions.regions.is_empty()
            || tenant.region.as_ref().is_some_and(|region| conditions.regions.contains(region)))
        && conditions
            .labels
            .iter()
            .all(|(label, values)| tenant.labels.get(label).is_some_and(|value| values.contains(value)))
        && conditions.status.is_none_or(|status| status == tenant.status)
        && conditions.on_version.as_ref().is_none_or(|(of, at)| {
            let mut woken = table.clone();
            let active = Tenant { status: TenantStatus::Active, ..tenant.clone() };
            apply(&mut woken, vec![Change::Put(Fact::Tenant(Box::new(active)))]);
            let chosen = choose_version(&woken, &Call::new(tenant.id.as_str(), of.as_str()));
            chosen.is_ok_and(|chosen| chosen.version == at)
        })
}

fn ids(selected: Vec<(&TenantId, &Row)>) -> Vec<TenantId> {
    selected.into_iter().map(|(tenant, _)| tenant.clone()).collect()
}

fn selected(table: &Table, conditions: Conditions) -> Vec<TenantId> {
    ids(select(table, &Selector::matching(conditions).unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn selected_are_those_for_whom_every_condition_holds(
        events in history(),
        instances in some_instances(),
        conditions in some_conditions(),
    ) {
        let (table, model) = fold(&without_holds(events), &instances);
        let all: Vec<TenantId> = model.tenants.keys().cloned().collect();
        prop_assert_eq!(&ids(select(&table, &Selector::all())), &all);
        let expected: Vec<TenantId> =
            all.into_iter().filter(|id| meant(&table, &model.tenants[id], &conditions)).collect();
        match Selector::matching(conditions.clone()) {
            Ok(selector) => prop_assert_eq!(ids(select(&table, &selector)), expected),
            Err(EmptySelector) => prop_assert_eq!(conditions, Conditions::default()),
        }
    }
}

#[test]
fn nothing_said_is_not_everyone() {
    assert_eq!(Selector::matching(Conditions::default()), Err(EmptySelector));
}

#[test]
fn a_present_version_is_what_the_rules_give_whatever_runs() {
    let mut table = Table::default();
    apply(&mut table, vec![declare("s", "1"), open("s", "1"), open("s", "2"), open("s", "3")]);
    apply(&mut table, TENANTS.map(known).to_vec());
    apply(&mut table, vec![pin_to("acme", "s", "3"), pin_to("globex", "s", "1")]);
    let on = |table: &Table, at: &str| {
        let on_version = Some((service("s"), version(at)));
        selected(table, Conditions { on_version, ..Conditions::default() })
    };
    assert_eq!(on(&table, "1"), ["globex", "initech"].map(tenant));
    assert_eq!(on(&table, "3"), ["acme"].map(tenant));
    apply(&mut table, vec![lay(canary("c", ["1", "2"], 10_000))]);
    assert_eq!(on(&table, "1"), []);
    assert_eq!(on(&table, "2"), ["globex", "initech"].map(tenant));
}
