//! The hot path allocates nothing.

use crate::balancing::ALL;
use crate::fixture::{
    Random, apply, instance, known, name, observed_schema, open, overlay, pin_to, policy, table, tenant,
};
use crate::overlays::{canary, experiment, lay, with_pinned};
use grey_core::change::Change;
use grey_core::decide::{Call, Metadata, decide};
use grey_core::instance::Instance;
use grey_core::key::Fact;
use grey_core::policy::{Failover, HashKey, Match, Overlay, Policy, Predicate, Test, Unit};
use grey_core::tenant::Tenant;
use std::collections::{BTreeMap, BTreeSet};

fn overlaid() -> Vec<Overlay> {
    let canary = Overlay {
        salt: "a-salt-that-is-longer-than-any-inline-buffer-would-be".to_owned(),
        unit: Unit::User,
        matching: Match {
            regions: BTreeSet::from([name("eu")]),
            labels: BTreeMap::from([(name("plan"), BTreeSet::from(["a".to_owned()]))]),
            metadata: vec![Predicate { key: "channel".to_owned(), test: Test::Prefix("w".to_owned()) }],
            ..Match::default()
        },
        ..canary("canary-of-a-name-that-does-not-fit-inline", ["1", "2"], 5_000)
    };
    let experiment = experiment("e", &[("arm", "2", 100)]);
    vec![canary.clone(), Overlay { id: overlay("e"), kind: with_pinned(experiment).kind, ..canary }]
}

#[test]
fn a_decision_allocates_nothing() {
    let place = |id, of| Instance { region: Some(name("eu")), zone: Some(name("a")), ..instance(id, of) };
    let list = vec![place("a", "1"), place("b", "1"), place("c", "2"), place("d", "1")];
    let channel = BTreeMap::from([("channel".to_owned(), "web".to_owned())]);
    let metadata = Metadata::Map(&channel);
    for strategy in ALL {
        let mut table = table(strategy, list.clone());
        let base = crate::fixture::balanced_by(strategy);
        let mut balancing = base.balancing.clone();
        balancing.hash_key = HashKey::Metadata("channel".to_owned());
        let tagged = Tenant {
            region: Some(name("eu")),
            residency: vec![name("us"), name("eu")],
            labels: BTreeMap::from([(name("plan"), "a".to_owned())]),
            ..Tenant::new(tenant("t"))
        };
        let policy_put = policy(Policy { balancing, failover: Failover::ToNearest, stateless: true, ..base });
        apply(&mut table, overlaid().into_iter().map(lay).collect());
        apply(
            &mut table,
            vec![
                open("s", "2"),
                open("s", "3"),
                policy_put,
                Change::Put(Fact::Tenant(Box::new(tagged))),
                observed_schema("t", "s", "1.2.3"),
                known("pinned"),
                pin_to("pinned", "s", "3"),
            ],
        );
        let mut random = Random(1);
        let mut served = 0;
        let counted = allocation_counter::measure(|| {
            for (at, user) in ["ann", "bob", "eve", "dan"].into_iter().cycle().take(200).enumerate() {
                let of = if at % 3 == 0 { "pinned" } else { "t" };
                let call = Call { user, metadata, region: "eu", zone: "a", ..Call::new(of, "s") };
                served += usize::from(decide(&table, &call, &random.moment(at as u32)).is_ok());
            }
        });
        assert_eq!(served, 200, "{strategy:?}");
        assert_eq!(counted.count_total, 0, "{strategy:?}");
    }
}

#[test]
fn the_counter_sees_an_allocation() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1u8])));
    assert_eq!(counted.count_total, 1);
}
