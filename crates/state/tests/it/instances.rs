//! Instance lists in a store that is damaged, or has lost what it had acknowledged: readers notice by themselves.

use crate::samples::{DEADLINE, NOW, instances, name, service_id};
use async_trait::async_trait;
use grey_core::ids::ServiceId;
use grey_core::table::Table;
use grey_state::follower::{self, Follower, Tables};
use grey_state::instances::{Cursor, Doubt, InstancesRead, Loaded, ServiceInstances, WRITER};
use grey_state::{Error, FencingToken, Instances, State};
use grey_testkit::{Redis, eventually};
use redis::aio::MultiplexedConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const TOKEN: FencingToken = FencingToken(7);
const HASH: &str = "service:{payment}:version:v1.0:instances";
const INDEX: &str = "service:{payment}:instances";
const DIGESTS: &str = "{grey:instances}:digests";

async fn start() -> (Redis, State, MultiplexedConnection) {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&crate::options_of(&redis)).await.unwrap();
    let raw = redis.connection().await.unwrap();
    (redis, state, raw)
}

async fn ask(raw: &mut MultiplexedConnection, words: &str) {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.exec_async(raw).await.unwrap();
}

async fn replace(state: &State, list: &ServiceInstances) {
    state.instances.replace(TOKEN, list).await.unwrap();
}

fn payment() -> ServiceInstances {
    instances("payment", &["v1"], 2)
}

fn search() -> ServiceInstances {
    instances("search", &["v1"], 1)
}

/// Both services, announced and followed by nobody yet.
async fn both() -> (Redis, State, MultiplexedConnection) {
    let (redis, state, raw) = start().await;
    replace(&state, &payment()).await;
    replace(&state, &search()).await;
    (redis, state, raw)
}

async fn restore(redis: &Redis, dump: &grey_testkit::Dump, state: &State) {
    redis.restart_from_dump(dump).await.unwrap();
    eventually(DEADLINE, "the store is back", async || state.instances.load().await.is_ok()).await;
}

fn sum<'l>(lists: impl IntoIterator<Item = &'l ServiceInstances>) -> u64 {
    lists.into_iter().fold(0, |sum, list| sum.wrapping_add(list.digest()))
}

/// A follower that ends with this, and its tables.
fn follow(state: &State, from: Option<Table>) -> (DropGuard, Tables) {
    follow_with(state, from, follower::Options::default().unannounced)
}

/// The same, believing after `unannounced` that there are no instances at all.
fn follow_with(state: &State, from: Option<Table>, unannounced: Duration) -> (DropGuard, Tables) {
    let options = follower::Options {
        wait: Duration::from_millis(20),
        backoff: (Duration::from_millis(1), Duration::from_millis(20)),
        unannounced,
        ..follower::Options::default()
    };
    let (follower, tables) = Follower::new(state.clone(), options);
    let follower = match from {
        Some(table) => follower.with_table(table),
        None => follower,
    };
    let stop = CancellationToken::new();
    tokio::spawn(follower.run(stop.clone()));
    (stop.drop_guard(), tables)
}

fn has(tables: &Tables, lists: &[ServiceInstances]) -> bool {
    tables.load().instances_digest() == sum(lists)
}

async fn until(tables: &Tables, what: &str, lists: &[ServiceInstances]) {
    eventually(DEADLINE, what, async || has(tables, lists) && !tables.status().instances.differ).await;
}

