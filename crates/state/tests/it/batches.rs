//! What has gathered in the log is published at once, and a batch that was written in part is done again.

use crate::samples::{event, load, position, service_id, tenant_id, tenant_put, version};
use crate::world::{DEADLINE, Log, publish_with, publisher_options, put_tenant, tenant};
use grey_core::change::{Change, Event, FormatLevel};
use grey_core::ids::TenantId;
use grey_core::key::{Fact, Key};
use grey_core::service::Pin;
use grey_core::tenant::Tenant;
use grey_state::projection::ProjectionStatus;
use grey_state::publisher::Options;
use grey_state::{Digests, Error, FencingToken, State};
use grey_testkit::{Redis, eventually};
use std::time::Duration;

const TOKEN: FencingToken = FencingToken(1);

fn pin(tenant: &TenantId, to: &str) -> Change {
    Change::Put(Fact::Pin(tenant.clone(), service_id("payment"), Pin { version: version(to), locked: false }))
}

/// Scripts that a server has run so far.
async fn scripts(redis: &Redis) -> u64 {
    let mut connection = redis.connection().await.unwrap();
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    let calls = |line: &str| -> Option<u64> {
        let (_, rest) = line.strip_prefix("cmdstat_eval")?.split_once("calls=")?;
        rest.split_once(',')?.0.parse().ok()
    };
    stats.lines().filter_map(calls).sum()
}

#[tokio::test]
async fn what_has_gathered_is_published_in_few_round_trips() {
    const EVENTS: u64 = 1_000;
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&crate::options_of(&redis)).await.unwrap();
    let log = Log::new();
    log.commit(put_tenant(1));
    let seldom = Duration::from_secs(3_600);
    let options =
        Options { batch: 256, beat: seldom, check: seldom, deep_check: seldom, ..publisher_options() };
    let (_publisher, handle) = publish_with(&state, &log, options);
    let reached = async |revision| {
        eventually(DEADLINE, "the projection holds the log", async || {
            let status = state.projection.status().await.unwrap();
            status.is_some_and(|status| status.position.revision.0 == revision)
        })
        .await;
    };
    reached(1).await;
    let before = scripts(&redis).await;
    for i in 0..EVENTS {
        log.commit(vec![pin(&tenant(1), ["v1", "v2"][i as usize % 2])]);
    }
    handle.notify();
    reached(1 + EVENTS).await;
    let ran = scripts(&redis).await - before;
    assert!(ran < EVENTS / 2, "{ran} scripts for {EVENTS} events");
    let head = state.feed.head().await.unwrap().unwrap();
    assert_eq!(head.last.0, 1 + EVENTS);
}

fn reached(events: &[Event]) -> ProjectionStatus {
    let position = position(3, events.last().unwrap().revision.0);
    ProjectionStatus { position, digests: Digests::unknown(), level: FormatLevel::FIRST }
}

async fn begin(state: &State) {
    let rebuild = state.projection.rebuild(TOKEN, &position(3, 0)).await.unwrap();
    let status =
        ProjectionStatus { position: position(3, 0), digests: Digests::unknown(), level: FormatLevel::FIRST };
    rebuild.finish(&status).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_was_written_in_part_is_done_again_alone_or_with_what_followed() {
    let (a, b, c) = (tenant_id("a"), tenant_id("b"), tenant_id("c"));
    let put = |id: &TenantId| tenant_put(Tenant::new(id.clone()));
    let events = [
        event(1, vec![put(&a), put(&c), pin(&a, "v1")]),
        event(2, vec![put(&b), pin(&b, "v1")]),
        event(3, vec![pin(&c, "v1"), pin(&a, "v2")]),
        event(4, vec![pin(&a, "v3"), Change::Removed(Key::Tenant(c.clone()))]),
        event(5, vec![put(&c)]),
    ];
    for again in [3, 5] {
        let redis = Redis::start().await.unwrap();
        let state = State::redis(&crate::options_of(&redis)).await.unwrap();
        let mut raw = redis.connection().await.unwrap();
        begin(&state).await;
        redis::cmd("SET").arg("tenant:{b}:metadata").arg("no hash").exec_async(&mut raw).await.unwrap();
        let batch = &events[..3];
        let refused = state.projection.apply(TOKEN, batch, &reached(batch)).await;
        assert!(matches!(&refused, Err(Error::Corrupt { key, .. }) if key.contains("{b}")), "{refused:?}");
        let status = state.projection.status().await.unwrap().unwrap();
        assert_eq!(status.position, position(3, 0), "the position is moved last");

        redis::cmd("DEL").arg("tenant:{b}:metadata").exec_async(&mut raw).await.unwrap();
        let (batch, rest) = events.split_at(again);
        state.projection.apply(TOKEN, batch, &reached(batch)).await.unwrap();
        if !rest.is_empty() {
            state.projection.apply(TOKEN, rest, &reached(rest)).await.unwrap();
        }
        let model = State::memory();
        begin(&model).await;
        model.projection.apply(TOKEN, &events, &reached(&events)).await.unwrap();
        assert_eq!(load(&state).await, load(&model).await, "again up to {again}");
        assert_eq!(state.projection.indexes().await.unwrap(), model.projection.indexes().await.unwrap());
    }
}
