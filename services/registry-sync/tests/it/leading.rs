//! Several replicas, and a shared state that goes away.

use grey_core::ids::ServiceId;
use grey_registry_sync::registry::Listing;
use grey_state::instances::ServiceInstances;
use grey_state::{Error, FencingToken, State};
use grey_testkit::{Proxy, Redis, eventually};

use crate::following::SOON;
use crate::replica::{Replica, Script, config, connect, many, on, published};

/// The token of whoever leads.
async fn token(redis: &Redis) -> FencingToken {
    let mut connection = redis.connection().await.unwrap();
    let lease: String =
        redis::cmd("GET").arg("grey:lease:instances").query_async(&mut connection).await.unwrap();
    FencingToken(lease.split(' ').next().unwrap().parse().unwrap())
}

async fn led_by(replica: &Replica, name: &str) {
    eventually(SOON, &format!("{name} leads"), async || replica.status().await.leader == name).await;
}

#[tokio::test]
async fn another_replica_takes_over_and_late_writes_are_refused() {
    let redis = Redis::start().await.unwrap();
    let proxy = Proxy::start(redis.addr()).await.unwrap();
    let script = Script::payment(&many(2));
    let behind = connect(format!("redis://{}", proxy.addr())).await;
    let state = connect(redis.url()).await;

    let first = Replica::start(&behind, config("first"), &[&script]).await;
    first.until("i00 v1.0, i01 v1.0").await;
    let second = Replica::start(&state, config("second"), &[&script]).await;
    led_by(&second, "first").await;
    let old = token(&redis).await;

    // The first one goes on believing that it leads until its lease has run out.
    proxy.stall().await.unwrap();
    script.say(&[on("i00", "1"), on("i01", "1"), on("new", "2")]);
    eventually(SOON, "the second one writes", async || {
        published(&state).await == "i00 v1.0, i01 v1.0, new v2.0"
    })
    .await;
    led_by(&second, "second").await;
    assert!(token(&redis).await > old);

    // What the old leader had begun to write arrives after all.
    proxy.heal().await.unwrap();
    let payment = ServiceId::new("payment").unwrap();
    let late = ServiceInstances { service: payment, instances: Vec::new() };
    let refused = state.instances.replace(old, &late).await.unwrap_err();
    assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
    script.say(&[on("i00", "1"), on("i01", "1"), on("new", "2"), on("newer", "2")]);
    second.until("i00 v1.0, i01 v1.0, new v2.0, newer v2.0").await;
    led_by(&first, "second").await;
    first.stop().await;

    // The last one standing is asked.
    assert_eq!(second.trigger().await.error, "");
    second.stop().await;
}

#[tokio::test]
async fn late_writes_are_refused_even_where_nothing_has_changed() {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    let script = Script::payment(&many(2));
    let first = Replica::start(&state, config("first"), &[&script]).await;
    first.until("i00 v1.0, i01 v1.0").await;
    let old = token(&redis).await;
    first.stop().await;
    let second = Replica::start(&state, config("second"), &[&script]).await;
    led_by(&second, "second").await;
    let payment = ServiceId::new("payment").unwrap();
    let late = ServiceInstances { service: payment, instances: Vec::new() };
    eventually(SOON, "the old leader's writes are refused", async || {
        matches!(state.instances.replace(old, &late).await, Err(Error::Fenced { .. }))
    })
    .await;
    second.until("i00 v1.0, i01 v1.0").await;
    second.stop().await;
}

