//! Streams of events.

use grey_core::error::Reason;
use grey_proto::control::WatchEventsRequest;
use grey_state::State;

use crate::fixture::{Backend, Plane, SOON, Store, config, on_both, reason};

on_both! {
    a_stream_carries_past_and_coming_events
    a_stream_sees_commits_of_other_replicas
}

async fn next(stream: &mut tonic::Streaming<grey_proto::control::WatchEventsResponse>) -> u64 {
    let message = tokio::time::timeout(SOON, stream.message()).await.unwrap();
    message.unwrap().unwrap().event.unwrap().revision
}

async fn a_stream_carries_past_and_coming_events(plane: Plane) {
    for i in 0..3 {
        plane.put_tenant(&format!("t{i}")).await;
    }
    let mut stream =
        plane.history().watch_events(WatchEventsRequest { after: 1 }).await.unwrap().into_inner();
    assert_eq!((next(&mut stream).await, next(&mut stream).await), (2, 3));
    plane.put_tenant("t3").await;
    assert_eq!(next(&mut stream).await, 4);
    let beyond = plane.history().watch_events(WatchEventsRequest { after: 99 }).await;
    assert_eq!(reason(beyond.map(drop)), Reason::RevisionUnavailable);
    // The drain ends streams instead of waiting for them.
    drop(plane.stop().await);
    assert!(tokio::time::timeout(SOON, stream.message()).await.unwrap().unwrap().is_none());
}

async fn a_stream_sees_commits_of_other_replicas(plane: Plane) {
    let url = plane.store.url.clone();
    let store = Store::borrowed(&url);
    let other = Plane::start_with(store, config(&url), State::memory()).await;
    let mut stream =
        plane.history().watch_events(WatchEventsRequest { after: 0 }).await.unwrap().into_inner();
    other.put_tenant("acme").await;
    assert_eq!(next(&mut stream).await, 1);
}

#[tokio::test]
async fn streams_are_bounded() {
    let store = Store::new(Backend::Sqlite).await;
    let mut config = config(&store.url);
    config.limits.max_watchers = 1;
    let plane = Plane::start_with(store, config, State::memory()).await;
    let open = plane.history().watch_events(WatchEventsRequest::default()).await.unwrap();
    let refused = plane.history().watch_events(WatchEventsRequest::default()).await;
    assert_eq!(reason(refused.map(drop)), Reason::RateLimited);
    drop(open);
    grey_testkit::eventually(SOON, "the place is free again", async || {
        plane.history().watch_events(WatchEventsRequest::default()).await.is_ok()
    })
    .await;
}
