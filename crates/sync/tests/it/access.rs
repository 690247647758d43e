//! Who may do what, over gRPC.

use grey_core::error::Reason;
use grey_proto::status::from_status;
use grey_proto::sync::{AcceptRequest, GetStatusRequest, TriggerRequest};
use grey_runtime::access::Options;
use grey_state::State;
use tonic::Status;

use crate::replica::{Replica, TOKEN, by, holding, tokens};

fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> Result<T, Reason> {
    answer.map_err(|status| from_status(&status).reason)
}

#[tokio::test]
async fn roles_decide_who_reads_and_who_acts() {
    let replica = Replica::start(&State::memory(), "a", tokens()).await;
    replica.desk.publish(TOKEN, holding("c1")).await.unwrap();
    let mut grpc = replica.grpc();
    let accept = || AcceptRequest { change: "c1".to_owned(), wait: None };
    for token in ["viewer", "operator", "admin"] {
        let status = grpc.get_status(by(token, GetStatusRequest {})).await.unwrap().into_inner();
        assert_eq!(status.status.unwrap().held[0].id, "c1");
    }
    assert_eq!(
        reason(grpc.trigger(by("viewer", TriggerRequest::default())).await).unwrap_err(),
        Reason::Denied
    );
    assert_eq!(reason(grpc.accept(by("viewer", accept())).await).unwrap_err(), Reason::Denied);
    for token in ["", "wrong"] {
        let refused = [
            reason(grpc.get_status(by(token, GetStatusRequest {})).await.map(drop)),
            reason(grpc.trigger(by(token, TriggerRequest::default())).await.map(drop)),
            reason(grpc.accept(by(token, accept())).await.map(drop)),
        ];
        assert_eq!(refused, [Err(Reason::Unauthenticated); 3]);
    }
    assert_eq!(replica.desk.take(std::time::Duration::ZERO).await.unwrap(), [], "nothing refused is asked");

    for token in ["operator", "admin"] {
        grpc.trigger(by(token, TriggerRequest::default())).await.unwrap();
        grpc.accept(by(token, accept())).await.unwrap();
    }
    let taken = replica.desk.take(std::time::Duration::ZERO).await.unwrap();
    let callers: Vec<&str> = taken.iter().map(|request| request.by.as_str()).collect();
    assert_eq!(callers, ["operator", "operator", "admin", "admin"]);
}

#[tokio::test]
async fn without_tokens_whoever_is_on_this_machine_may_act() {
    let replica = Replica::start(&State::memory(), "a", Options::default()).await;
    replica.desk.publish(TOKEN, holding("c1")).await.unwrap();
    let mut grpc = replica.grpc();
    grpc.trigger(TriggerRequest::default()).await.unwrap();
    grpc.accept(AcceptRequest { change: "c1".to_owned(), wait: None }).await.unwrap();
    let taken = replica.desk.take(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(taken.iter().map(|request| request.by.as_str()).collect::<Vec<_>>(), ["anonymous"; 2]);
}
