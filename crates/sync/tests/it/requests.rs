//! Requests and waits, over gRPC.

use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::status::from_status;
use grey_proto::sync::{AcceptRequest, GetStatusRequest, TriggerRequest};
use grey_runtime::access::Options;
use grey_state::State;
use grey_testkit::eventually;
use pbjson_types::Duration as WireDuration;

use crate::DEADLINE;
use crate::replica::{MAX_BYTES, Replica, TOKEN, holding, lead};

fn wait(seconds: i64, nanos: i32) -> Option<WireDuration> {
    Some(WireDuration { seconds, nanos })
}

#[tokio::test]
async fn who_waits_at_another_replica_is_told_how_it_ended() {
    let state = State::memory();
    let leader = Replica::start(&state, "a", Options::default()).await;
    let _leading = tokio::spawn(lead(leader.desk.clone(), holding("stubborn")));
    let other = Replica::start(&state, "b", Options::default()).await;
    let mut grpc = other.grpc();
    eventually(DEADLINE, "a leads", async || other.desk.status().await.unwrap().leader == "a").await;

    let answer = grpc.trigger(TriggerRequest { wait: wait(60, 0) }).await.unwrap().into_inner();
    let handled = answer.handled.unwrap();
    assert_eq!((handled.request, handled.error), (answer.request, String::new()));

    let asked = AcceptRequest { change: "stubborn".to_owned(), wait: wait(600, 0) };
    let answer = grpc.accept(asked).await.unwrap().into_inner();
    assert_eq!(answer.handled.unwrap().error, "it persists");
    let status = grpc.get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
    assert_eq!((status.leader.as_str(), status.answered_by.as_str()), ("a", "b"));
    assert_eq!(status.handled[0].request, answer.request);
}

#[tokio::test]
async fn a_request_that_has_not_ended_is_named_all_the_same() {
    let replica = Replica::start(&State::memory(), "a", Options::default()).await;
    replica.desk.publish(TOKEN, holding("c1")).await.unwrap();
    let mut grpc = replica.grpc();
    for wait in [None, wait(0, 0), wait(0, 200_000_000)] {
        let answer = grpc.trigger(TriggerRequest { wait }).await.unwrap().into_inner();
        assert_eq!(answer.handled, None);
        let taken = replica.desk.take(Duration::ZERO).await.unwrap();
        assert_eq!(taken[0].id, answer.request);
    }
}

#[tokio::test]
async fn bad_requests_are_refused_and_nothing_is_asked() {
    let replica = Replica::start(&State::memory(), "a", Options::default()).await;
    replica.desk.publish(TOKEN, holding("c1")).await.unwrap();
    let mut grpc = replica.grpc();
    for wait in [wait(-1, 0), wait(0, -1), wait(600, 1), wait(1, 1_000_000_000), wait(i64::MAX, 0)] {
        let change = "c1".to_owned();
        let refused = [
            grpc.trigger(TriggerRequest { wait }).await.unwrap_err(),
            grpc.accept(AcceptRequest { change, wait }).await.unwrap_err(),
        ];
        for refused in refused {
            let refused = from_status(&refused);
            assert_eq!((refused.reason, refused.get("field")), (Reason::InvalidArgument, Some("wait")));
        }
    }
    let accept = async |change: String| {
        let refused = replica.grpc().accept(AcceptRequest { change, wait: None }).await.unwrap_err();
        from_status(&refused).reason
    };
    assert_eq!(accept(String::new()).await, Reason::InvalidArgument);
    assert_eq!(accept("c2".to_owned()).await, Reason::UnknownChange);
    assert_eq!(accept("x".repeat(MAX_BYTES)).await, Reason::TooLarge);
    assert_eq!(replica.desk.take(Duration::ZERO).await.unwrap(), []);
}

#[tokio::test]
async fn without_a_leader_nothing_can_be_asked_but_how_things_stand() {
    let replica = Replica::start(&State::memory(), "a", Options::default()).await;
    let mut grpc = replica.grpc();
    let status = grpc.get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
    assert_eq!((status.leader.as_str(), status.answered_by.as_str()), ("", "a"));
    let refused = from_status(&grpc.trigger(TriggerRequest { wait: wait(60, 0) }).await.unwrap_err());
    assert_eq!(refused.reason, Reason::Unavailable);
    assert!(refused.message.contains("no replica leads"), "{refused}");
}
