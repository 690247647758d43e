//! What an operator sees with `redis-cli`, and what becomes of values that someone else wrote.

use crate::samples::{
    EPOCH, NOW, canary, entry, event, instances, load, name, position, records, service_id, service_put,
    tenant_id, tenant_put, version,
};
use grey_core::change::{Change, FormatLevel, Position};
use grey_core::key::{Fact, Key};
use grey_core::record::{Record, TenantRecord};
use grey_core::schema::{Observation, SchemaVersion, SchemaWindow};
use grey_core::service::{Pin, ServiceVersion};
use grey_core::table::Locality;
use grey_core::tenant::{Tenant, TenantStatus};
use grey_state::feed::Append;
use grey_state::heartbeats::{Goodbye, Heartbeat, below};
use grey_state::projection::ProjectionStatus;
use grey_state::turns::LAST_TURN;
use grey_state::{Digests, Error, FencingToken, State};
use grey_testkit::Redis;
use redis::aio::MultiplexedConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const TOKEN: FencingToken = FencingToken(1_700_000_000_001);

async fn start() -> (Redis, State, MultiplexedConnection) {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&crate::options_of(&redis)).await.unwrap();
    let raw = redis.connection().await.unwrap();
    (redis, state, raw)
}

/// Asks the server directly, in the words of `redis-cli`.
async fn ask<T: redis::FromRedisValue>(raw: &mut MultiplexedConnection, words: &str) -> T {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query_async(raw).await.unwrap()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect()
}

fn set(members: &[&str]) -> BTreeSet<String> {
    members.iter().map(|member| (*member).to_owned()).collect()
}

fn acme() -> Tenant {
    Tenant {
        name: "Acme & Söhne".to_owned(),
        tier: Some(name("gold")),
        region: Some(name("eu")),
        residency: vec![name("eu"), name("us")],
        labels: [(name("beta"), "yes, please".to_owned())].into(),
        ..Tenant::new(tenant_id("acme"))
    }
}

fn status(revision: u64, digest: u64) -> ProjectionStatus {
    let digests = Digests::one(digest);
    ProjectionStatus { position: position(3, revision), digests, level: FormatLevel::FIRST }
}

async fn rebuild(state: &State, records: Vec<Record>, revision: u64) {
    let mut rebuild = state.projection.rebuild(TOKEN, &position(3, revision)).await.unwrap();
    rebuild.write(records).await.unwrap();
    rebuild.finish(&status(revision, 0xab)).await.unwrap();
}

async fn apply(state: &State, revision: u64, changes: Vec<Change>) -> Result<(), Error> {
    let reached = status(revision, 0xcd);
    state.projection.apply(TOKEN, &[event(revision, changes)], &reached).await
}

/// The whole projection of one tenant and one service, as the changes that make it.
fn changes() -> Vec<Change> {
    let (tenant, service) = (tenant_id("acme"), service_id("payment"));
    let pin = |version: &str, locked| Pin { version: crate::samples::version(version), locked };
    let window = SchemaWindow { min: Some(SchemaVersion::new("1.1").unwrap()), max: None };
    let seen = Observation { schema: SchemaVersion::new("1.2").unwrap(), at_ms: 1_700_000_000_000 };
    vec![
        service_put(&service, &version("v1")),
        Change::Put(Fact::Version(Box::new(ServiceVersion {
            service: service.clone(),
            version: version("v2.1"),
            window,
        }))),
        Change::Put(Fact::Overlay(service.clone(), Box::new(canary("next", 250)))),
        tenant_put(acme()),
        tenant_put(Tenant { status: TenantStatus::Suspended, ..Tenant::new(tenant_id("asleep")) }),
        Change::Put(Fact::Pin(tenant.clone(), service.clone(), pin("v2.1", false))),
        Change::Put(Fact::Pin(tenant.clone(), service_id("search"), pin("v3", true))),
        Change::Put(Fact::Schema(tenant, service, seen)),
    ]
}

