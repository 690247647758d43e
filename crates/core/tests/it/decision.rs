//! The decision against the reference, and what must hold of every decision.

use crate::fixture::{
    Random, apply, declare, instance, known, observed_schema, open, pin_to, policy, service, tenant, version,
    window,
};
use crate::history::{asked, fold, history, some_instances};
use crate::overlays::{canary, lay};
use crate::reference;
use grey_core::balance::Moment;
use grey_core::decide::{Call, Decision, Detour, Rule, choose_version, decide};
use grey_core::error::Refusal;
use grey_core::explain::explain;
use grey_core::policy::{Failover, Policy};
use grey_core::schema::{SchemaVersion, SchemaWindow};
use grey_core::table::Table;
use grey_core::version::Version;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;

type Told<'t> = (&'t Version, Rule<'t>, Option<(&'t Version, Detour)>, Option<&'t SchemaVersion>);

fn told<'t>(decision: &Decision<'t>) -> Told<'t> {
    (decision.version, decision.rule, decision.detour, decision.schema)
}

/// Every live figure of the table.
fn figures(table: &Table, now: u32) -> Vec<(String, u32, u32, u32)> {
    let members = table.services().flat_map(|s| s.versions().iter().map(move |v| (s.id(), v)));
    let mut figures: Vec<_> = members
        .flat_map(|(service, slot)| slot.pool.members().iter().map(move |m| (service, m)))
        .map(|(service, m)| {
            let load = &m.load;
            let bits = (load.calls(now).to_bits(), load.latency_us(now).to_bits(), load.success().to_bits());
            (format!("{service} {}", m.instance.id), bits.0, bits.1, bits.2)
        })
        .collect();
    figures.sort();
    figures
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn decisions_are_those_of_the_reference(
        events in history(),
        instances in some_instances(),
        calls in prop::collection::vec(asked(), 1..24),
        seed: u64,
    ) {
        let (table, model) = fold(&events, &instances);
        let mut random = Random(seed);
        for call in &calls {
            let call = call.call();
            let moment = random.moment(1_000);
            match (decide(&table, &call, &moment), reference::decide(&model, &call)) {
                (Ok(decision), Ok(expected)) => {
                    let detour = expected.detour.as_ref().map(|(version, why)| (version, *why));
                    prop_assert_eq!(told(&decision), (&expected.version, expected.rule, detour, expected.schema.as_ref()));
                    prop_assert!(expected.eligible.contains(&decision.instance.id), "{:?}", decision.instance);
                }
                (decision, expected) => {
                    prop_assert_eq!(decision.map(|d| d.version.clone()), expected.map(|e| e.version));
                }
            }
        }
    }

    #[test]
    fn no_decision_leaves_the_schema_window_or_the_residency(
        events in history(),
        instances in some_instances(),
        calls in prop::collection::vec(asked(), 1..24),
    ) {
        let (table, model) = fold(&events, &instances);
        for call in &calls {
            let call = call.call();
            let Ok(decision) = decide(&table, &call, &Moment::default()) else { continue };
            let window = model.windows.get(&(service(call.service), decision.version.clone()));
            prop_assert!(window.unwrap().admits(model.schemas.get(&(tenant(call.tenant), service(call.service)))));
            prop_assert_eq!(&decision.instance.version, decision.version);
            prop_assert!(decision.instance.is_routable());
            let residency = model.tenants.get(call.tenant).map_or(&[][..], |tenant| &tenant.residency);
            let region = decision.instance.region.as_ref();
            prop_assert!(residency.is_empty() || region.is_some_and(|region| residency.contains(region)));
        }
    }

    #[test]
    fn an_explanation_tells_the_decision_and_changes_nothing(
        events in history(),
        instances in some_instances(),
        calls in prop::collection::vec(asked(), 1..24),
        seed: u64,
    ) {
        let (table, _) = fold(&events, &instances);
        let mut random = Random(seed);
        for (now, call) in (1_000..).zip(&calls) {
            let call = call.call();
            let moment = random.moment(now);
            let before = figures(&table, now);
            let explained = explain(&table, &call, &moment);
            prop_assert_eq!(figures(&table, now), before);
            let decided = decide(&table, &call, &moment);
            prop_assert_eq!(explained.outcome.map(|d| d.instance.clone()), decided.as_ref().map(|d| d.instance.clone()).map_err(Refusal::clone));
            if let Ok(decision) = decided {
                let again = explain(&table, &call, &moment).outcome.unwrap();
                prop_assert_eq!(told(&again), told(&decision));
                prop_assert!(explained.steps.iter().any(|step| step.name == "instances"));
            }
        }
    }

    #[test]
    fn the_version_depends_neither_on_the_moment_nor_on_instances(
        events in history(),
        instances in some_instances(),
        call in asked(),
        moments in prop::collection::vec(any::<(u32, u64, Option<u64>)>(), 2..6),
    ) {
        let (table, _) = fold(&events, &instances);
        let (empty, _) = fold(&events, &Default::default());
        let call = call.call();
        let chosen = |table: &Table| choose_version(table, &call).map(|c| format!("{:?} {:?} {:?}", c.version, c.rule, c.detour));
        prop_assert_eq!(chosen(&table), chosen(&empty));
        let decided = |(now, random, turn)| {
            decide(&table, &call, &Moment { now, random, turn, core: 0 }).map(|d| format!("{:?}", told(&d)))
        };
        let outcomes: Vec<_> = moments.into_iter().map(decided).collect();
        prop_assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "{outcomes:?}");
    }
}

