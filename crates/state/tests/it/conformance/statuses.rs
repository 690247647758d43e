use crate::samples::{DEADLINE, name};
use grey_state::{Error, FencingToken, State};
use grey_testkit::eventually;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(20);

async fn publish(state: &State, of: &str, token: u64, status: &[u8], ttl: Duration) -> Result<(), Error> {
    state.statuses.publish(&name(of), FencingToken(token), status, ttl).await
}

async fn read(state: &State, of: &str) -> Option<Vec<u8>> {
    state.statuses.read(&name(of)).await.unwrap()
}

pub(crate) async fn check(state: &State) {
    assert_eq!(read(state, "mirror").await, None);
    // What looks like a token, bytes that are no text, and nothing at all.
    for status in [b"12 34".as_slice(), b" \xff\0\r\n ", b"", b"last"] {
        publish(state, "mirror", 7, status, LONG).await.unwrap();
        assert_eq!(read(state, "mirror").await.as_deref(), Some(status));
    }
    assert_eq!(read(state, "other").await, None);
    publish(state, "other", 1, b"other", LONG).await.unwrap();

    let late = publish(state, "mirror", 6, b"late", LONG).await;
    assert!(matches!(late, Err(Error::Fenced { newest: 7, .. })), "{late:?}");
    assert_eq!(read(state, "mirror").await.as_deref(), Some(b"last".as_slice()));
    publish(state, "mirror", 1_700_000_000_001, b"newer", LONG).await.unwrap();
    let late = publish(state, "mirror", 1_700_000_000_000, b"late", LONG).await;
    assert!(matches!(late, Err(Error::Fenced { newest: 1_700_000_000_001, .. })), "{late:?}");
    assert_eq!(read(state, "mirror").await.as_deref(), Some(b"newer".as_slice()));

    publish(state, "mirror", 1_700_000_000_001, b"brief", SHORT).await.unwrap();
    eventually(DEADLINE, "the status is forgotten", async || read(state, "mirror").await.is_none()).await;
    publish(state, "mirror", 1_700_000_000_002, b"again", LONG).await.unwrap();
    assert_eq!(read(state, "mirror").await.as_deref(), Some(b"again".as_slice()));
    assert_eq!(read(state, "other").await.as_deref(), Some(b"other".as_slice()), "each name has its own");
}