async fn assert_layout(raw: &mut MultiplexedConnection, at: &str) {
    let metadata: BTreeMap<String, String> = ask(raw, "HGETALL tenant:{acme}:metadata").await;
    let expected = [
        ("name", "Acme & Söhne"),
        ("status", "active"),
        ("tier", "gold"),
        ("region", "eu"),
        ("residency", "eu,us"),
        ("label.beta", "yes, please"),
        ("#at", at),
    ];
    assert_eq!(metadata, map(&expected));
    let services: BTreeMap<String, String> = ask(raw, "HGETALL tenant:{acme}:services").await;
    assert_eq!(services, map(&[("payment", "v2.1"), ("search", "v3.0 locked")]));
    let schemas: BTreeMap<String, String> = ask(raw, "HGETALL tenant:{acme}:db_schema").await;
    assert_eq!(schemas, map(&[("payment", "1.2@1700000000000")]));
    assert_eq!(ask::<BTreeSet<String>>(raw, "SMEMBERS tenants").await, set(&["acme", "asleep"]));
    assert_eq!(ask::<BTreeSet<String>>(raw, "SMEMBERS active_tenants").await, set(&["acme"]));
    assert_eq!(ask::<BTreeSet<String>>(raw, "SMEMBERS services").await, set(&["payment"]));
    let policy: String = ask(raw, "GET service:{payment}:policy").await;
    let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
    assert_eq!(policy["service"]["id"], "payment", "{policy}");
    assert_eq!(policy["versions"][0]["version"], "v2.1", "{policy}");
    assert_eq!(policy["overlays"][0]["id"], "next", "{policy}");
    assert_eq!(policy["overlays"][0]["canary"]["buckets"][0]["end"], 250, "{policy}");
    assert_eq!(ask::<String>(raw, "GET service:{payment}:guard").await, at);
}

#[tokio::test]
async fn projection_reads_as_documented_however_it_was_written() {
    let (_redis, state, mut raw) = start().await;
    rebuild(&state, vec![], 0).await;
    apply(&state, 1, changes()).await.unwrap();
    assert_layout(&mut raw, "1700000000001 1 3").await;
    let status: BTreeMap<String, String> = ask(&mut raw, "HGETALL grey:projection").await;
    let expected = [
        ("token", "1700000000001"),
        ("epoch", "3"),
        ("revision", "1"),
        ("digest", "1:00000000000000cd"),
        ("level", "1"),
    ];
    assert_eq!(status, map(&expected));

    rebuild(&state, load(&state).await, 7).await;
    assert_layout(&mut raw, "1700000000001 7 3").await;
    apply(&state, 8, vec![Change::Removed(Key::Tenant(tenant_id("acme")))]).await.unwrap();
    assert_eq!(ask::<Vec<String>>(&mut raw, "KEYS tenant:{acme}:*").await, Vec::<String>::new());
    assert_eq!(ask::<BTreeSet<String>>(&mut raw, "SMEMBERS active_tenants").await, set(&[]));
}

#[tokio::test]
async fn feeds_instances_and_leases_read_as_documented() {
    let (_redis, state, mut raw) = start().await;
    state.feed.reset(TOKEN, &position(3, 41)).await.unwrap();
    state.feed.append(TOKEN, EPOCH, &[entry(42)]).await.unwrap();
    let entries: Vec<(String, BTreeMap<String, Vec<u8>>)> = ask(&mut raw, "XRANGE grey:changes - +").await;
    let ids: Vec<&str> = entries.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["41-1", "42-0"]);
    assert_eq!(entries[0].1["kind"], b"base");
    assert_eq!(entries[1].1["e"], grey_proto::codec::encode_event(&entry(42).event));

    state.instances.replace(TOKEN, &instances("payment", &["v2.1", "v3"], 2)).await.unwrap();
    let index: BTreeMap<String, String> = ask(&mut raw, "HGETALL service:{payment}:instances").await;
    let digest = format!("{:016x}", instances("payment", &["v2.1", "v3"], 2).digest());
    assert_eq!(
        index,
        map(&[("#token", "1700000000001"), ("#digest", &digest), ("v2.1", "2"), ("v3.0", "2")])
    );
    let digests: BTreeMap<String, String> = ask(&mut raw, "HGETALL {grey:instances}:digests").await;
    assert_eq!(digests, map(&[("#token", "1700000000001"), ("#digest", &digest), ("payment", &digest)]));
    let hash = "HGETALL service:{payment}:version:v2.1:instances";
    let hash: BTreeMap<String, String> = ask(&mut raw, hash).await;
    let instance: serde_json::Value = serde_json::from_str(&hash["v2.1-001:8080#DEFAULT"]).unwrap();
    assert_eq!(instance["address"], "10.0.0.1:8080", "{instance}");
    state.instances.replace(TOKEN, &instances("payment", &["v3"], 1)).await.unwrap();
    let keys: BTreeSet<String> = ask(&mut raw, "KEYS service:*").await;
    assert_eq!(keys, set(&["service:{payment}:instances", "service:{payment}:version:v3.0:instances"]));

    let token = state.leases.acquire(&name("publisher"), "control-1", Duration::from_secs(60)).await.unwrap();
    let lease: String = ask(&mut raw, "GET grey:lease:publisher").await;
    let parts: Vec<&str> = lease.split(' ').collect();
    assert_eq!((parts[0], parts[2]), (token.unwrap().0.to_string().as_str(), "control-1"));
    state.turns.next(&service_id("payment"), &version("v2.1"), Locality::Everywhere).await.unwrap();
    assert_eq!(ask::<u64>(&mut raw, "GET service:{payment}:version:v2.1:counter").await, 1);
}

