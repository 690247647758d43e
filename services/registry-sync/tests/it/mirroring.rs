//! From a registry to shared state, and what the status tells of it.

use std::time::Duration;

use grey_proto::sync::{HoldReason, SourceState};
use grey_registry_sync::registry::{Listing, Registered};
use grey_state::State;
use grey_testkit::{Redis, eventually};
use tokio::net::TcpListener;

use crate::following::SOON;
use crate::replica::{Replica, Script, config, connect, many, on, source};

async fn changes_are_followed(state: State) {
    let script = Script::payment(&[on("a", "1"), on("b", "2.0.0")]);
    let replica = Replica::start(&state, config("one"), &[&script]).await;
    replica.until("a v1.0, b v2.0").await;
    script.say(&[on("a", "1"), on("b", "2"), on("c", "3")]);
    replica.until("a v1.0, b v2.0, c v3.0").await;
    script.say(&[on("a", "1.1"), Registered { enabled: false, ..on("b", "2") }, on("c", "3")]);
    replica.until("a v1.1, (b v2.0), c v3.0").await;
    // A version whose last instance left is gone.
    script.say(&[on("a", "1.1"), Registered { enabled: false, ..on("b", "2") }]);
    replica.until("a v1.1, (b v2.0)").await;
    replica.stop().await;
}

#[tokio::test]
async fn changes_are_followed_in_memory() {
    changes_are_followed(State::memory()).await;
}

#[tokio::test]
async fn changes_are_followed_in_redis() {
    let redis = Redis::start().await.unwrap();
    changes_are_followed(connect(redis.url()).await).await;
}

#[tokio::test]
async fn what_is_left_out_is_told_and_a_default_version_takes_it_in() {
    let script = Script::payment(&[on("a", "1"), on("b", "")]);
    script.list(vec![
        Listing { service: "payment".to_owned(), instances: vec![on("a", "1"), on("b", "")] },
        Listing { service: "Basket".to_owned(), instances: vec![on("c", "1")] },
    ]);
    let replica = Replica::alone(config("one"), &script).await;
    replica.until("a v1.0").await;
    let status =
        replica.status_where("two things are left out", |status| status.quarantined_total == 2).await;
    let told: Vec<_> =
        status.quarantined.iter().map(|one| (one.subject.as_str(), one.source.as_str())).collect();
    assert_eq!(told, [("Basket", "dc-1"), ("payment b", "dc-1")]);
    assert!(status.quarantined[1].why.starts_with("no version"), "{}", status.quarantined[1].why);
    assert_eq!((status.counts["quarantined"], status.counts["skipped_services"]), (1, 1));
    replica.stop().await;

    let mut config = config("one");
    config.instances.default_versions.insert("payment".to_owned(), "3".to_owned());
    let replica = Replica::alone(config, &script).await;
    replica.until("a v1.0, b v3.0").await;
    replica.stop().await;
}

#[tokio::test]
async fn a_registry_that_fails_takes_nothing_away() {
    let script = Script::payment(&many(3));
    let other = Script::payment(&[on("x", "2")]);
    let state = State::memory();
    let mut config = config("one");
    config.sources.push(source("dc-2"));
    let replica = Replica::start(&state, config, &[&script, &other]).await;
    let all = "i00 v1.0, i01 v1.0, i02 v1.0, x v2.0";
    replica.until(all).await;
    script.fail("read services: connection refused");
    let failing = SourceState::Failing;
    let status = replica.status_where("dc-1 fails", |status| status.sources[0].state() == failing).await;
    assert_eq!(
        (status.sources[0].error.as_str(), status.sources[0].failures),
        ("read services: connection refused", 1)
    );
    assert!(status.sources[0].last_success.is_some());
    assert_eq!(status.sources[1].state(), SourceState::Ok);
    // What the other one says goes on.
    other.say(&[on("x", "2"), on("y", "2")]);
    replica.until(&format!("{all}, y v2.0")).await;
    let handled = replica.trigger().await;
    assert_eq!(handled.error, "dc-1: read services: connection refused");
    script.say(&many(3));
    replica.status_where("dc-1 is back", |status| status.sources[0].state() == SourceState::Ok).await;
    assert_eq!(replica.trigger().await.error, "");
    let runs = replica.status().await.runs;
    let errors: Vec<&str> = runs.iter().map(|run| run.error.as_str()).collect();
    assert_eq!(errors, ["", "dc-1: read services: connection refused"]);
    assert_eq!(runs[0].counts["routable"], 5);
    replica.stop().await;
}

