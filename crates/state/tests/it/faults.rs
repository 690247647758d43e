//! One server that dies, comes back with less, or hides behind a broken network.

use crate::samples::{DEADLINE, EPOCH, NOW, entry, instances, name, position, service_id, version};
use grey_core::change::FormatLevel;
use grey_core::table::Locality;
use grey_state::feed::{Append, FeedRead};
use grey_state::instances::InstancesRead;
use grey_state::projection::Beat;
use grey_state::redis::Options;
use grey_state::{Error, FencingToken, State};
use grey_testkit::{Proxy, Redis, eventually};
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

const TOKEN: FencingToken = FencingToken(1);
const LONG: Duration = Duration::from_secs(600);

/// Short deadlines: these tests wait for them.
fn impatient(url: String) -> Options {
    Options {
        urls: vec![url],
        response_timeout_ms: 1_000,
        connect_timeout_ms: 1_000,
        turn_timeout_ms: 500,
        ..crate::backend::options()
    }
}

async fn append(state: &State, revision: u64) -> Result<Append, Error> {
    state.feed.append(TOKEN, EPOCH, &[entry(revision)]).await
}

/// Waits for the connection to be back.
async fn recovered(state: &State) {
    eventually(DEADLINE, "the connection is restored", async || state.feed.head().await.is_ok()).await;
}

