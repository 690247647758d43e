use crate::samples::{service_id, version};
use grey_state::State;
use std::collections::BTreeSet;

pub(crate) async fn check(state: &State) {
    let callers = (0..8).map(|_| {
        let state = state.clone();
        tokio::spawn(async move {
            let mut turns = Vec::new();
            for _ in 0..50 {
                turns.push(state.turns.next(&service_id("payment"), &version("v2.1")).await.unwrap());
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
    for (service, version) in [("payment", "v2"), ("search", "v2.1")] {
        let turn = state.turns.next(&service_id(service), &crate::samples::version(version)).await.unwrap();
        assert_eq!(turn, 1, "each version of each service counts by itself");
    }
}
