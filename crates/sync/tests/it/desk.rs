//! Replicas and their leader.

use std::time::Duration;

use grey_core::error::Reason;
use grey_core::ids::Name;
use grey_proto::sync::{HeldChange, Quarantined, SyncRun, SyncStatus};
use grey_state::{Error, FencingToken, State};
use grey_sync::{Action, MAX_HANDLED, MAX_HELD, MAX_ITEMS, MAX_QUARANTINED, MAX_RUNS, Request};
use grey_testkit::{Proxy, eventually};

use crate::DEADLINE;
use crate::replica::{TOKEN, connect, desk, holding, lead, redis};

const NOW: Duration = Duration::ZERO;

async fn requests_are_carried_out_where_the_leader_is(of_a: State, of_b: State) {
    let (a, b) = (desk(&of_a, "a"), desk(&of_b, "b"));
    let _leader = tokio::spawn(lead(a.clone(), SyncStatus::default()));
    eventually(DEADLINE, "a leads", async || b.status().await.unwrap().leader == "a").await;
    let status = b.status().await.unwrap();
    assert_eq!((status.service.as_str(), status.answered_by.as_str()), ("registry-sync", "b"));
    assert!(status.reported_at.is_some());

    let request = b.trigger("ops").await.unwrap();
    let handled = b.outcome(&request, DEADLINE).await.unwrap().unwrap();
    assert_eq!((handled.request.as_str(), handled.error.as_str()), (request.as_str(), ""));
    assert_eq!(b.status().await.unwrap().handled, std::slice::from_ref(&handled));
    assert_eq!(a.outcome(&request, NOW).await.unwrap(), Some(handled), "any replica tells it");
    assert_eq!(b.outcome("another", NOW).await.unwrap(), None);
}

#[tokio::test]
async fn requests_are_carried_out_where_the_leader_is_in_memory() {
    let state = State::memory();
    requests_are_carried_out_where_the_leader_is(state.clone(), state).await;
}

#[tokio::test]
async fn requests_are_carried_out_where_the_leader_is_over_redis() {
    let (redis, state) = redis().await;
    requests_are_carried_out_where_the_leader_is(state, connect(redis.url()).await).await;
}

#[tokio::test]
async fn the_leader_learns_what_is_asked_and_by_whom() {
    let desk = desk(&State::memory(), "a");
    desk.publish(TOKEN, holding("c1")).await.unwrap();
    let ids = [desk.trigger("ada").await.unwrap(), desk.accept("c1", "bob").await.unwrap()];
    let request = |n: usize, action, by: &str| Request { id: ids[n].clone(), action, by: by.to_owned() };
    let expected = [request(0, Action::Trigger, "ada"), request(1, Action::Accept("c1".to_owned()), "bob")];
    assert_eq!(desk.take(NOW).await.unwrap(), expected);
    assert_eq!(desk.take(NOW).await.unwrap(), []);
}

#[tokio::test]
async fn an_unknown_change_is_refused_and_nothing_is_asked() {
    let desk = desk(&State::memory(), "a");
    desk.publish(TOKEN, holding("c1")).await.unwrap();
    let refused = desk.accept("c2", "ops").await.unwrap_err();
    assert_eq!((refused.reason, refused.get("change")), (Reason::UnknownChange, Some("c2")));
    assert_eq!(desk.take(NOW).await.unwrap(), []);
}