#[tokio::test]
async fn requests_and_statuses_read_as_documented() {
    let (_redis, state, mut raw) = start().await;
    for request in [b"one".as_slice(), b"two"] {
        state.requests.post(&name("registry-sync"), request).await.unwrap();
    }
    let waiting: Vec<String> = ask(&mut raw, "LRANGE grey:requests:registry-sync 0 -1").await;
    assert_eq!(waiting, ["one", "two"]);
    let forgotten_in: i64 = ask(&mut raw, "PTTL grey:requests:registry-sync").await;
    assert!((1..=3_600_000).contains(&forgotten_in), "{forgotten_in}");
    state.requests.take(&name("registry-sync"), NOW).await.unwrap();

    let ttl = Duration::from_secs(30);
    state.statuses.publish(&name("registry-sync"), TOKEN, b"fine", ttl).await.unwrap();
    assert_eq!(ask::<String>(&mut raw, "GET grey:status:registry-sync").await, "1700000000001 fine");
    let forgotten_in: i64 = ask(&mut raw, "PTTL grey:status:registry-sync").await;
    assert!((1..=30_000).contains(&forgotten_in), "{forgotten_in}");
    let keys: BTreeSet<String> = ask(&mut raw, "KEYS *").await;
    assert_eq!(keys, set(&["grey:status:registry-sync"]), "requests that were taken leave nothing behind");
}

#[tokio::test]
async fn only_heartbeats_requests_and_statuses_expire() {
    let (_redis, state, mut raw) = start().await;
    rebuild(&state, records(9, 20), 1).await;
    apply(&state, 2, changes()).await.unwrap();
    state.feed.reset(TOKEN, &position(3, 1)).await.unwrap();
    state.instances.replace(TOKEN, &instances("payment", &["v1"], 2)).await.unwrap();
    state.leases.acquire(&name("publisher"), "a", Duration::from_secs(1)).await.unwrap();
    state.turns.next(&service_id("payment"), &version("v1"), Locality::Everywhere).await.unwrap();
    let beat = Heartbeat {
        router: "r1".to_owned(),
        run: 1,
        address: String::new(),
        region: String::new(),
        zone: String::new(),
        position: Position::default(),
        digest: 0,
        stale: true,
        level: FormatLevel(1),
        lease: Duration::from_secs(600),
    };
    state.heartbeats.beat(&beat).await.unwrap();
    state.requests.post(&name("mirror"), b"x").await.unwrap();
    state.statuses.publish(&name("mirror"), TOKEN, b"x", Duration::from_secs(600)).await.unwrap();
    let expiring = set(&["grey:router:r1", "grey:requests:mirror", "grey:status:mirror"]);
    let keys: Vec<String> = ask(&mut raw, "KEYS *").await;
    assert!(keys.len() > 40 && expiring.iter().all(|key| keys.contains(key)), "{keys:?}");
    for key in keys {
        let ttl: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut raw).await.unwrap();
        assert_eq!(ttl >= 0, expiring.contains(&key), "{key} expires in {ttl} ms");
    }
}

