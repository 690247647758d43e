//! A master that is killed while it is used: behind Sentinel and in a cluster.

use crate::backend::{cluster_options, sentinel_options};
use crate::samples::{DEADLINE, EPOCH, NOW, entry, instances, name, position, service_id, version};
use grey_core::change::FormatLevel;
use grey_core::table::Locality;
use grey_state::feed::{Append, FeedRead};
use grey_state::instances::InstancesRead;
use grey_state::redis::Options;
use grey_state::{Error, FencingToken, State};
use grey_testkit::{RedisCluster, RedisSentinel, eventually};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::timeout;

const LEASE: Duration = Duration::from_millis(500);
const TOKEN: FencingToken = FencingToken(1);

/// What ran while the master died.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    appended: AtomicU64,
    read: AtomicU64,
    turns: AtomicU64,
    newest_token: AtomicU64,
    failures: AtomicU64,
}

/// Appends entry after entry; goes back when the feed lost some. Counts how often each was acknowledged.
async fn publish(state: State, progress: Arc<Progress>) {
    let mut acknowledged: BTreeMap<u64, u32> = BTreeMap::new();
    let mut lost_after = u64::MAX;
    let mut next = 1;
    while !progress.stop.load(Relaxed) {
        match state.feed.append(TOKEN, EPOCH, &[entry(next)]).await {
            Ok(Append::Appended) => {
                let times = acknowledged.entry(next).or_default();
                *times += 1;
                assert!(
                    *times == 1 || next > lost_after,
                    "{next} was appended twice without having been lost"
                );
                progress.appended.fetch_max(next, Relaxed);
                next += 1;
            }
            Ok(Append::Duplicate) => next += 1,
            Ok(Append::OutOfPlace) => match state.feed.head().await {
                Ok(Some(head)) => {
                    lost_after = lost_after.min(head.last.0);
                    next = head.last.0 + 1;
                }
                Ok(None) => {
                    lost_after = 0;
                    drop(state.feed.reset(TOKEN, &position(3, next - 1)).await);
                }
                Err(_) => {}
            },
            Err(_) => {
                progress.failures.fetch_add(1, Relaxed);
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Reads without ever being told where to go on, but for the feed itself.
async fn follow(state: State, progress: Arc<Progress>) {
    let mut at = 0;
    while !progress.stop.load(Relaxed) {
        match state.feed.read(&position(3, at), FormatLevel::CURRENT, 50, Duration::from_millis(300)).await {
            Ok(FeedRead::Entries(entries)) => {
                for read in entries {
                    at += 1;
                    assert_eq!(read, entry(at));
                }
                progress.read.store(at, Relaxed);
            }
            Ok(FeedRead::Idle | FeedRead::Above(_)) | Err(_) => {}
            Ok(FeedRead::Lost) => {
                if let Ok(Some(head)) = state.feed.head().await {
                    at = head.last.0;
                }
            }
        }
    }
}

async fn lead(state: State, progress: Arc<Progress>, holder: &'static str) {
    while !progress.stop.load(Relaxed) {
        if let Ok(Some(token)) = state.leases.acquire(&name("publisher"), holder, LEASE).await {
            progress.newest_token.fetch_max(token.0, Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn take_turns(state: State, progress: Arc<Progress>) {
    while !progress.stop.load(Relaxed) {
        if state.turns.next(&service_id("payment"), &version("v1"), Locality::Everywhere).await.is_ok() {
            progress.turns.fetch_add(1, Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

/// Uses shared state from two clients while `kill` takes the master away, until everything goes on.
async fn survive(options: Options, kill: impl Future<Output = ()>) {
    let options = Options { response_timeout_ms: 1_000, feed_length: 1_000_000, ..options };
    let (one, two) = (State::redis(&options).await.unwrap(), State::redis(&options).await.unwrap());
    eventually(DEADLINE, "the feed is begun", async || one.feed.reset(TOKEN, &position(3, 0)).await.is_ok())
        .await;
    let progress = Arc::new(Progress::default());
    let work = [
        tokio::spawn(publish(one.clone(), Arc::clone(&progress))),
        tokio::spawn(follow(two.clone(), Arc::clone(&progress))),
        tokio::spawn(lead(one.clone(), Arc::clone(&progress), "one")),
        tokio::spawn(take_turns(two.clone(), Arc::clone(&progress))),
    ];
    let busy = || {
        let appended = progress.appended.load(Relaxed);
        (appended, progress.read.load(Relaxed), progress.turns.load(Relaxed))
    };
    let goes_on = async |since: (u64, u64, u64)| {
        eventually(DEADLINE, "appends, reads and turns go on", async || {
            let now = busy();
            now.0 > since.0 + 20 && now.1 > since.1 + 20 && now.2 > since.2 + 20
        })
        .await;
    };
    goes_on((0, 0, 0)).await;
    let token = progress.newest_token.load(Relaxed);
    assert!(token > 0);
    timeout(DEADLINE * 2, kill).await.unwrap();
    goes_on(busy()).await;
    eventually(DEADLINE, "another holder gets the lease with a higher token", async || {
        let other = two.leases.acquire(&name("other"), "two", LEASE).await;
        matches!(other, Ok(Some(other)) if other.0 > token)
    })
    .await;
    progress.stop.store(true, Relaxed);
    for task in work {
        timeout(DEADLINE, task).await.unwrap().unwrap();
    }
    eventually(DEADLINE, "the reader could catch up", async || {
        let (head, at) = (one.feed.head().await, progress.read.load(Relaxed));
        match two.feed.read(&position(3, at), FormatLevel::CURRENT, 100_000, Duration::ZERO).await {
            Ok(FeedRead::Entries(entries)) => {
                head.is_ok_and(|head| entries.last().unwrap().event.revision == head.unwrap().last)
            }
            Ok(FeedRead::Idle) => true,
            Ok(FeedRead::Lost | FeedRead::Above(_)) | Err(_) => false,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_after_a_sentinel_replaced_the_master() {
    let sentinel = RedisSentinel::start().await.unwrap();
    survive(sentinel_options(&sentinel), async {
        let old = sentinel.kill_master().await.unwrap();
        sentinel.wait_for_new_master(old).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_after_each_master_of_a_cluster_was_replaced() {
    let cluster = RedisCluster::start().await.unwrap();
    for _ in 0..3 {
        survive(cluster_options(&cluster), async {
            let old = cluster.kill_a_master().await.unwrap();
            cluster.wait_for_failover(old).await.unwrap();
            cluster.restart(old).await.unwrap();
            cluster.wait_until_healthy().await.unwrap();
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_is_left_for_the_new_one() {
    let sentinel = RedisSentinel::start().await.unwrap();
    let state = State::redis(&sentinel_options(&sentinel)).await.unwrap();
    state.feed.reset(TOKEN, &position(3, 0)).await.unwrap();
    let old = sentinel.kill_master().await.unwrap();
    let new = sentinel.wait_for_new_master(old).await.unwrap();
    sentinel.restart(old).await.unwrap();
    eventually(DEADLINE, "writes reach the new master", async || {
        state.feed.reset(TOKEN, &position(3, 7)).await.is_ok()
    })
    .await;
    let client = redis::Client::open(format!("redis://{new}")).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let ids: Vec<(String, BTreeMap<String, String>)> =
        redis::cmd("XRANGE").arg("grey:changes").arg("-").arg("+").query_async(&mut raw).await.unwrap();
    assert_eq!(ids.len(), 1);
    assert_eq!(ids[0].0, "7-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announcement_that_a_failover_lost_is_noticed_though_another_has_its_number() {
    let sentinel = RedisSentinel::start().await.unwrap();
    let state = State::redis(&sentinel_options(&sentinel)).await.unwrap();
    state.instances.replace(TOKEN, &instances("payment", &["v1"], 1)).await.unwrap();
    let client = redis::Client::open(format!("redis://{}", sentinel.master_addr().await.unwrap())).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let mut ask = async |words: &str| {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query_async::<redis::Value>(&mut raw).await.unwrap()
    };
    assert_eq!(ask("WAIT 2 30000").await, redis::Value::Int(2));
    ask("ACL SETUSER default -psync -sync").await;
    ask("CLIENT KILL TYPE replica").await;

    // Acknowledged, and on the master alone.
    state.instances.replace(TOKEN, &instances("payment", &["v2"], 1)).await.unwrap();
    let cursor = state.instances.load().await.unwrap().cursor;
    let old = sentinel.kill_master().await.unwrap();
    sentinel.wait_for_new_master(old).await.unwrap();
    let search = instances("search", &["v1"], 1);
    eventually(DEADLINE, "writes reach the new master", async || {
        state.instances.replace(TOKEN, &search).await.is_ok()
    })
    .await;
    assert_eq!(state.instances.read(&cursor, NOW).await.unwrap(), InstancesRead::Lost);
    let loaded = state.instances.load().await.unwrap();
    assert_eq!(loaded.lists, [instances("payment", &["v1"], 1), search], "the announcement was lost");
    assert_eq!(loaded.damaged, []);
}

#[tokio::test]
async fn an_unknown_master_name_is_an_error_in_time() {
    let sentinel = RedisSentinel::start().await.unwrap();
    let options = Options {
        master_name: "other".to_owned(),
        response_timeout_ms: 1_000,
        ..sentinel_options(&sentinel)
    };
    let state = State::redis(&options).await.unwrap();
    let refused = timeout(DEADLINE, state.feed.head()).await.unwrap();
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
}
