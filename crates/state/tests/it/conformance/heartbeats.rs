use crate::samples::{DEADLINE, position};
use grey_core::change::FormatLevel;
use grey_state::heartbeats::{Goodbye, Heartbeat};
use grey_state::{Error, State};
use grey_testkit::eventually;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);

fn heartbeat(router: &str, revision: u64) -> Heartbeat {
    Heartbeat {
        router: router.to_owned(),
        run: 9,
        address: "10.0.0.1:7400".to_owned(),
        region: "eu".to_owned(),
        zone: String::new(),
        position: position(u64::MAX, revision),
        digest: u64::MAX,
        stale: revision == 0,
        level: FormatLevel(7),
        lease: LONG,
    }
}

fn goodbye(router: &str, run: u64) -> Goodbye {
    Goodbye { router: router.to_owned(), run }
}

pub(crate) async fn check(state: &State) {
    assert_eq!(state.heartbeats.live().await.unwrap(), []);
    state.heartbeats.leave(&goodbye("unknown", 1)).await.unwrap();
    let (mut b, a) = (heartbeat("router-b", 0), heartbeat("router-a", u64::MAX));
    for beat in [&b, &a] {
        state.heartbeats.beat(beat).await.unwrap();
    }
    assert_eq!(state.heartbeats.live().await.unwrap(), [a.clone(), b.clone()]);
    b.position.revision.0 = 9;
    state.heartbeats.beat(&b).await.unwrap();
    assert_eq!(state.heartbeats.live().await.unwrap(), [a.clone(), b.clone()]);
    state.heartbeats.leave(&goodbye("router-a", 9)).await.unwrap();
    assert_eq!(state.heartbeats.live().await.unwrap(), [b.clone()]);
    let left = async || state.heartbeats.left().await.unwrap();
    let (gone, unknown) = (goodbye("router-a", 9), goodbye("unknown", 1));
    assert_eq!(left().await, [gone.clone(), unknown.clone()], "a goodbye is remembered");
    let another = Heartbeat { run: 10, ..a.clone() };
    state.heartbeats.beat(&another).await.unwrap();
    assert_eq!(left().await, [gone.clone(), unknown.clone()], "another run takes nothing back");
    state.heartbeats.beat(&a).await.unwrap();
    assert_eq!(left().await, std::slice::from_ref(&unknown), "who is back has not left");
    state.heartbeats.leave(&goodbye("router-a", 9)).await.unwrap();

    b.lease = Duration::from_millis(5);
    state.heartbeats.beat(&b).await.unwrap();
    eventually(DEADLINE, "the heartbeat expires", async || state.heartbeats.live().await.unwrap().is_empty())
        .await;
    assert_eq!(left().await, [gone, unknown], "what expires has not left");
    for forged in ["", "a b", "a}:{b", "a\nb", &"a".repeat(161)] {
        let refused = state.heartbeats.beat(&heartbeat(forged, 1)).await;
        assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
    }
    assert_eq!(state.heartbeats.live().await.unwrap(), []);
}