/// Everything answers with an error, and in time.
async fn assert_everything_fails(state: &State) {
    async fn fails<T: Debug>(what: &str, outcome: impl Future<Output = Result<T, Error>>) {
        let outcome = timeout(DEADLINE, outcome).await;
        let failed = matches!(&outcome, Ok(Err(Error::Unavailable { .. } | Error::Timeout { .. })));
        assert!(failed, "{what}: {outcome:?}");
    }
    let list = instances("payment", &["v1"], 1);
    let cursor = grey_state::instances::Cursor("life 1 x".to_owned());
    let (publisher, payment, v1) = (name("publisher"), service_id("payment"), version("v1"));
    let (beat, at) = (Beat::default(), position(3, 1));
    tokio::join!(
        fails("append", append(state, 1)),
        fails("head", state.feed.head()),
        fails("read", async { state.feed.read(&position(3, 1), FormatLevel::CURRENT, 1, LONG).await }),
        fails("status", state.projection.status()),
        fails("beat", state.projection.beat(TOKEN, &beat)),
        fails("last beat", state.projection.last_beat()),
        fails("repair", state.projection.repair(TOKEN, &at, &[])),
        fails("indexes", state.projection.indexes()),
        fails("load", async { state.projection.load(&mut |_| {}).await }),
        fails("rebuild", async { state.projection.rebuild(TOKEN, &position(3, 1)).await.map(drop) }),
        fails("replace", state.instances.replace(TOKEN, &list)),
        fails("instances", state.instances.load()),
        fails("follow instances", state.instances.read(&cursor, LONG)),
        fails("digest of instances", state.instances.digest()),
        fails("lease", state.leases.acquire(&publisher, "a", LONG)),
        fails("turn", state.turns.next(&payment, &v1, Locality::Everywhere)),
        fails("routers", state.heartbeats.live()),
        fails("post a request", state.requests.post(&publisher, b"x")),
        fails("take requests", state.requests.take(&publisher, LONG)),
        fails("publish a status", state.statuses.publish(&publisher, TOKEN, b"x", LONG)),
        fails("read a status", state.statuses.read(&publisher)),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_server_is_noticed_and_used_again() {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&impatient(redis.url())).await.unwrap();
    state.feed.reset(TOKEN, &position(3, 0)).await.unwrap();
    assert_eq!(append(&state, 1).await.unwrap(), Append::Appended);
    let held = state.leases.acquire(&name("publisher"), "a", LONG).await.unwrap().unwrap();
    state.instances.replace(TOKEN, &instances("payment", &["v1"], 2)).await.unwrap();
    let cursor = state.instances.load().await.unwrap().cursor;
    state.statuses.publish(&name("publisher"), held, b"before", LONG).await.unwrap();
    state.requests.post(&name("publisher"), b"before").await.unwrap();

    redis.kill9().unwrap();
    assert_everything_fails(&state).await;
    redis.restart_empty().await.unwrap();
    recovered(&state).await;
    assert_eq!(state.feed.head().await.unwrap(), None);
    assert_eq!(
        state.feed.read(&position(3, 1), FormatLevel::CURRENT, 1, LONG).await.unwrap(),
        FeedRead::Lost
    );
    assert_eq!(append(&state, 2).await.unwrap(), Append::OutOfPlace);
    assert_eq!(state.instances.read(&cursor, LONG).await.unwrap(), InstancesRead::Lost);
    let next = state.leases.acquire(&name("publisher"), "b", LONG).await.unwrap().unwrap();
    assert!(next > held, "tokens grow over a loss of all data");
    assert_eq!(state.statuses.read(&name("publisher")).await.unwrap(), None);
    assert_eq!(state.requests.take(&name("publisher"), NOW).await.unwrap(), Vec::<Vec<u8>>::new());
    state.statuses.publish(&name("publisher"), next, b"after", LONG).await.unwrap();
    let late = state.statuses.publish(&name("publisher"), held, b"late", LONG).await;
    assert!(matches!(late, Err(Error::Fenced { newest, .. }) if newest == next.0), "{late:?}");
    state.requests.post(&name("publisher"), b"after").await.unwrap();
    assert_eq!(state.requests.take(&name("publisher"), LONG).await.unwrap(), [b"after"]);

    // The same numbers of a new life are no continuation of the old one.
    for _ in 0..3 {
        state.instances.replace(TOKEN, &instances("payment", &["v1"], 1)).await.unwrap();
    }
    assert_eq!(state.instances.read(&cursor, NOW).await.unwrap(), InstancesRead::Lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silently_emptied_server_is_noticed_by_a_waiting_reader() {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&impatient(redis.url())).await.unwrap();
    state.feed.reset(TOKEN, &position(3, 0)).await.unwrap();
    let reader = {
        let state = state.clone();
        tokio::spawn(async move {
            timeout(DEADLINE, state.feed.read(&position(3, 0), FormatLevel::CURRENT, 1, LONG)).await
        })
    };
    let mut raw = redis.connection().await.unwrap();
    eventually(DEADLINE, "the reader waits", async || {
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut raw).await.unwrap();
        clients.contains("cmd=xread")
    })
    .await;
    let () = redis::cmd("FLUSHALL").query_async(&mut raw).await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap().unwrap(), FeedRead::Lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restored_from_older_data_is_noticed() {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&impatient(redis.url())).await.unwrap();
    state.feed.reset(TOKEN, &position(3, 0)).await.unwrap();
    assert_eq!(append(&state, 1).await.unwrap(), Append::Appended);
    let dump = redis.save_dump().await.unwrap();
    for revision in 2..5 {
        assert_eq!(append(&state, revision).await.unwrap(), Append::Appended);
    }
    redis.restart_from_dump(&dump).await.unwrap();
    recovered(&state).await;
    assert_eq!(
        state.feed.read(&position(3, 4), FormatLevel::CURRENT, 1, LONG).await.unwrap(),
        FeedRead::Lost
    );
    assert_eq!(append(&state, 5).await.unwrap(), Append::OutOfPlace);
    let reader = {
        let state = state.clone();
        tokio::spawn(async move {
            timeout(DEADLINE, state.feed.read(&position(3, 1), FormatLevel::CURRENT, 10, LONG)).await
        })
    };
    for revision in 2..6 {
        assert_eq!(append(&state, revision).await.unwrap(), Append::Appended);
    }
    let read = reader.await.unwrap().unwrap().unwrap();
    assert!(matches!(&read, FeedRead::Entries(entries) if entries[0] == entry(2)), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_fails_in_time_and_heals_by_itself() {
    let redis = Redis::start().await.unwrap();
    let proxy = Proxy::start(redis.addr()).await.unwrap();
    proxy.cut().await.unwrap();
    // The server may be away from the start.
    let state = State::redis(&impatient(format!("redis://{}", proxy.addr()))).await.unwrap();
    assert_everything_fails(&state).await;
    for round in 0..3 {
        proxy.heal().await.unwrap();
        recovered(&state).await;
        state.feed.reset(TOKEN, &position(3, round)).await.unwrap();
        let reader = {
            let state = state.clone();
            tokio::spawn(async move {
                timeout(DEADLINE, state.feed.read(&position(3, round), FormatLevel::CURRENT, 1, LONG)).await
            })
        };
        proxy.cut().await.unwrap();
        let cut = reader.await.unwrap().unwrap();
        assert!(matches!(cut, Err(Error::Unavailable { .. } | Error::Timeout { .. })), "{cut:?}");
    }
    assert_everything_fails(&state).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_link_fails_in_time_and_heals_by_itself() {
    let redis = Redis::start().await.unwrap();
    let proxy = Proxy::start(redis.addr()).await.unwrap();
    let state = State::redis(&impatient(format!("redis://{}", proxy.addr()))).await.unwrap();
    recovered(&state).await;
    state.feed.reset(TOKEN, &position(3, 0)).await.unwrap();
    proxy.stall().await.unwrap();
    assert_everything_fails(&state).await;
    proxy.heal().await.unwrap();
    recovered(&state).await;
    assert!(state.leases.acquire(&name("other"), "b", LONG).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_delays_a_turn_no_longer_than_its_deadline() {
    let redis = Redis::start().await.unwrap();
    let options = Options { turn_timeout_ms: 20, response_timeout_ms: 30_000, ..impatient(redis.url()) };
    let state = State::redis(&options).await.unwrap();
    recovered(&state).await;
    redis.pause().unwrap();
    let turn = state.turns.next(&service_id("payment"), &version("v1"), Locality::Everywhere).await;
    assert!(
        matches!(turn, Err(Error::Timeout { deadline, .. }) if deadline == Duration::from_millis(20)),
        "{turn:?}"
    );
    redis.resume().unwrap();
    eventually(DEADLINE, "turns are given again", async || {
        state.turns.next(&service_id("payment"), &version("v1"), Locality::Everywhere).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_password_opens_the_server_and_a_wrong_one_is_an_error() {
    let redis = Redis::builder().password("secret1").start().await.unwrap();
    let bare = format!("redis://{}", redis.addr());
    let with = |password| Options {
        password: grey_state::redis::Password::new(password),
        ..impatient(bare.clone())
    };
    let state = State::redis(&with("secret1")).await.unwrap();
    assert_eq!(state.feed.head().await.unwrap(), None);
    for wrong in ["", "secret2"] {
        let state = State::redis(&with(wrong)).await.unwrap();
        let refused = state.feed.head().await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
        assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
    }
}
