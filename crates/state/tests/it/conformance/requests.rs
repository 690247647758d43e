use crate::samples::{DEADLINE, NOW, name};
use grey_state::requests::LIMIT;
use grey_state::{Error, State};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// Texts that a careless encoding would mix up or lose.
const ODD: [&[u8]; 5] = [b"", b"\xff\xfe\0", b"one", b"1 2\r\n3", b"one"];

async fn post(state: &State, to: &str, request: &[u8]) {
    state.requests.post(&name(to), request).await.unwrap();
}

async fn take(state: &State, from: &str) -> Vec<Vec<u8>> {
    state.requests.take(&name(from), NOW).await.unwrap()
}

pub(crate) async fn check(state: &State) {
    they_come_in_order_and_unchanged(state).await;
    a_waiting_taker_gets_one_soon(state).await;
    each_has_one_taker(state).await;
    no_more_than_the_limit_wait(state).await;
}

async fn they_come_in_order_and_unchanged(state: &State) {
    assert_eq!(take(state, "mirror").await, Vec::<Vec<u8>>::new());
    for request in ODD {
        post(state, "mirror", request).await;
    }
    post(state, "other", b"x").await;
    assert_eq!(take(state, "mirror").await, ODD);
    assert_eq!(take(state, "mirror").await, Vec::<Vec<u8>>::new());
    assert_eq!(take(state, "other").await, [b"x"], "each name has its own");
}

async fn a_waiting_taker_gets_one_soon(state: &State) {
    let taker = {
        let state = state.clone();
        // The wait alone would outlast the deadline.
        tokio::spawn(
            async move { timeout(DEADLINE, state.requests.take(&name("mirror"), DEADLINE * 10)).await },
        )
    };
    post(state, "other", b"not for it").await;
    tokio::task::yield_now().await;
    post(state, "mirror", b"at last").await;
    assert_eq!(taker.await.unwrap().unwrap().unwrap(), [b"at last"]);
    assert_eq!(take(state, "other").await, [b"not for it"]);
}

async fn each_has_one_taker(state: &State) {
    const ALL: usize = 100;
    let all = Arc::new(AtomicUsize::new(0));
    let takers: Vec<_> = (0..4)
        .map(|_| {
            let (state, all) = (state.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                let mut mine = Vec::new();
                while all.load(Ordering::Relaxed) < ALL {
                    let taken =
                        state.requests.take(&name("mirror"), Duration::from_millis(20)).await.unwrap();
                    all.fetch_add(taken.len(), Ordering::Relaxed);
                    mine.extend(taken);
                }
                mine
            })
        })
        .collect();
    for n in 0..ALL {
        post(state, "mirror", n.to_string().as_bytes()).await;
    }
    let mut taken = Vec::new();
    for taker in takers {
        taken.extend(timeout(DEADLINE, taker).await.unwrap().unwrap());
    }
    let distinct: BTreeSet<_> = taken.iter().collect();
    assert_eq!((taken.len(), distinct.len()), (ALL, ALL));
}

async fn no_more_than_the_limit_wait(state: &State) {
    for n in 0..LIMIT {
        post(state, "mirror", n.to_string().as_bytes()).await;
    }
    let refused = state.requests.post(&name("mirror"), b"one too many").await;
    assert!(matches!(refused, Err(Error::Full { limit: LIMIT, .. })), "{refused:?}");
    post(state, "other", b"x").await;
    let taken = take(state, "mirror").await;
    assert_eq!(taken.len(), LIMIT);
    assert_eq!(taken[LIMIT - 1], (LIMIT - 1).to_string().as_bytes());
    post(state, "mirror", b"room again").await;
    assert_eq!(take(state, "mirror").await, [b"room again"]);
}