#[tokio::test]
async fn a_rebuild_removes_every_foreign_tenant_and_nothing_else() {
    let (_redis, state, mut raw) = start().await;
    state.instances.replace(TOKEN, &instances("payment", &["v1"], 2)).await.unwrap();
    state.turns.next(&service_id("payment"), &version("v1"), Locality::Everywhere).await.unwrap();
    for n in 0..50 {
        // Neither index names them.
        ask::<()>(&mut raw, &format!("HSET tenant:{{foreign{n}}}:services payment v9")).await;
        ask::<()>(&mut raw, &format!("SET service:{{foreign{n}}}:policy x")).await;
    }
    ask::<()>(&mut raw, "SET tenant:{foreign0}:services:mine x").await;
    ask::<()>(&mut raw, "SET session:1 x").await;
    rebuild(&state, vec![], 0).await;
    let keys: BTreeSet<String> = ask(&mut raw, "KEYS *").await;
    let kept = [
        "grey:instances",
        "grey:projection",
        "service:{payment}:instances",
        "service:{payment}:version:v1.0:counter",
        "service:{payment}:version:v1.0:instances",
        "session:1",
        "tenant:{foreign0}:services:mine",
        "{grey:instances}:digests",
    ];
    assert_eq!(keys, set(&kept));
}

/// Which key an error blames.
fn blamed<T: std::fmt::Debug>(outcome: Result<T, Error>) -> String {
    match outcome {
        Err(Error::Corrupt { key, .. }) => key,
        other => format!("not corrupt but {other:?}"),
    }
}

#[tokio::test]
async fn values_that_do_not_read_back_are_reported_with_their_key() {
    let (_redis, state, mut raw) = start().await;
    let wrongs = [
        (
            "tenant:{acme}:metadata",
            vec![
                "SET tenant:{acme}:metadata x",
                "HSET tenant:{acme}:metadata status busy",
                "HSET tenant:{acme}:metadata status active tier A",
                "HSET tenant:{acme}:metadata status active label.A x",
            ],
        ),
        (
            "tenant:{acme}:services",
            vec![
                "SADD tenant:{acme}:services x",
                "HSET tenant:{acme}:services payment latest",
                "HSET tenant:{acme}:services A v1",
            ],
        ),
        (
            "tenant:{acme}:db_schema",
            vec![
                "SET tenant:{acme}:db_schema x",
                "HSET tenant:{acme}:db_schema payment 1.2",
                "HSET tenant:{acme}:db_schema payment one@1",
                "HSET tenant:{acme}:db_schema payment 1@soon",
            ],
        ),
        (
            "service:{payment}:policy",
            vec![
                "SET service:{payment}:policy {}",
                r#"SET service:{payment}:policy {"service":{"id":"payment","defaultVersion":"v1"},"overlays":[{}]}"#,
                "SET service:{payment}:policy x",
                "LPUSH service:{payment}:policy x",
            ],
        ),
        ("tenants", vec!["SADD tenants A", "SET tenants x"]),
        ("services", vec!["SADD services {x}", "SET services x"]),
    ];
    for (key, commands) in wrongs {
        for command in commands {
            rebuild(&state, vec![], 0).await;
            apply(&state, 1, changes()).await.unwrap();
            if !command.starts_with("SADD tenants") && !command.starts_with("SADD services") {
                ask::<()>(&mut raw, &format!("DEL {key}")).await;
            }
            ask::<()>(&mut raw, command).await;
            let damage = state.projection.load(&mut |_| {}).await.unwrap();
            let keys: Vec<&str> = damage.iter().map(|damage| damage.key.as_str()).collect();
            assert_eq!(keys, [key], "{command}");
        }
    }
    rebuild(&state, vec![], 0).await;
    for (command, key) in [
        ("HSET grey:projection revision x", "grey:projection"),
        ("HSET grey:projection epoch x", "grey:projection"),
        ("HDEL grey:projection digest", "grey:projection"),
        ("HSET grey:projection digest 0", "grey:projection"),
        ("HDEL grey:projection level", "grey:projection"),
        ("SET grey:projection x", "grey:projection"),
    ] {
        ask::<()>(&mut raw, "DEL grey:projection").await;
        ask::<()>(
            &mut raw,
            "HSET grey:projection token 1 epoch 3 revision 1 digest 1:0000000000000000 level 1",
        )
        .await;
        if command.starts_with("SET") {
            ask::<()>(&mut raw, "DEL grey:projection").await;
        }
        ask::<()>(&mut raw, command).await;
        assert_eq!(blamed(state.projection.status().await), key, "{command}");
    }
}

