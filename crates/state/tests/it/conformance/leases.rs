use crate::samples::{DEADLINE, name};
use grey_state::{FencingToken, State};
use grey_testkit::eventually;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(1);

async fn acquire(state: &State, lease: &str, holder: &str, ttl: Duration) -> Option<FencingToken> {
    state.leases.acquire(&name(lease), holder, ttl).await.unwrap()
}

pub(crate) async fn check(state: &State) {
    a_holder_renews_and_excludes_others(state).await;
    an_expired_lease_goes_to_anyone_with_a_higher_token(state).await;
    one_of_many_wins(state).await;
    a_token_that_was_seen_is_surpassed(state).await;
}

async fn a_token_that_was_seen_is_surpassed(state: &State) {
    let lease = name("surpassing");
    let above = |token| state.leases.acquire_above(&lease, "a", LONG, FencingToken(token));
    let first = above(0).await.unwrap().unwrap();
    assert_eq!(above(first.0 - 1).await.unwrap(), Some(first), "it is surpassed already");
    for seen in [first.0, 99_999_999_999_999, 999_999_999_999_999_000] {
        let token = above(seen).await.unwrap().unwrap();
        assert!(token.0 > seen, "{token:?} is not above {seen}");
        assert_eq!(acquire(state, "surpassing", "a", LONG).await, Some(token), "it is renewed as it is");
        let other = state.leases.acquire_above(&lease, "b", LONG, FencingToken(u64::MAX >> 4)).await;
        assert_eq!(other.unwrap(), None, "nobody surpasses a holder");
    }
}

async fn a_holder_renews_and_excludes_others(state: &State) {
    let first = acquire(state, "publisher", "a b", LONG).await.unwrap();
    assert_eq!(acquire(state, "publisher", "a b", LONG).await, Some(first));
    assert_eq!(acquire(state, "publisher", "b", LONG).await, None);
    assert!(acquire(state, "mirror", "b", LONG).await.is_some(), "another name is another lease");
    state.leases.release(&name("publisher"), "b").await.unwrap();
    assert_eq!(acquire(state, "publisher", "b", LONG).await, None, "only its holder gives a lease up");
    state.leases.release(&name("publisher"), "a b").await.unwrap();
    let second = acquire(state, "publisher", "b", LONG).await.unwrap();
    assert!(second > first);
    state.leases.release(&name("publisher"), "b").await.unwrap();
    let third = acquire(state, "publisher", "b", LONG).await.unwrap();
    assert!(third > second, "a holder that gave it up is a new one");
    state.leases.release(&name("never-held"), "b").await.unwrap();
}

async fn an_expired_lease_goes_to_anyone_with_a_higher_token(state: &State) {
    let first = acquire(state, "expiring", "a", SHORT).await.unwrap();
    let mut second = first;
    eventually(DEADLINE, "the same holder gets a new token after expiry", async || {
        second = acquire(state, "expiring", "a", SHORT).await.unwrap();
        second > first
    })
    .await;
    let mut third = None;
    eventually(DEADLINE, "another holder gets the expired lease", async || {
        third = acquire(state, "expiring", "b", LONG).await;
        third.is_some()
    })
    .await;
    assert!(third.unwrap() > second);
}

async fn one_of_many_wins(state: &State) {
    let contenders = (0..20).map(|n| {
        let state = state.clone();
        tokio::spawn(async move { acquire(&state, "contended", &format!("holder-{n}"), LONG).await })
    });
    let mut winners = 0;
    for contender in contenders.collect::<Vec<_>>() {
        winners += usize::from(contender.await.unwrap().is_some());
    }
    assert_eq!(winners, 1);
}
