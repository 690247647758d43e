use crate::samples::{name, service_id, version};
use grey_core::table::Locality;
use grey_state::State;
use std::collections::BTreeSet;

pub(crate) async fn check(state: &State) {
    let callers = (0..8).map(|_| {
        let state = state.clone();
        tokio::spawn(async move {
            let (service, version) = (service_id("payment"), version("v2.1"));
            let mut turns = Vec::new();
            for _ in 0..50 {
                turns.push(state.turns.next(&service, &version, Locality::Everywhere).await.unwrap());
            }
            assert!(turns.is_sorted(), "{turns:?}");
            turns
        })
    });
    let mut all = BTreeSet::new();
    for caller in callers.collect::<Vec<_>>() {
        all.extend(caller.await.unwrap());
    }
    assert!(all.iter().copied().eq(1..=400), "{all:?}");
    let (region, zone) = (name("eu"), name("a"));
    let (of_region, named) = (Locality::Region(&region), Some(&zone));
    let of_zone = |region| Locality::Zone { region, zone: named };
    for (service, of, locality) in [
        ("payment", "v2", Locality::Everywhere),
        ("search", "v2.1", Locality::Everywhere),
        ("payment", "v2.1", of_region),
        ("payment", "v2.1", of_zone(Some(&region))),
        ("payment", "v2.1", of_zone(None)),
    ] {
        let turn = state.turns.next(&service_id(service), &version(of), locality).await.unwrap();
        assert_eq!(turn, 1, "each group of instances of each version of each service counts by itself");
    }
}