#[tokio::test]
async fn nothing_is_asked_while_no_replica_leads() {
    let desk = desk(&State::memory(), "a");
    let status = desk.status().await.unwrap();
    assert_eq!((status.leader.as_str(), status.answered_by.as_str()), ("", "a"));
    for refused in [desk.trigger("ops").await.unwrap_err(), desk.accept("c1", "ops").await.unwrap_err()] {
        assert_eq!(refused.reason, Reason::Unavailable);
        assert!(refused.message.contains("no replica leads"), "{refused}");
    }
    assert_eq!(desk.take(NOW).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_forgotten() {
    let desk = desk(&State::memory(), "a");
    desk.publish(TOKEN, holding("c1")).await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(desk.status().await.unwrap().leader, "a");
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(desk.status().await.unwrap().leader, "");
}

#[tokio::test]
async fn the_old_leaders_report_is_fenced() {
    let state = State::memory();
    let (old, new) = (desk(&state, "old"), desk(&state, "new"));
    old.publish(FencingToken(7), holding("c1")).await.unwrap();
    new.publish(FencingToken(8), SyncStatus::default()).await.unwrap();
    let late = old.publish(FencingToken(7), holding("c1")).await;
    assert!(matches!(late, Err(Error::Fenced { newest: 8, .. })), "{late:?}");
    let status = old.status().await.unwrap();
    assert_eq!((status.leader.as_str(), status.held.len()), ("new", 0));
}

#[tokio::test]
async fn a_report_is_bounded_and_its_totals_are_kept() {
    let desk = desk(&State::memory(), "a");
    let held =
        |n: u64| HeldChange { id: n.to_string(), items: vec!["x".into(); 60], ..HeldChange::default() };
    let status = SyncStatus {
        held: (0..1_200).map(held).collect(),
        runs: vec![SyncRun::default(); 30],
        quarantined: vec![Quarantined::default(); 1_300],
        quarantined_total: 9_999,
        leader: "made up".to_owned(),
        service: "made up".to_owned(),
        ..SyncStatus::default()
    };
    for n in 0..150 {
        let request = Request { id: n.to_string(), action: Action::Trigger, by: String::new() };
        desk.handled(&request, Err("e".repeat(10_000)));
    }
    desk.publish(TOKEN, status).await.unwrap();
    let status = desk.status().await.unwrap();
    assert_eq!((status.held.len(), status.held_total), (MAX_HELD, 1_200));
    assert_eq!(status.held[MAX_HELD - 1].id, "999", "the oldest are listed");
    assert!(status.held.iter().all(|held| held.items.len() == MAX_ITEMS));
    assert_eq!(status.runs.len(), MAX_RUNS);
    assert_eq!((status.quarantined.len(), status.quarantined_total), (MAX_QUARANTINED, 9_999));
    assert_eq!((status.leader.as_str(), status.service.as_str()), ("a", "registry-sync"));
    assert_eq!(status.handled.len(), MAX_HANDLED);
    assert_eq!(status.handled[0].request, "149", "newest first");
    assert!(status.handled[0].error.len() < 1_000);
}

#[tokio::test]
async fn a_leader_that_does_not_keep_up_is_not_buried() {
    let desk = desk(&State::memory(), "a");
    desk.publish(TOKEN, SyncStatus::default()).await.unwrap();
    for _ in 0..grey_state::requests::LIMIT {
        desk.trigger("ops").await.unwrap();
    }
    assert_eq!(desk.trigger("ops").await.unwrap_err().reason, Reason::RateLimited);
    assert_eq!(desk.take(NOW).await.unwrap().len(), grey_state::requests::LIMIT);
    desk.trigger("ops").await.unwrap();
}

#[tokio::test]
async fn what_is_old_doubled_or_unreadable_is_not_carried_out() {
    let state = State::memory();
    let desk = desk(&state, "a");
    desk.publish(TOKEN, SyncStatus::default()).await.unwrap();
    let id = desk.trigger("ops").await.unwrap();
    let name = Name::new("registry-sync").unwrap();
    let left = state.requests.take(&name, NOW).await.unwrap();
    let old = br#"{"id":"old","action":{"accept":"c1"},"by":"ops","at_ms":0}"#;
    for request in [b"\xff".as_slice(), &left[0], &left[0], old] {
        state.requests.post(&name, request).await.unwrap();
    }
    let taken = desk.take(NOW).await.unwrap();
    assert_eq!(taken.iter().map(|request| request.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    desk.handled(&taken[0], Ok(()));
    state.requests.post(&name, &left[0]).await.unwrap();
    assert_eq!(desk.take(NOW).await.unwrap(), []);
    desk.publish(TOKEN, SyncStatus::default()).await.unwrap();
    let old = desk.outcome("old", DEADLINE).await.unwrap().unwrap();
    assert!(old.error.contains("waited"), "{old:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_told_although_the_store_was_away_in_between() {
    let (redis, of_a) = redis().await;
    let proxy = Proxy::start(redis.addr()).await.unwrap();
    let of_b = connect(format!("redis://{}", proxy.addr())).await;
    let (a, b) = (desk(&of_a, "a"), desk(&of_b, "b"));
    a.publish(TOKEN, SyncStatus::default()).await.unwrap();
    eventually(DEADLINE, "b is connected", async || b.status().await.is_ok()).await;
    let request = b.trigger("ops").await.unwrap();
    proxy.cut().await.unwrap();
    let refused = b.trigger("ops").await.unwrap_err();
    assert_eq!(refused.reason, Reason::Unavailable);
    assert_eq!(b.outcome(&request, NOW).await.unwrap_err().reason, Reason::Unavailable);
    let waiting = {
        let (b, request) = (b.clone(), request.clone());
        tokio::spawn(async move { b.outcome(&request, DEADLINE).await })
    };
    let taken = a.take(DEADLINE).await.unwrap();
    a.handled(&taken[0], Ok(()));
    a.publish(TOKEN, SyncStatus::default()).await.unwrap();
    proxy.heal().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().request, request);
}