#[tokio::test]
async fn streams_leases_and_counters_of_another_shape_are_reported_with_their_key() {
    let (_redis, state, mut raw) = start().await;
    for command in [
        "SET grey:changes x",
        "XADD grey:changes 5-7 g 3 t 1",
        "XADD grey:changes 5-0 g 3 t x",
        "XADD grey:changes 5-0 g x t 1",
    ] {
        ask::<()>(&mut raw, "DEL grey:changes").await;
        ask::<()>(&mut raw, command).await;
        assert_eq!(blamed(state.feed.head().await), "grey:changes", "{command}");
    }
    for command in ["XADD grey:changes 5-0 g 3 t 1 e x d 0", "XADD grey:changes 5-0 g 3 t 1"] {
        ask::<()>(&mut raw, "DEL grey:changes").await;
        ask::<()>(&mut raw, command).await;
        assert_eq!(
            blamed(state.feed.read(&position(3, 4), FormatLevel::CURRENT, 1, NOW).await),
            "grey:changes",
            "{command}"
        );
    }
    let (service, v1) = (service_id("payment"), version("v1"));
    let counter = "service:{payment}:version:v1.0:counter";
    for command in [format!("SET {counter} x"), format!("LPUSH {counter} x")] {
        ask::<()>(&mut raw, &format!("DEL {counter}")).await;
        ask::<()>(&mut raw, &command).await;
        assert_eq!(blamed(state.turns.next(&service, &v1, Locality::Everywhere).await), counter, "{command}");
    }
    for command in ["SET grey:requests:mirror x", "SADD grey:status:mirror x", "SET grey:status:mirror x"] {
        ask::<()>(&mut raw, "DEL grey:status:mirror").await;
        ask::<()>(&mut raw, command).await;
    }
    assert_eq!(blamed(state.requests.post(&name("mirror"), b"x").await), "grey:requests:mirror");
    assert_eq!(blamed(state.requests.take(&name("mirror"), NOW).await), "grey:requests:mirror");
    assert_eq!(blamed(state.statuses.read(&name("mirror")).await), "grey:status:mirror");
}

#[tokio::test]
async fn what_one_writer_writes_whole_is_written_whatever_was_there() {
    let (_redis, state, mut raw) = start().await;
    let short = Duration::from_secs(60);
    for damage in ["x", "7", "99999999999999999999 1 a", "5 99999999999999 a", "-1 0 a"] {
        redis::cmd("SET").arg("grey:lease:mirror").arg(damage).exec_async(&mut raw).await.unwrap();
        let token = state.leases.acquire(&name("mirror"), "b", short).await.unwrap();
        assert!(token.is_some_and(|token| token > TOKEN), "{damage}: {token:?}");
        ask::<()>(&mut raw, "DEL grey:lease:mirror").await;
    }
    ask::<()>(&mut raw, "SADD grey:lease:mirror x").await;
    assert!(state.leases.acquire(&name("mirror"), "b", short).await.unwrap().is_some());
    ask::<()>(&mut raw, "SADD grey:status:mirror x").await;
    state.statuses.publish(&name("mirror"), TOKEN, b"fine", short).await.unwrap();
    assert_eq!(state.statuses.read(&name("mirror")).await.unwrap().unwrap(), b"fine");
    ask::<()>(&mut raw, "SET grey:requests:mirror x").await;
    state.requests.take(&name("mirror"), NOW).await.unwrap_err();
    state.requests.post(&name("mirror"), b"y").await.unwrap();
    assert_eq!(state.requests.take(&name("mirror"), NOW).await.unwrap(), [b"y"]);
    let beat = crate::world::heartbeat("r1", Position::default());
    let goodbye = Goodbye { router: "r1".to_owned(), run: beat.run };
    for key in ["grey:routers", "{grey:routers}:left"] {
        ask::<()>(&mut raw, &format!("DEL {key}")).await;
        ask::<()>(&mut raw, &format!("SET {key} x")).await;
        state.heartbeats.beat(&beat).await.unwrap();
        assert_eq!(state.heartbeats.live().await.unwrap(), std::slice::from_ref(&beat), "{key}");
        assert_eq!(state.heartbeats.left().await.unwrap(), [], "{key}");
        ask::<()>(&mut raw, &format!("DEL {key}")).await;
        ask::<()>(&mut raw, &format!("SET {key} x")).await;
        state.heartbeats.leave(&goodbye).await.unwrap();
        assert_eq!(state.heartbeats.left().await.unwrap(), std::slice::from_ref(&goodbye), "{key}");
    }
}