#[tokio::test]
async fn an_empty_registry_is_held_until_an_operator_accepts() {
    let script = Script::payment(&many(4));
    let replica = Replica::alone(config("one"), &script).await;
    replica.until("i00 v1.0, i01 v1.0, i02 v1.0, i03 v1.0").await;
    script.list(Vec::new());
    let status = replica.status_where("the drop is held", |status| status.held_total == 1).await;
    assert_eq!(status.counts["held"], 4);
    let held = &status.held[0];
    assert_eq!((held.reason(), held.subject.as_str()), (HoldReason::InstanceDrop, "payment@dc-1"));
    assert_eq!(held.summary, "4 of 4 instances vanished or became unhealthy at once");
    assert_eq!(held.items, ["i00", "i01", "i02", "i03"]);
    assert_eq!(replica.published().await, "i00 v1.0, i01 v1.0, i02 v1.0, i03 v1.0");
    assert!(replica.get("/api/sync").await.contains("HOLD_REASON_INSTANCE_DROP"));

    // Part of it comes back: what is left was shown.
    script.say(&many(1));
    replica.status_where("three are held", |status| status.counts["held"] == 3).await;
    assert_eq!(replica.accept(&held.id).await.error, "");
    assert_eq!(replica.published().await, "i00 v1.0", "it is applied once it is told to be");
    assert_eq!(replica.status().await.held_total, 0);
    replica.stop().await;
}

#[tokio::test]
async fn instances_that_refuse_connections_are_gone_and_those_that_answer_stay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = grey_testkit::free_port().unwrap();
    let alive = Registered { address: listener.local_addr().unwrap().to_string(), ..on("alive", "1") };
    let dead = Registered { address: format!("127.0.0.1:{closed}"), ..on("dead", "1") };
    let script = Script::payment(&[alive, dead]);
    let replica = Replica::alone(config("one"), &script).await;
    replica.until("alive v1.0, dead v1.0").await;
    script.list(Vec::new());
    replica.until("alive v1.0").await;
    let status = replica.status_where("one is held", |status| status.counts["held"] == 1).await;
    assert_eq!(status.held[0].believed_at, None, "an empty list is no proof");
    drop(listener);
    replica.until("").await;
    let metrics = replica.get("/metrics").await;
    for line in [
        "grey_registry_sync_probes_total{found=\"refused\"}",
        "grey_registry_sync_probes_total{found=\"alive\"}",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_registry_that_keeps_saying_so_is_believed() {
    let script = Script::payment(&many(4));
    let mut config = config("one");
    config.probe.mode = grey_registry_sync::probe::Mode::None;
    config.hold.confirm_after = Duration::from_millis(300);
    let replica = Replica::alone(config, &script).await;
    replica.until("i00 v1.0, i01 v1.0, i02 v1.0, i03 v1.0").await;
    // It is told once: the mirror asks again when the time has come.
    script.say(&many(1));
    replica.until("i00 v1.0").await;
    replica.stop().await;
}

#[tokio::test]
async fn a_flip_of_all_versions_is_held() {
    let script = Script::payment(&many(3));
    let replica = Replica::alone(config("one"), &script).await;
    replica.until("i00 v1.0, i01 v1.0, i02 v1.0").await;
    let flipped: Vec<_> = many(3).into_iter().map(|one| on(&one.id, "2")).collect();
    script.say(&flipped);
    let status = replica.status_where("the flip is held", |status| status.held_total == 1).await;
    assert_eq!(status.held[0].reason(), HoldReason::VersionFlip);
    assert!(status.held[0].believed_at.is_some());
    assert_eq!(replica.published().await, "i00 v1.0, i01 v1.0, i02 v1.0");
    assert_eq!(replica.accept(&status.held[0].id).await.error, "");
    assert_eq!(replica.published().await, "i00 v2.0, i01 v2.0, i02 v2.0");
    replica.stop().await;
}

#[tokio::test]
async fn metrics_tell_how_the_mirror_stands() {
    let script = Script::payment(&[on("a", "1"), on("b", "")]);
    let replica = Replica::alone(config("one"), &script).await;
    replica.until("a v1.0").await;
    let expected = [
        "grey_sync_leading 1",
        "grey_sync_held 0",
        "grey_sync_quarantined 1",
        "grey_sync_items{state=\"routable\"} 1",
        "grey_sync_source_failures{source=\"dc-1\"} 0",
        "grey_sync_source_age_seconds{source=\"dc-1\"}",
        "grey_registry_sync_writes_total{outcome=\"written\"} 1",
        "grey_registry_sync_lag_seconds_count 1",
    ];
    eventually(SOON, "all metrics are told", async || {
        let metrics = replica.get("/metrics").await;
        expected.iter().all(|line| metrics.contains(line))
    })
    .await;
    assert!(replica.get("/health/ready").await.contains("true"));
    replica.stop().await;
}