async fn doubts(state: &State) -> Vec<Doubt> {
    let requests = state.requests.take(&name(WRITER), NOW).await.unwrap();
    requests.iter().map(|request| Doubt::decode(request).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_that_were_lost_and_numbered_again_are_noticed() {
    let (redis, state, _) = both().await;
    let dump = redis.save_dump().await.unwrap();
    let next = instances("payment", &["v2"], 2);
    replace(&state, &next).await;
    let (_follower, tables) = follow(&state, None);
    until(&tables, "the follower has what was announced", &[next, search()]).await;
    let Loaded { cursor, .. } = state.instances.load().await.unwrap();

    restore(&redis, &dump, &state).await;
    let basket = instances("basket", &["v1"], 1);
    replace(&state, &basket).await;
    assert_eq!(state.instances.read(&cursor, NOW).await.unwrap(), InstancesRead::Lost, "at the same number");
    until(&tables, "the follower has what is there", &[payment(), search(), basket.clone()]).await;
    replace(&state, &basket).await;
    assert_eq!(state.instances.read(&cursor, NOW).await.unwrap(), InstancesRead::Lost, "and past it");
}

/// What damages a list or what all share, and the key that is blamed first.
const DAMAGES: &[(&str, &str)] = &[
    ("HSET service:{payment}:version:v1.0:instances v1-000:8080#DEFAULT {", HASH),
    ("HSET service:{payment}:version:v1.0:instances stray x", HASH),
    ("HSET service:{payment}:version:v1.0:instances v1-000:8080#DEFAULT {\"id\":\"other\"}", HASH),
    ("HDEL service:{payment}:version:v1.0:instances v1-000:8080#DEFAULT", HASH),
    ("DEL service:{payment}:version:v1.0:instances", HASH),
    ("SET service:{payment}:version:v1.0:instances x", HASH),
    ("HSET service:{payment}:instances v1.0 7", HASH),
    ("HSET service:{payment}:instances v1.0 x", INDEX),
    ("HSET service:{payment}:instances v9.0 1", "service:{payment}:version:v9.0:instances"),
    ("HSET service:{payment}:instances stray} x", INDEX),
    ("HSET service:{payment}:instances #digest x", INDEX),
    ("HSET service:{payment}:instances #digest 0000000000000001", INDEX),
    ("HDEL service:{payment}:instances #digest", INDEX),
    ("DEL service:{payment}:instances", INDEX),
    ("SET service:{payment}:instances x", INDEX),
    ("HSET {grey:instances}:digests payment x", DIGESTS),
    ("HSET {grey:instances}:digests payment 0000000000000001", DIGESTS),
    ("HSET {grey:instances}:digests No! 0000000000000000", DIGESTS),
    ("HDEL {grey:instances}:digests payment", DIGESTS),
    ("DEL grey:instances", "grey:instances"),
    ("SET grey:instances x", "grey:instances"),
    ("XADD grey:instances 5-7 g x t 1", "grey:instances"),
    ("XADD grey:instances * x y", "grey:instances"),
    ("XADD grey:instances 5-0 g x t 1 n x d 0000000000000001", DIGESTS),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_damaged_is_told_stops_no_other_service_and_is_mended_by_a_replacement() {
    let (_redis, state, mut raw) = both().await;
    for (command, key) in DAMAGES {
        ask(&mut raw, command).await;
        let loaded = state.instances.load().await.unwrap();
        assert!(loaded.lists.contains(&search()), "{command}: {loaded:?}");
        let why = loaded.damaged.first().map(|damaged| damaged.why.as_str()).unwrap_or_default();
        assert!(why.starts_with(&format!("read `{key}`: ")), "{command}: {loaded:?}");
        let blamed = |damaged: &grey_state::instances::Damaged| {
            damaged.service.as_ref().is_none_or(|service| *service == service_id("payment"))
        };
        assert!(loaded.damaged.iter().all(blamed), "{command}: {loaded:?}");
        let old = loaded.cursor;

        replace(&state, &payment()).await;
        let loaded = state.instances.load().await.unwrap();
        assert_eq!((&loaded.lists, &loaded.damaged), (&vec![payment(), search()], &vec![]), "{command}");
        assert_eq!(loaded.digest, Some(sum(&loaded.lists)), "{command}");
        let read = state.instances.read(&old, NOW).await.unwrap();
        let told = match &read {
            InstancesRead::Replaced { lists, .. } => *lists == [payment()],
            other => *other == InstancesRead::Lost,
        };
        assert!(told, "{command}: {read:?}");
        let read = state.instances.read(&loaded.cursor, NOW).await.unwrap();
        assert_eq!(read, InstancesRead::Idle { digest: loaded.digest }, "{command}");
    }
}

#[tokio::test]
async fn without_knowing_which_services_there_are_nothing_is_concluded() {
    let (_redis, state, mut raw) = both().await;
    let (_follower, tables) = follow(&state, None);
    until(&tables, "the follower has both", &[payment(), search()]).await;
    ask(&mut raw, "SET {grey:instances}:digests x").await;
    ask(&mut raw, "DEL grey:instances").await;
    let refused = state.instances.load().await;
    assert!(matches!(&refused, Err(Error::Corrupt { key, .. }) if key == DIGESTS), "{refused:?}");
    eventually(DEADLINE, "the writer is asked", async || doubts(&state).await.contains(&Doubt::Stored)).await;
    assert!(has(&tables, &[payment(), search()]));
    for list in [payment(), search()] {
        replace(&state, &list).await;
    }
    let loaded = state.instances.load().await.unwrap();
    assert_eq!((loaded.lists, loaded.damaged), (vec![payment(), search()], vec![]));
    until(&tables, "the follower has both, compared", &[payment(), search()]).await;
}

#[tokio::test]
async fn fields_of_a_newer_release_are_skipped() {
    let (_redis, state, mut raw) = both().await;
    let mut get = redis::cmd("HGET");
    let text: String = get.arg(HASH).arg("v1-000:8080#DEFAULT").query_async(&mut raw).await.unwrap();
    let newer = text.replacen('{', "{\"future\":{\"deep\":[1,{\"x\":null}]},", 1);
    let mut set = redis::cmd("HSET");
    set.arg(HASH).arg("v1-000:8080#DEFAULT").arg(newer).exec_async(&mut raw).await.unwrap();
    ask(&mut raw, &format!("HSET {INDEX} #future x")).await;
    ask(&mut raw, &format!("HSET {DIGESTS} #future x")).await;
    let loaded = state.instances.load().await.unwrap();
    assert_eq!((loaded.lists, loaded.damaged), (vec![payment(), search()], vec![]));
}

#[tokio::test]
async fn a_late_announcement_of_an_old_leader_names_no_service() {
    let (_redis, state, mut raw) = both().await;
    // As if the old leader had looked at the stream before the new one wrote.
    ask(&mut raw, "DEL grey:instances").await;
    let late = state.instances.replace(FencingToken(6), &instances("late", &["v1"], 1)).await;
    assert!(matches!(late, Err(Error::Fenced { newest: 7, .. })), "{late:?}");
    replace(&state, &search()).await;
    assert_eq!(state.instances.load().await.unwrap().lists, [payment(), search()]);
}

#[tokio::test]
async fn a_list_that_was_written_and_never_announced_is_told() {
    let (redis, state, mut raw) = both().await;
    let dump = redis.save_dump().await.unwrap();
    let next = instances("payment", &["v2"], 1);
    replace(&state, &next).await;
    // As if the writer had died in between: the list is the new one, what was announced is the old one.
    let keys = [INDEX, "service:{payment}:version:v2.0:instances"];
    let mut dumps: Vec<Vec<u8>> = Vec::new();
    for key in keys {
        dumps.push(redis::cmd("DUMP").arg(key).query_async(&mut raw).await.unwrap());
    }
    restore(&redis, &dump, &state).await;
    let mut raw = redis.connection().await.unwrap();
    for (key, dump) in keys.into_iter().zip(dumps) {
        let mut write = redis::cmd("RESTORE");
        write.arg(key).arg(0).arg(dump).arg("REPLACE").exec_async(&mut raw).await.unwrap();
    }
    let loaded = state.instances.load().await.unwrap();
    assert_eq!(loaded.lists, [next.clone(), search()]);
    assert!(loaded.is_damaged(&next.service) && loaded.damaged.len() == 1, "{loaded:?}");
    replace(&state, &next).await;
    assert_eq!(state.instances.load().await.unwrap().damaged, []);
}

/// Instances that keep one list from whoever reads them.
struct Forgetful {
    all: Arc<dyn Instances>,
    forget: AtomicBool,
}

#[async_trait]
impl Instances for Forgetful {
    async fn replace(&self, token: FencingToken, list: &ServiceInstances) -> Result<(), Error> {
        self.all.replace(token, list).await
    }

    async fn load(&self) -> Result<Loaded, Error> {
        self.all.load().await
    }

    async fn list(&self, service: &ServiceId) -> Result<ServiceInstances, Error> {
        self.all.list(service).await
    }

    async fn read(&self, after: &Cursor, wait: Duration) -> Result<InstancesRead, Error> {
        let mut read = self.all.read(after, wait).await?;
        if let InstancesRead::Replaced { lists, .. } = &mut read
            && self.forget.swap(false, Relaxed)
        {
            lists.clear();
        }
        Ok(read)
    }

    async fn digest(&self) -> Result<Option<u64>, Error> {
        self.all.digest().await
    }
}

#[tokio::test]
async fn a_follower_that_missed_a_list_however_that_came_about_loads_again() {
    let mut state = State::memory();
    let forgetful = Arc::new(Forgetful { all: Arc::clone(&state.instances), forget: AtomicBool::new(false) });
    state.instances = Arc::clone(&forgetful) as Arc<dyn Instances>;
    replace(&state, &payment()).await;
    let (_follower, tables) = follow(&state, None);
    until(&tables, "the follower has the first list", &[payment()]).await;
    forgetful.forget.store(true, Relaxed);
    replace(&state, &search()).await;
    until(&tables, "the follower has both", &[payment(), search()]).await;
    assert!(tables.status().instances.drifts > 0);
}

#[tokio::test]
async fn a_damaged_list_leaves_the_last_good_one_in_use() {
    let (_redis, state, mut raw) = both().await;
    let (_follower, tables) = follow(&state, None);
    until(&tables, "the follower has both", &[payment(), search()]).await;
    ask(&mut raw, &format!("HSET {HASH} v1-000:8080#DEFAULT {{")).await;
    // It loses its place, too.
    ask(&mut raw, "DEL grey:instances").await;
    eventually(DEADLINE, "the damage is found", async || tables.status().instances.damaged > 0).await;
    assert!(has(&tables, &[payment(), search()]));
    let next = instances("search", &["v2"], 1);
    replace(&state, &next).await;
    until(&tables, "the follower has the other's next list", &[payment(), next.clone()]).await;
    assert!(doubts(&state).await.contains(&Doubt::Stored), "the writer was asked");

    // One that has no last good list takes what reads, says so, and is whole once the list is written again.
    let (_fresh, fresh) = follow(&state, None);
    eventually(DEADLINE, "it differs", async || fresh.status().instances.differ).await;
    assert!(fresh.has_instances() && !fresh.status().is_current());
    let half = ServiceInstances { instances: vec![payment().instances[1].clone()], ..payment() };
    assert!(has(&fresh, &[half, next.clone()]));
    replace(&state, &payment()).await;
    until(&fresh, "it is whole", &[payment(), next]).await;
    eventually(DEADLINE, "and says so", async || fresh.status().instances.damaged == 0).await;
}

#[tokio::test]
async fn a_wiped_store_proves_nothing_and_the_writer_is_reminded_of_what_it_does_not_have() {
    let (_redis, state, mut raw) = both().await;
    let (_follower, tables) = follow(&state, None);
    until(&tables, "the follower has both", &[payment(), search()]).await;
    ask(&mut raw, "FLUSHALL").await;
    let next = instances("search", &["v2"], 1);
    replace(&state, &next).await;
    eventually(DEADLINE, "the writer is reminded", async || {
        doubts(&state).await.contains(&Doubt::Missing(payment()))
    })
    .await;
    assert!(has(&tables, &[payment(), next.clone()]));
    assert!(tables.status().instances.differ, "it is not known whether payment still runs");
    let gone = instances("payment", &[], 0);
    replace(&state, &gone).await;
    until(&tables, "what the writer says counts", &[next]).await;
}

#[tokio::test]
async fn who_starts_on_a_wiped_store_waits_for_its_writer_and_not_for_ever() {
    let (_redis, state, mut raw) = both().await;
    ask(&mut raw, "FLUSHALL").await;
    let (_patient, patient) = follow_with(&state, None, Duration::from_secs(3_600));
    eventually(DEADLINE, "the writer is asked", async || doubts(&state).await.contains(&Doubt::Stored)).await;
    let (_impatient, impatient) = follow_with(&state, None, Duration::ZERO);
    eventually(DEADLINE, "nothing runs", async || impatient.has_instances()).await;
    assert!(!patient.has_instances(), "it may be that everything was lost");
    replace(&state, &payment()).await;
    eventually(DEADLINE, "something runs", async || patient.has_instances()).await;
    assert!(has(&patient, &[payment()]));
}

#[tokio::test]
async fn a_table_from_a_snapshot_is_compared_as_well() {
    let (_redis, state, _raw) = both().await;
    let mut old = Table::default();
    old.set_instances(&service_id("payment"), instances("payment", &["v0"], 3).instances);
    old.set_instances(&service_id("gone"), instances("gone", &["v0"], 1).instances);
    let (_follower, tables) = follow(&state, Some(old));
    let gone = instances("gone", &["v0"], 1);
    eventually(DEADLINE, "the writer is reminded", async || {
        doubts(&state).await.contains(&Doubt::Missing(gone.clone()))
    })
    .await;
    assert!(has(&tables, &[payment(), search(), gone.clone()]));
    replace(&state, &instances("gone", &[], 0)).await;
    until(&tables, "the table is the store's", &[payment(), search()]).await;
}
