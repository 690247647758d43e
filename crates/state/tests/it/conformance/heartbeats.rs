use crate::samples::{DEADLINE, position};
use grey_state::heartbeats::Heartbeat;
use grey_state::{Error, State};
use grey_testkit::eventually;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);

fn heartbeat(router: &str, revision: u64) -> Heartbeat {
    Heartbeat {
        router: router.to_owned(),
        address: "10.0.0.1:7400".to_owned(),
        region: "eu".to_owned(),
        zone: String::new(),
        position: position("g", revision),
        digest: u64::MAX,
        stale: revision == 0,
    }
}

pub(crate) async fn check(state: &State) {
    assert_eq!(state.heartbeats.live().await.unwrap(), []);
    state.heartbeats.leave("unknown").await.unwrap();
    let (mut b, a) = (heartbeat("router-b", 0), heartbeat("router-a", u64::MAX));
    for beat in [&b, &a] {
        state.heartbeats.beat(beat, LONG).await.unwrap();
    }
    assert_eq!(state.heartbeats.live().await.unwrap(), [a.clone(), b.clone()]);
    b.position.revision.0 = 9;
    state.heartbeats.beat(&b, LONG).await.unwrap();
    assert_eq!(state.heartbeats.live().await.unwrap(), [a.clone(), b.clone()]);
    state.heartbeats.leave("router-a").await.unwrap();
    assert_eq!(state.heartbeats.live().await.unwrap(), [b.clone()]);

    state.heartbeats.beat(&b, Duration::from_millis(5)).await.unwrap();
    eventually(DEADLINE, "the heartbeat expires", async || state.heartbeats.live().await.unwrap().is_empty())
        .await;
    for forged in ["", "a b", "a}:{b", "a\nb", &"a".repeat(161)] {
        let refused = state.heartbeats.beat(&heartbeat(forged, 1), LONG).await;
        assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
    }
    assert_eq!(state.heartbeats.live().await.unwrap(), []);
}
