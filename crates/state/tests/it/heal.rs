//! Whatever is written into the projection by someone else: it is noticed, told and mended, and nobody who claims to
//! be current decides by it.

use crate::samples::{service_put, tenant_put};
use crate::world::{
    DEADLINE, Log, Task, follow, follow_with, follower_options, publish_with, publisher_options, put_tenant,
    tenant, until_equal,
};
use grey_core::change::{Change, FormatLevel, Position, Revision};
use grey_core::ids::{Name, ServiceId};
use grey_core::key::Fact;
use grey_core::record::{Record, TenantRecord};
use grey_core::schema::{Observation, SchemaVersion, SchemaWindow};
use grey_core::service::{Pin, ServiceVersion};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use grey_state::follower::{NotCurrent, Tables};
use grey_state::projection::{Indexes, ProjectionStatus, Repair};
use grey_state::publisher::{self, Handle, ask_for_check};
use grey_state::{Digests, FencingToken, State};
use grey_testkit::{Redis, eventually};
use std::sync::Arc;
use std::time::Duration;

/// Nothing is mended because its time has come: only because it was noticed.
const NEVER: Duration = Duration::from_secs(3_600);

fn options() -> publisher::Options {
    publisher::Options { deep_check: NEVER, ..publisher_options() }
}

fn service() -> ServiceId {
    ServiceId::new("payment").unwrap()
}

fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

/// Two services and three tenants with a pin and a schema each.
fn begin() -> Arc<Log> {
    let log = Log::new();
    log.commit(vec![service_put(&service(), &version("v1"))]);
    log.commit(vec![service_put(&ServiceId::new("orders").unwrap(), &version("v1"))]);
    for v in ["v1", "v2"] {
        let (service, version) = (service(), version(v));
        let declared = ServiceVersion { service, version, window: SchemaWindow::default() };
        log.commit(vec![Change::Put(Fact::Version(Box::new(declared)))]);
    }
    for i in 0..3 {
        let name = |text| Name::new(text).unwrap();
        let put = Tenant { labels: [(name("beta"), "yes".to_owned())].into(), ..Tenant::new(tenant(i)) };
        let pin = Pin { version: version("v2"), locked: false };
        let seen = Observation { schema: SchemaVersion::new("1.2").unwrap(), at_ms: 7 };
        log.commit(vec![
            tenant_put(Tenant { tier: Some(name("gold")), ..put }),
            Change::Put(Fact::Pin(tenant(i), service(), pin)),
            Change::Put(Fact::Schema(tenant(i), service(), seen)),
        ]);
    }
    log
}

/// A follower whose every answer is compared with the log, as long as it claims to be current.
struct Watched {
    tables: Tables,
    _following: Task,
    _watching: tokio::task::JoinHandle<()>,
}

