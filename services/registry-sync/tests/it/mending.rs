//! Shared state that loses or damages what was written: it is mended at once, long before everything is next compared.

use std::time::Duration;

use grey_core::ids::ServiceId;
use grey_core::table::Table;
use grey_registry_sync::Config;
use grey_state::State;
use grey_state::follower::{self, Follower, Tables};
use grey_state::instances::{Loaded, ServiceInstances};
use grey_testkit::{Redis, eventually};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::following::SOON;
use crate::replica::{Replica, Script, connect, many, on};

const HASH: &str = "service:{payment}:version:v1.0:instances";

/// Nothing is compared by time alone.
fn config(name: &str) -> Config {
    let mut config = crate::replica::config(name);
    config.sync.verify = Duration::from_secs(3_600);
    config
}

/// A router's part, which ends with the guard.
fn follow(state: &State, from: Option<Table>) -> (DropGuard, Tables) {
    let (follower, tables) = Follower::new(state.clone(), follower::Options::default());
    let follower = match from {
        Some(table) => follower.with_table(table),
        None => follower,
    };
    let stop = CancellationToken::new();
    tokio::spawn(follower.run(stop.clone()));
    (stop.drop_guard(), tables)
}

/// The instances in the table.
fn routed(tables: &Tables, service: &str) -> Vec<String> {
    let table = tables.load_full();
    let slots = table.service(service).map(|service| service.versions().to_vec()).unwrap_or_default();
    let members = slots.iter().flat_map(|slot| slot.pool.members().iter());
    members.map(|member| member.instance.id.to_string()).collect()
}

async fn damage(redis: &Redis, words: &[&str]) {
    let mut connection = redis.connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).exec_async(&mut connection).await.unwrap();
}

#[tokio::test]
async fn what_a_store_loses_is_written_again_at_once_and_reaches_every_router() {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    let script = Script::payment(&many(2));
    let replica = Replica::start(&state, config("one"), &[&script]).await;
    replica.until("i00 v1.0, i01 v1.0").await;
    let dump = redis.save_dump().await.unwrap();
    let now = [on("i00", "1"), on("i01", "1"), on("i02", "1")];
    script.say(&now);
    replica.until("i00 v1.0, i01 v1.0, i02 v1.0").await;
    let (_router, tables) = follow(&state, None);
    eventually(SOON, "a router has them", async || routed(&tables, "payment").len() == 3).await;

    redis.restart_from_dump(&dump).await.unwrap();
    replica.until("i00 v1.0, i01 v1.0, i02 v1.0").await;
    let (_other, other) = follow(&state, None);
    for tables in [tables, other] {
        eventually(SOON, "routers have them", async || {
            routed(&tables, "payment").len() == 3 && !tables.status().instances.differ
        })
        .await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn what_a_router_finds_damaged_is_written_again_at_once() {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    let script = Script::payment(&many(2));
    let replica = Replica::start(&state, config("one"), &[&script]).await;
    replica.until("i00 v1.0, i01 v1.0").await;
    let digests = "{grey:instances}:digests";
    let damages: &[&[&str]] = &[
        &["HSET", HASH, "i00", "{"],
        &["HSET", HASH, "stray", "x"],
        &["SET", "service:{payment}:instances", "x"],
        &["HSET", digests, "payment", "x"],
        &["SET", digests, "x"],
        &["SET", "grey:instances", "x"],
        &["XADD", "grey:instances", "*", "x", "y"],
        &["DEL", "grey:instances"],
        &["DEL", digests],
    ];
    for words in damages {
        damage(&redis, words).await;
        let (_router, tables) = follow(&state, None);
        eventually(SOON, &format!("{words:?} is mended"), async || {
            let Ok(Loaded { lists, damaged, digest, .. }) = state.instances.load().await else {
                return false;
            };
            let whole = lists.len() == 1 && lists[0].instances.len() == 2 && damaged.is_empty();
            whole && digest == Some(lists[0].digest()) && digest == Some(tables.load().instances_digest())
        })
        .await;
    }
    assert!(replica.get("/metrics").await.contains("grey_registry_sync_damaged"));
    replica.stop().await;
}

#[tokio::test]
async fn damage_found_by_a_new_leader_waits_for_what_the_registry_says() {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    let script = Script::payment(&many(2));
    let first = Replica::start(&state, config("first"), &[&script]).await;
    first.until("i00 v1.0, i01 v1.0").await;
    first.stop().await;
    damage(&redis, &["HSET", HASH, "i00", "{"]).await;
    script.fail("away");
    let second = Replica::start(&state, config("second"), &[&script]).await;
    second.status_where("the registry fails", |status| status.sources[0].failures > 0).await;
    eventually(SOON, "it leads", async || second.status().await.leader == "second").await;
    let damaged = state.instances.load().await.unwrap();
    assert!(damaged.is_damaged(&ServiceId::new("payment").unwrap()), "half a list is not made a whole one");
    script.say(&many(2));
    eventually(SOON, "it is whole", async || state.instances.load().await.unwrap().damaged.is_empty()).await;
    assert_eq!(second.published().await, "i00 v1.0, i01 v1.0");
    second.stop().await;
}

#[tokio::test]
async fn what_only_a_router_remembers_is_believed_until_its_end_is_confirmed() {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    let script = Script::payment(&many(1));
    let first = Replica::start(&state, config("first"), &[&script]).await;
    first.until("i00 v1.0").await;
    // A port on which nothing listens, and that nobody else can take meanwhile.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut instance = state.instances.load().await.unwrap().lists[0].instances[0].clone();
    instance.address = closed.local_addr().unwrap().to_string().into();
    let gone = ServiceInstances { service: ServiceId::new("gone").unwrap(), instances: vec![instance] };
    let mut table = Table::default();
    table.set_instances(&gone.service, gone.instances.clone());
    let (_router, tables) = follow(&state, Some(table));
    assert_eq!(routed(&tables, "gone"), ["i00"]);
    eventually(SOON, "the instance that is gone is left", async || routed(&tables, "gone").is_empty()).await;
    assert_eq!(routed(&tables, "payment"), ["i00"]);
    eventually(SOON, "all agree", async || !tables.status().instances.differ).await;
    first.stop().await;
}