#[test]
fn random_worlds_reach_every_kind_of_outcome() {
    let mut runner = TestRunner::deterministic();
    let world = (history(), some_instances(), prop::collection::vec(asked(), 24));
    let mut seen = BTreeMap::new();
    for _ in 0..400 {
        let (events, instances, calls) = world.new_tree(&mut runner).unwrap().current();
        let (table, _) = fold(&events, &instances);
        for call in &calls {
            let outcome = match decide(&table, &call.call(), &Moment::default()) {
                Ok(Decision { rule, detour, .. }) => {
                    let rule = format!("{rule:?}");
                    format!("{} {:?}", rule.split(' ').next().unwrap(), detour.map(|(_, why)| why))
                }
                Err(refusal) => refusal.reason().as_str().to_owned(),
            };
            *seen.entry(outcome).or_insert(0u32) += 1;
        }
    }
    for rule in ["Pin", "Default", "UnknownTenant", "Override", "Experiment", "Canary"] {
        for detour in ["None", "Some(Schema)", "Some(Failover)"] {
            assert!(seen.contains_key(&format!("{rule} {detour}")), "{rule} {detour}: {seen:#?}");
        }
    }
    assert_eq!(seen.len(), 6 * 3 + 8, "each rule with each detour, and each refusal: {seen:#?}");
}

fn schemas(min: &str, max: &str) -> SchemaWindow {
    let bound = |text: &str| (!text.is_empty()).then(|| crate::fixture::schema(text));
    SchemaWindow { min: bound(min), max: bound(max) }
}

fn version_of(table: &Table, call: &Call<'_>) -> Result<String, Refusal> {
    choose_version(table, call).map(|choice| choice.version.to_string())
}

#[test]
fn an_illegal_version_gives_way_to_base_then_default_then_older_then_newer() {
    let mut table = Table::default();
    let mut changes = vec![declare("s", "5"), known("t"), pin_to("t", "s", "2")];
    changes.push(lay(canary("c", ["2", "4"], 10_000)));
    changes.extend(["1", "2", "3", "4", "5", "6"].map(|of| window("s", of, schemas("1", "1"))));
    changes.push(observed_schema("t", "s", "1"));
    apply(&mut table, changes);
    let call = Call::new("t", "s");
    // Each step takes away the version that served before.
    for (next, left) in
        [("v4.0", "4"), ("v2.0", "2"), ("v5.0", "5"), ("v3.0", "3"), ("v1.0", "1"), ("v6.0", "6")]
    {
        assert_eq!(version_of(&table, &call), Ok(next.to_owned()));
        apply(&mut table, vec![window("s", left, schemas("2", ""))]);
    }
    assert_eq!(version_of(&table, &call), Err(Refusal::NoLegalVersion { wanted: version("4") }));
    let open_call = Call::new("stranger", "s");
    assert_eq!(version_of(&table, &open_call), Err(Refusal::UnknownTenant));
}

#[test]
fn an_overlay_to_a_version_that_only_runs_but_is_not_declared_takes_nobody() {
    let mut table = Table::default();
    let laid = lay(canary("c", ["1", "2"], 10_000));
    apply(&mut table, vec![declare("s", "1"), open("s", "1"), laid, known("t")]);
    table.set_instances(&service("s"), vec![instance("a", "1"), instance("b", "2")]);
    let decision = decide(&table, &Call::new("t", "s"), &Moment::default()).unwrap();
    assert_eq!((decision.rule, decision.detour), (Rule::Default, None));
    apply(&mut table, vec![open("s", "2")]);
    let decision = decide(&table, &Call::new("t", "s"), &Moment::default()).unwrap();
    assert_eq!(decision.instance.id.as_str(), "b");
}

#[test]
fn failover_never_names_a_version_that_the_schema_excludes() {
    let mut table = Table::default();
    let nearest = Policy { failover: Failover::ToNearest, ..Policy::default() };
    apply(
        &mut table,
        vec![
            declare("s", "3"),
            window("s", "1", schemas("", "1")),
            window("s", "2", schemas("2", "")),
            window("s", "3", schemas("", "1")),
            policy(nearest),
            known("t"),
            observed_schema("t", "s", "1"),
        ],
    );
    table.set_instances(&service("s"), vec![instance("a", "2"), instance("b", "1")]);
    let call = Call::new("t", "s");
    let decision = decide(&table, &call, &Moment::default()).unwrap();
    assert_eq!(decision.version, &version("1"));
    assert_eq!(decision.detour, Some((&version("3"), Detour::Failover)));
    table.set_instances(&service("s"), vec![instance("a", "2")]);
    let refused = decide(&table, &call, &Moment::default()).unwrap_err();
    assert_eq!(refused, Refusal::NoInstance { version: version("3") });
    let told = explain(&table, &call, &Moment::default());
    let mut rejected = told.steps.iter().flat_map(|step| &step.rejected);
    assert!(rejected.any(|r| r.what == "v2.0" && r.why.contains("schema")), "{told:?}");
}

#[test]
fn calls_borrow_their_values_only_while_they_are_decided() {
    let mut table = Table::default();
    apply(&mut table, vec![declare("s", "1"), open("s", "1"), known("t")]);
    table.set_instances(&service("s"), vec![instance("a", "1")]);
    let decision = {
        let (of, to) = ("t".to_owned(), "s".to_owned());
        decide(&table, &Call::new(&of, &to), &Moment::default()).unwrap()
    };
    assert_eq!(decision.instance.address, "a:80");
}