impl Watched {
    fn start(state: &State, log: &Arc<Log>) -> Self {
        let (following, tables) = follow(state, None);
        let (watched, log) = (tables.clone(), Arc::clone(log));
        let watching = tokio::spawn(async move {
            loop {
                let before = watched.status().is_current();
                let table = watched.load_full();
                if before && watched.status().is_current() {
                    let right = log.table_at(table.position().revision);
                    assert_eq!(table.digest(), right.digest(), "a wrong table is called current");
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { tables, _following: following, _watching: watching }
    }

    async fn is_right(&self, state: &State, log: &Log, what: &str) {
        until_equal(state, log, &self.tables, what).await;
        eventually(DEADLINE, what, async || self.tables.status().is_current()).await;
        assert!(!self._watching.is_finished(), "{what}: a wrong table was called current");
    }
}

/// Whether the projection is what the log says: every record reads back, and the indexes name them.
async fn is_mended(state: &State, log: &Log) -> bool {
    let (right, mut found) = (log.table(), Table::default());
    let load = state.projection.load(&mut |records| records.into_iter().for_each(|r| found.insert(r))).await;
    let status = state.projection.status().await;
    let wanted = ProjectionStatus {
        position: right.position(),
        digests: Digests::of(&right),
        level: FormatLevel::FIRST,
    };
    load.is_ok_and(|damage| damage.is_empty())
        && found.digest() == right.digest()
        && state.projection.indexes().await.is_ok_and(|indexes| indexes == Indexes::of(&right))
        && matches!(status, Ok(Some(status)) if status == wanted)
}

/// Every way to damage a key, as commands; `{}` is the key.
fn damages(key: &str) -> Vec<Vec<&'static str>> {
    let hash = |garbage: &[&'static str]| {
        let mut damages = vec![vec!["DEL {}"], vec!["DEL {}", "SET {} x"], vec!["DEL {}", "SADD {} x"]];
        damages.extend(garbage.iter().map(|garbage| vec![*garbage]));
        damages
    };
    match key {
        "tenant:{t1}:metadata" => hash(&[
            "HSET {} status busy",
            "HSET {} status suspended",
            "HDEL {} status",
            "HSET {} tier A",
            "HSET {} tier silver",
            "HSET {} label.A x",
            "HSET {} label.beta no",
            "HSET {} label.new yes",
            "HSET {} #at x",
            "HSET {} #at 1_999999_1",
            "HSET {} #at 99999999999999999999_1_1",
            "HSET {} #at 999999999_1_1",
            "HSET {} mood fine",
        ]),
        "tenant:{t1}:services" => hash(&[
            "HSET {} payment latest",
            "HSET {} payment v1",
            "HSET {} A v1",
            "HSET {} orders v1",
            "HDEL {} payment",
        ]),
        "tenant:{t1}:db_schema" => {
            hash(&["HSET {} payment one@1", "HSET {} payment 9@1", "HSET {} A 1@1", "HDEL {} payment"])
        }
        "service:{payment}:policy" => hash(&["SET {} {}", "SET {} x"]),
        "service:{payment}:guard" => {
            hash(&["SET {} x", "SET {} 1_999999_1", "SET {} 99999999999999999999_1_1"])
        }
        "tenants" => hash(&["SADD {} A", "SADD {} ghost", "SREM {} t1"]),
        "active_tenants" => hash(&["SADD {} A", "SADD {} ghost", "SREM {} t1"]),
        "services" => hash(&["SADD {} A", "SADD {} ghost", "SREM {} payment"]),
        "grey:projection" => hash(&[
            "HSET {} digest x",
            "HSET {} digest 1:0000000000000000",
            "HSET {} epoch 77",
            "HSET {} epoch 18446744073709551615",
            "HSET {} revision 3",
            "HSET {} revision 999",
            "HSET {} revision 18446744073709551615",
            "HSET {} level 7",
            "HSET {} token 99999999999999999999",
            "HSET {} token 999999999",
            "HSET {} beat x",
            "HDEL {} beat",
            "HSET {} rebuild x",
            "HDEL {} revision",
        ]),
        "grey:changes" => hash(&[
            "XADD {} 999-0 x y",
            "XADD {} 999-5 x y",
            "XTRIM {} MAXLEN 0",
            "XTRIM {} MAXLEN 1",
            "XADD {} 18446744073709551615-0 g 1 t 1 e x d x",
        ]),
        _ => hash(&["SET {} x"]),
    }
}

/// A new pin of the tenant that was damaged, and a new version of the service.
fn touch(log: &Log) {
    let other = if log.table().digest().is_multiple_of(2) { "v1" } else { "v2" };
    let pin = Pin { version: version(other), locked: true };
    log.commit(vec![Change::Put(Fact::Pin(tenant(1), service(), pin))]);
    log.commit(vec![service_put(&service(), &version(other))]);
}

async fn every_damage_heals(keys: &[&str]) {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&crate::options_of(&redis)).await.unwrap();
    let log = begin();
    let (_publisher, handle) = publish_with(&state, &log, options());
    let running = Watched::start(&state, &log);
    let mut raw = redis.connection().await.unwrap();
    running.is_right(&state, &log, "the log is published").await;
    for key in keys {
        for damage in damages(key) {
            let what = format!("{key}: {damage:?}");
            // At once: the publisher writes on meanwhile.
            let mut together = redis::pipe();
            together.atomic();
            for command in &damage {
                let mut words = command.split(' ');
                together.cmd(words.next().unwrap());
                for word in
                    words.map(|word| if word == "{}" { (*key).to_owned() } else { word.replace('_', " ") })
                {
                    together.arg(word);
                }
            }
            together.exec_async(&mut raw).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            // One that starts finds what it needs; what nobody loads is looked at by the publisher, when its time comes
            // or when it is asked.
            let fresh = Watched::start(&state, &log);
            fresh.is_right(&state, &log, &what).await;
            running.is_right(&state, &log, &what).await;
            ask_for_check(&state, "test").await.ok();
            eventually(DEADLINE, &what, async || is_mended(&state, &log).await).await;
            touch(&log);
            let fresh = Watched::start(&state, &log);
            fresh.is_right(&state, &log, &what).await;
            running.is_right(&state, &log, &what).await;
            eventually(DEADLINE, &what, async || is_mended(&state, &log).await).await;
        }
    }
    assert!(handle.repairs() + handle.rebuilds() > 1, "it was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damage_of_a_tenant_heals() {
    every_damage_heals(&["tenant:{t1}:metadata", "tenant:{t1}:services", "tenant:{t1}:db_schema"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damage_of_a_service_and_of_the_indexes_heals() {
    let keys =
        ["service:{payment}:policy", "service:{payment}:guard", "tenants", "active_tenants", "services"];
    every_damage_heals(&keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damage_of_what_all_share_heals() {
    let keys = ["grey:projection", "grey:changes", "grey:routers", "grey:requests:projection"];
    every_damage_heals(&keys).await;
}

/// Someone who writes by the same means as the publisher, and with its token.
async fn foreign(state: &State, log: &Log, repairs: &[Repair]) {
    state.projection.repair(log.token(), &log.table().position(), repairs).await.unwrap();
}

#[tokio::test]
async fn foreign_records_are_mended_in_memory_too() {
    let (state, log) = (State::memory(), begin());
    let (_publisher, handle) = publish_with(&state, &log, options());
    let running = Watched::start(&state, &log);
    running.is_right(&state, &log, "the log is published").await;
    eventually(DEADLINE, "the projection is there", async || is_mended(&state, &log).await).await;
    let wrong = |i| {
        let pins = vec![(service(), Pin { version: version("v9"), locked: true })];
        Record::Tenant(TenantRecord { pins, ..Tenant::new(tenant(i)).into() })
    };
    let gone = wrong(2).key().into();
    for repairs in [vec![Repair::Put(wrong(1))], vec![Repair::Put(wrong(9))], vec![Repair::Remove(gone)]] {
        foreign(&state, &log, &repairs).await;
        let fresh = Watched::start(&state, &log);
        fresh.is_right(&state, &log, "a fresh follower has what the log has").await;
        running.is_right(&state, &log, "who runs is not led astray").await;
        eventually(DEADLINE, "it is mended", async || is_mended(&state, &log).await).await;
    }
    assert_eq!(handle.repairs(), 3, "only what differed was written anew");
    assert_eq!(handle.rebuilds(), 1, "once, when there was none");
}

#[tokio::test]
async fn a_follower_that_never_had_a_verified_table_is_not_ready_and_asks() {
    let (state, log) = (State::memory(), begin());
    let (table, token) = (log.table(), FencingToken(1));
    state.feed.reset(token, &table.position()).await.unwrap();
    let mut rebuild = state.projection.rebuild(token, &table.position()).await.unwrap();
    rebuild.write(table.service_records().map(Record::Service).collect()).await.unwrap();
    let status =
        |digests| ProjectionStatus { position: table.position(), digests, level: FormatLevel::FIRST };
    rebuild.finish(&status(Digests::of(&table))).await.unwrap();
    let (_following, tables) = follow(&state, None);
    let asked = state.requests.take(&Name::new("projection").unwrap(), DEADLINE).await.unwrap();
    assert!(!asked.is_empty());
    let status = tables.status();
    assert!(!status.ready && !status.is_current(), "{status:?}");

    let (_publisher, _handle) = publish_with(&state, &log, options());
    until_equal(&state, &log, &tables, "the publisher mends it").await;
    eventually(DEADLINE, "it is ready", async || tables.status().ready).await;
}

#[tokio::test]
async fn a_table_that_differs_is_told_until_it_is_loaded_anew() {
    let (state, log) = (State::memory(), begin());
    let (publisher, _handle) = publish_with(&state, &log, options());
    let (_following, first) = follow(&state, None);
    until_equal(&state, &log, &first, "the log is published").await;
    eventually(DEADLINE, "the projection is there", async || is_mended(&state, &log).await).await;
    publisher.kill();
    // Nobody mends the projection now.
    let wrong = Record::Tenant(Tenant::new(tenant(1)).into());
    foreign(&state, &log, &[Repair::Put(wrong)]).await;
    let mut drifted = Table::default();
    drifted.set_position(log.table().position());
    let (_following, tables) = follow(&state, Some(drifted));
    eventually(DEADLINE, "it differs", async || {
        tables.status().not_current == Some(NotCurrent::Differs) && tables.is_suspect()
    })
    .await;
    assert!(tables.status().ready, "the last good table stays in use");
    assert_eq!(tables.status().drifts, 1);
    let (_publisher, _handle) = publish_with(&state, &log, options());
    until_equal(&state, &log, &tables, "the publisher mends it").await;
    eventually(DEADLINE, "it is current", async || tables.status().is_current()).await;
    assert!(!tables.is_suspect());
}

#[tokio::test]
async fn what_a_release_before_does_not_know_is_skipped() {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&crate::options_of(&redis)).await.unwrap();
    let log = begin();
    let (publisher, handle) = publish_with(&state, &log, options());
    let (_following, tables) = follow(&state, None);
    until_equal(&state, &log, &tables, "the log is published").await;
    eventually(DEADLINE, "the projection is there", async || is_mended(&state, &log).await).await;
    publisher.kill();
    let mut raw = redis.connection().await.unwrap();
    let mut put = redis::cmd("HSET");
    put.arg("tenant:{t1}:metadata").arg("mood").arg("fine").exec_async(&mut raw).await.unwrap();
    let key = "service:{payment}:policy";
    let text: String = redis::cmd("GET").arg(key).query_async(&mut raw).await.unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["owner"] = "ada".into();
    record["service"]["colour"] = serde_json::json!({ "of": ["the", "logo"] });
    redis::cmd("SET").arg(key).arg(record.to_string()).exec_async(&mut raw).await.unwrap();
    let (_following, fresh) = follow(&state, None);
    until_equal(&state, &log, &fresh, "it loads all the same").await;
    assert!(is_mended(&state, &log).await, "nothing of it is damage");
    assert_eq!(handle.repairs(), 0);
}

#[tokio::test]
async fn a_stray_field_stops_no_cold_start_even_if_nobody_mends_it() {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&crate::options_of(&redis)).await.unwrap();
    let log = begin();
    let (publisher, _handle) = publish_with(&state, &log, options());
    let (_following, tables) = follow(&state, None);
    until_equal(&state, &log, &tables, "the log is published").await;
    eventually(DEADLINE, "the projection is there", async || is_mended(&state, &log).await).await;
    publisher.kill();
    let mut raw = redis.connection().await.unwrap();
    for (key, command) in
        [("tenant:{t1}:services", "HSET"), ("tenant:{t1}:db_schema", "HSET"), ("tenants", "SADD")]
    {
        let mut stray = redis::cmd(command);
        stray.arg(key).arg("No Id");
        if command == "HSET" {
            stray.arg("v1@x");
        }
        stray.exec_async(&mut raw).await.unwrap();
    }
    let (_following, fresh) = follow(&state, None);
    until_equal(&state, &log, &fresh, "the rest is what the publisher has").await;
    eventually(DEADLINE, "it is ready", async || fresh.status().ready).await;
}

#[tokio::test]
async fn an_empty_projection_is_written_while_events_go_on() {
    let (state, log) = (State::memory(), begin());
    let (_publisher, handle): (Task, Handle) = publish_with(&state, &log, options());
    let (_following, tables) = follow_with(&state, None, follower_options());
    for i in 10..40 {
        log.commit(put_tenant(i));
        tokio::task::yield_now().await;
    }
    until_equal(&state, &log, &tables, "the follower reaches the log").await;
    assert_eq!(handle.published(), log.table().position().revision);
    eventually(DEADLINE, "the projection too", async || is_mended(&state, &log).await).await;
    assert_eq!(tables.load().position(), Position { revision: Revision(37), ..log.table().position() });
}