#[tokio::test]
async fn a_standby_takes_requests_for_the_leader_and_succeeds_it_at_once() {
    let state = State::memory();
    let script = Script::payment(&many(2));
    let first = Replica::start(&state, config("first"), &[&script]).await;
    first.until("i00 v1.0, i01 v1.0").await;
    let second = Replica::start(&state, config("second"), &[&script]).await;
    script.list(Vec::new());
    let status = second.status_where("the drop is held", |status| status.held_total == 1).await;
    assert_eq!((status.leader.as_str(), status.answered_by.as_str()), ("first", "second"));
    assert_eq!(second.accept(&status.held[0].id).await.error, "");
    first.until("").await;
    let metrics = second.get("/metrics").await;
    assert!(metrics.contains("grey_sync_leading 0"), "{metrics}");

    first.stop().await;
    script.say(&many(3));
    led_by(&second, "second").await;
    second.until("i00 v1.0, i01 v1.0, i02 v1.0").await;
    second.stop().await;
}

#[tokio::test]
async fn a_successor_keeps_what_no_registry_has_spoken_of() {
    let state = State::memory();
    let script = Script::payment(&many(2));
    let first = Replica::start(&state, config("first"), &[&script]).await;
    first.until("i00 v1.0, i01 v1.0").await;
    first.stop().await;
    script.fail("away");
    let second = Replica::start(&state, config("second"), &[&script]).await;
    led_by(&second, "second").await;
    second.status_where("the registry fails", |status| status.sources[0].failures > 0).await;
    assert_eq!(second.published().await, "i00 v1.0, i01 v1.0");
    assert!(second.get("/health/ready").await.contains("true"));
    // And guards it when the registry speaks.
    script.list(Vec::new());
    second.status_where("the drop is held", |status| status.held_total == 1).await;
    assert_eq!(second.published().await, "i00 v1.0, i01 v1.0");
    second.stop().await;
}

#[tokio::test]
async fn an_empty_redis_is_filled_again() {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    let script = Script::payment(&many(2));
    let replica = Replica::start(&state, config("one"), &[&script]).await;
    replica.until("i00 v1.0, i01 v1.0").await;
    // What was held stays held, and published.
    script.list(Vec::new());
    replica.status_where("the drop is held", |status| status.held_total == 1).await;
    redis.restart_empty().await.unwrap();
    replica.until("i00 v1.0, i01 v1.0").await;
    replica.stop().await;
}

#[tokio::test]
async fn lists_that_others_have_changed_are_mended() {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    let script = Script::payment(&many(2));
    let mut config = config("one");
    config.sync.verify = std::time::Duration::from_millis(200);
    let replica = Replica::start(&state, config, &[&script]).await;
    replica.until("i00 v1.0, i01 v1.0").await;
    let mut connection = redis.connection().await.unwrap();
    let keys = ["service:{payment}:instances", "service:{payment}:version:v1.0:instances"];
    let gone: usize = redis::cmd("DEL").arg(&keys).query_async(&mut connection).await.unwrap();
    assert_eq!(gone, 2);
    replica.until("i00 v1.0, i01 v1.0").await;
    let mut garbage = redis::cmd("HSET");
    let () = garbage.arg(keys[1]).arg("i00").arg("{").query_async(&mut connection).await.unwrap();
    replica.until("i00 v1.0, i01 v1.0").await;
    replica.stop().await;
}

#[tokio::test]
async fn writes_wait_while_shared_state_is_away() {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    let script = Script::payment(&many(1));
    let replica = Replica::start(&state, config("one"), &[&script]).await;
    replica.until("i00 v1.0").await;
    redis.kill9().unwrap();
    let services = (0..100).map(|n| Listing { service: format!("s{n}"), instances: many(20) });
    let payment = Listing { service: "payment".to_owned(), instances: many(2) };
    script.list(services.chain([payment]).collect());
    eventually(SOON, "the port refuses", async || state.instances.load().await.is_err()).await;
    redis.restart().await.unwrap();
    replica.until("i00 v1.0, i01 v1.0").await;
    eventually(SOON, "everything is written", async || {
        let lists = state.instances.load().await.map(|loaded| loaded.lists).unwrap_or_default();
        lists.len() == 101 && lists.iter().map(|list| list.instances.len()).sum::<usize>() == 2_002
    })
    .await;
    replica.stop().await;
}