#[tokio::test]
async fn a_router_whose_heartbeat_does_not_read_back_is_one_of_which_nothing_is_known() {
    let (_redis, shared, mut raw) = start().await;
    let beat = |router| crate::world::heartbeat(router, position(3, 7));
    for router in ["r1", "r2"] {
        shared.heartbeats.beat(&beat(router)).await.unwrap();
    }
    for member in ["A B", "r3", "x}"] {
        let mut add = redis::cmd("ZADD");
        add.arg("grey:routers").arg(99_999_999_999_999_u64).arg(member).exec_async(&mut raw).await.unwrap();
    }
    let beyond = r#"{"id":"r1","run":"18446744073709551615"}"#;
    for state in [r#"x"#, "{}", r#"{"id":"r2"}"#, r#"{"id":"r1","revision":"many"}"#, beyond] {
        let mut set = redis::cmd("SET");
        set.arg("grey:router:r1").arg(state).exec_async(&mut raw).await.unwrap();
        let live = shared.heartbeats.live().await.unwrap();
        assert_eq!(live.len(), 2, "{state}");
        assert_eq!((live[0].router.as_str(), live[0].level, live[0].stale), ("r1", FormatLevel(0), true));
        assert_eq!(live[0].position, Position::default());
        assert_eq!(live[1], beat("r2"));
        let below: Vec<&str> = below(FormatLevel(1), &live).map(|router| router.router.as_str()).collect();
        assert_eq!(below, ["r1"]);
    }
    // What only a newer release knows is skipped.
    let newer = r#"{"id":"r1","run":"1","epoch":"3","revision":"7","level":1,"lease":"60s","mood":"fine","nested":{"x":[1]}}"#;
    redis::cmd("SET").arg("grey:router:r1").arg(newer).exec_async(&mut raw).await.unwrap();
    assert_eq!(shared.heartbeats.live().await.unwrap()[0], beat("r1"));
}

#[tokio::test]
async fn turns_start_over_before_they_lose_exactness() {
    let (_redis, state, mut raw) = start().await;
    let (service, v1) = (service_id("payment"), version("v1"));
    ask::<()>(&mut raw, &format!("SET service:{{payment}}:version:v1.0:counter {}", LAST_TURN - 1)).await;
    for expected in [LAST_TURN, 1, 2] {
        assert_eq!(state.turns.next(&service, &v1, Locality::Everywhere).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_late_write_of_an_old_leader_is_refused_by_the_unit() {
    let (_redis, state, mut raw) = start().await;
    rebuild(&state, vec![], 0).await;
    apply(&state, 1, changes()).await.unwrap();
    // As if the old leader had read the status before the new one wrote it.
    ask::<()>(&mut raw, "HSET grey:projection token 5").await;
    let rename = tenant_put(Tenant { name: "late".to_owned(), ..acme() });
    let default = service_put(&service_id("payment"), &version("v9"));
    for change in [rename, default] {
        let reached = status(2, 0);
        let late = state.projection.apply(FencingToken(5), &[event(2, vec![change])], &reached).await;
        assert!(matches!(late, Err(Error::Fenced { newest, .. }) if newest == TOKEN.0), "{late:?}");
    }
    assert_layout(&mut raw, "1700000000001 1 3").await;
    // A replay of what a unit has already got is no change either, even if the status does not know of it.
    ask::<()>(&mut raw, "HSET grey:projection revision 0").await;
    let other = tenant_put(Tenant { name: "other".to_owned(), ..acme() });
    apply(&state, 1, vec![other]).await.unwrap();
    assert_layout(&mut raw, "1700000000001 1 3").await;
}

#[tokio::test]
async fn scripts_survive_a_flush_of_the_script_cache() {
    let (_redis, state, mut raw) = start().await;
    state.feed.reset(TOKEN, &position(3, 0)).await.unwrap();
    rebuild(&state, vec![], 0).await;
    for revision in 1..4 {
        ask::<()>(&mut raw, "SCRIPT FLUSH").await;
        let appended = state.feed.append(TOKEN, EPOCH, &[entry(revision)]).await.unwrap();
        assert_eq!(appended, Append::Appended);
        ask::<()>(&mut raw, "SCRIPT FLUSH").await;
        apply(&state, revision, changes()).await.unwrap();
    }
    let loaded = load(&state).await;
    let pinned =
        |record: &Record| matches!(record, Record::Tenant(TenantRecord { pins, .. }) if pins.len() == 2);
    assert!(loaded.len() == 3 && loaded.iter().any(pinned), "{loaded:?}");
}
